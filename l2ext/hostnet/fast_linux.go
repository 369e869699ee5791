package hostnet

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/fast"
)

// Offloads of a TAP (TUNSETOFFLOAD, include/uapi/linux/if_tun.h): checksums, and
// segmentation of TCP with or without ECN. That of UDP is since Linux 6.2.
const (
	offloadTCP = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	offloadUDP = 0x20 | 0x40 // TUN_F_USO4, TUN_F_USO6
)

// A fastPort is the overlay port of a segment in mode secure-fast: a TAP whose
// frames have a virtio header.
type fastPort struct {
	f   *os.File
	raw syscall.RawConn
	udp bool // the kernel knows UDP segments

	// Of Next, which one goroutine calls at a time.
	try func(fd uintptr) bool // made once, as it would be garbage for each frame
	buf []byte
	n   int
	err error
}

var _ l2ext.Port = (*fastPort)(nil)

// openFastPort makes the TAP. It goes with its file.
func openFastPort(name string) (*fastPort, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	udp, err := setUpTap(fd, name)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making TAP %s: %w", name, err), unix.Close(fd))
	}
	p := &fastPort{udp: udp, f: os.NewFile(uintptr(fd), "/dev/net/tun")}
	if p.raw, err = p.f.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.f.Close())
	}
	p.try = func(fd uintptr) bool {
		p.n, p.err = unix.Read(int(fd), p.buf)
		return true
	}
	return p, nil
}

func setUpTap(fd int, name string) (udp bool, err error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return false, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return false, err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, fast.OffloadLen); err != nil {
		return false, fmt.Errorf("length of the virtio header: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 1); err != nil {
		return false, fmt.Errorf("byte order of the virtio header: %w", err)
	}
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadTCP|offloadUDP) == nil {
		return true, nil
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadTCP); err != nil {
		return false, fmt.Errorf("offloads: %w", err)
	}
	return false, nil
}

// OnlyTCP has the kernel cut UDP.
func (p *fastPort) OnlyTCP() (err error) {
	return errors.Join(p.raw.Control(func(fd uintptr) { err = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, offloadTCP) }), err)
}

// Read reads one message, and waits for it.
func (p *fastPort) Read(b []byte) (int, error) { return p.f.Read(b) }

// Next reads one message if there is one.
func (p *fastPort) Next(b []byte) (int, error) {
	p.buf = b
	if err := p.raw.Read(p.try); err != nil {
		return 0, os.ErrClosed // the only reason that there is
	}
	switch {
	case p.err == nil:
		return p.n, nil
	case errors.Is(p.err, unix.EAGAIN), errors.Is(p.err, unix.EINTR):
		return 0, nil
	}
	return 0, fmt.Errorf("reading from the overlay port: %w", p.err)
}

// Write gives a message to the bridge.
func (p *fastPort) Write(b []byte) error {
	_, err := p.f.Write(b)
	return err
}

// needFast finds the segment's TAP as it ought to be, or makes it.
func (n *Net) needFast(w l2ext.Wish, br netlink.Link) (netlink.Link, *fastPort, error) {
	name := deviceName(w.VNI)
	mtu := max(w.MTU, br.Attrs().MTU)
	l, err := n.nl.LinkByName(name)
	if err != nil && !notFound(err) {
		return nil, nil, fmt.Errorf("finding device %s: %w", name, err)
	}
	n.mu.RLock()
	p := n.segments[w.VNI].fast
	n.mu.RUnlock()
	if err == nil && p != nil && l.Type() == "tuntap" {
		return l, p, n.setPort(w, l, br, portSpec{mtu: mtu, many: true})
	}
	n.closeFast(w.VNI)
	if err == nil {
		if err := n.removePort(l); err != nil {
			return nil, nil, err
		}
	}
	if err := n.within(func() (err error) { p, err = openFastPort(name); return err }); err != nil {
		return nil, nil, err
	}
	if l, err = n.setUpFast(w, br, name, mtu); err != nil {
		return nil, nil, errors.Join(err, p.f.Close())
	}
	return l, p, nil
}

// removePort removes a device that has the name of an overlay port.
func (n *Net) removePort(l netlink.Link) error {
	if !isOurs(l) {
		return fmt.Errorf("device %s is there and is not ours", l.Attrs().Name)
	}
	if err := n.nl.LinkDel(l); err != nil && !notFound(err) { // a TAP has gone with its file
		return fmt.Errorf("removing device %s: %w", l.Attrs().Name, err)
	}
	return nil
}

func (n *Net) setUpFast(w l2ext.Wish, br netlink.Link, name string, mtu int) (netlink.Link, error) {
	l, err := n.claim(name, segmentMark+w.Name)
	if err != nil {
		return nil, err
	}
	if err := n.nl.LinkSetHardwareAddr(l, randomMAC(0xfe, 0xff)); err != nil {
		return nil, fmt.Errorf("setting up device %s: MAC: %w", name, err)
	}
	if err := n.nl.LinkSetTxQLen(l, tunQueue); err != nil {
		return nil, fmt.Errorf("setting up device %s: queue: %w", name, err)
	}
	return l, n.setPort(w, l, br, portSpec{mtu: mtu, many: true})
}

// closeFast closes the TAP of a segment, if it has one.
func (n *Net) closeFast(vni uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a := n.segments[vni]; a.fast != nil {
		_ = a.fast.f.Close() // only read and written, there is nothing to lose
		a.fast = nil
		n.segments[vni] = a
	}
}
