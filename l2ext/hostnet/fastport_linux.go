package hostnet

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/bell"
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
// frames have a virtio header. Its reader waits by a bell.
type fastPort struct {
	udp  bool // the kernel knows UDP segments
	bell *bell.Bell

	mu  sync.RWMutex // held, shared, by who uses what follows; close takes it away
	tap int          // -1: it is closed
}

var _ l2ext.Port = (*fastPort)(nil)

// openFastPort makes the TAP. It goes with its port.
func openFastPort(name string) (*fastPort, error) {
	tap, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	p := &fastPort{tap: tap}
	if p.udp, err = setUpTap(tap, name); err == nil {
		p.bell, err = bell.New(tap, unix.EPOLLIN)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making TAP %s: %w", name, err), unix.Close(tap))
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
func (p *fastPort) OnlyTCP() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.tap < 0 {
		return os.ErrClosed
	}
	return unix.IoctlSetInt(p.tap, unix.TUNSETOFFLOAD, offloadTCP)
}

// Read reads one message, and waits for it.
func (p *fastPort) Read(b []byte) (n int, err error) {
	for n == 0 && err == nil {
		if err = p.bell.Wait(); err == nil {
			n, err = p.Next(b)
		}
	}
	return n, err
}

// Next reads one message if there is one.
func (p *fastPort) Next(b []byte) (int, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.tap < 0 {
		return 0, os.ErrClosed
	}
	n, err := unix.Read(p.tap, b)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return 0, nil
	}
	return 0, fmt.Errorf("reading from the overlay port: %w", err)
}

// Write gives a message to the bridge.
func (p *fastPort) Write(b []byte) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.tap < 0 {
		return os.ErrClosed
	}
	for {
		_, err := unix.Write(p.tap, b)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// close takes the TAP away, once nobody uses it. It may be repeated.
func (p *fastPort) close() {
	_ = p.bell.Close() // ends a Read
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tap >= 0 {
		_ = unix.Close(p.tap) // only read and written, there is nothing to lose
		p.tap = -1
	}
}
