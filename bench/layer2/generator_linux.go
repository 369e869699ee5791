package layer2

import (
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
	return g, nil
}

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
