package layer2

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// A generator has the kernel make frames of one.
type generator struct {
	prog  int // descriptor of a program that passes all
	held  int // descriptor of what holds it; see hold
	frame []byte
	ctx   xdpMD
}

// xdpMD is struct xdp_md (include/uapi/linux/bpf.h).
type xdpMD struct{ data, dataEnd, dataMeta, ingress, queue, egress uint32 }

// Parts of union bpf_attr (include/uapi/linux/bpf.h).
type (
	progLoad struct {
		kind, count    uint32
		code, license  unsafe.Pointer
		level, logSize uint32
		log            unsafe.Pointer
		kernel, flags  uint32
	}
	progRun struct {
		prog, result     uint32
		sizeIn, sizeOut  uint32
		in, out          unsafe.Pointer
		repeat, duration uint32
		ctxIn, ctxOut    uint32
		ctx, ctxTo       unsafe.Pointer
		flags, processor uint32
		batch, _         uint32
	}
	linkCreate struct{ prog, device, kind, flags uint32 }
)

func newGenerator(ns *nstest.NS, device string) (*generator, error) {
	g := &generator{frame: append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x77\x88\xb6"), make([]byte, 46)...)}
	err := ns.Do(func() error {
		dev, err := net.InterfaceByName(device)
		if err == nil {
			g.ctx = xdpMD{dataEnd: uint32(len(g.frame)), ingress: uint32(dev.Index)}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	const pass = 2                                   // XDP_PASS
	code := [][8]byte{{0xb7, 0, 0, 0, pass}, {0x95}} // r0 = pass; exit
	license := []byte("GPL\x00")
	load := progLoad{kind: unix.BPF_PROG_TYPE_XDP, count: uint32(len(code)), code: unsafe.Pointer(&code[0]), license: unsafe.Pointer(&license[0])}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	runtime.KeepAlive(&load)
	if errno != 0 {
		return nil, fmt.Errorf("loading a program for XDP: %w", errno)
	}
	g.prog = int(fd)
	if err := ns.Do(g.hold); err != nil {
		return nil, errors.Join(err, unix.Close(g.prog))
	}
	return g, nil
}

// hold attaches the program to the loopback device, which carries nothing here. The kernel
// has all processors know a program of which it has one user more or less than none
// (bpf_prog_change_xdp, net/core/filter.c), and waits until they do: for each call of send
// some ten milliseconds, in which nothing would come.
func (g *generator) hold() error {
	dev, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	const kind, generic = 37, 2 // BPF_XDP, XDP_FLAGS_SKB_MODE
	link := linkCreate{prog: uint32(g.prog), device: uint32(dev.Index), kind: kind, flags: generic}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_LINK_CREATE, uintptr(unsafe.Pointer(&link)), unsafe.Sizeof(link))
	runtime.KeepAlive(&link)
	if errno != 0 {
		return fmt.Errorf("attaching a program for XDP: %w", errno)
	}
	g.held = int(fd)
	return nil
}

// close lets the program go.
func (g *generator) close() error { return errors.Join(unix.Close(g.held), unix.Close(g.prog)) }

// send has n frames come in. It is called in the device's namespace.
func (g *generator) send(n int) error {
	if n <= 0 {
		return nil
	}
	run := progRun{
		prog: uint32(g.prog), sizeIn: uint32(len(g.frame)), in: unsafe.Pointer(&g.frame[0]), repeat: uint32(n),
		ctxIn: uint32(unsafe.Sizeof(g.ctx)), ctx: unsafe.Pointer(&g.ctx), flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, batch: stormBatch,
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_RUN, uintptr(unsafe.Pointer(&run)), unsafe.Sizeof(run))
	runtime.KeepAlive(&run)
	if errno != 0 && errno != unix.EINTR { // a signal ends it early
		return errno
	}
	return nil
}
