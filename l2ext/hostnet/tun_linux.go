package hostnet

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext/frag"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

const (
	// tunMTU lets every frame that can be carried through in one packet: the
	// kernel would cap the MTU of a VXLAN device to what fits into its lower
	// device.
	tunMTU = frag.MaxFrame + 128

	// tunQueue is how many packets wait for the gateway: 30 ms at the 33 000 a
	// second that the link can carry. The default of 500 loses bursts.
	tunQueue = 1000
)

// needTun makes the carrier's device if there is none yet.
func (n *Net) needTun() (index int, err error) {
	n.mu.RLock()
	tun, index, closed := n.tun, n.tunIndex, n.closed
	n.mu.RUnlock()
	if closed {
		return 0, os.ErrClosed
	}
	if tun != nil {
		return index, nil
	}
	err = n.within(func() (err error) {
		tun, err = openTun(n.cfg.Tun)
		return err
	})
	if err != nil {
		return 0, err
	}
	if index, err = n.setUpTun(); err != nil {
		return 0, errors.Join(err, tun.Close())
	}
	n.mu.Lock()
	n.tun, n.tunIndex = tun, index
	n.mu.Unlock()
	close(n.open)
	return index, nil
}

func openTun(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("making TUN %s: another gateway has it: %w", name, err)
		}
		return nil, fmt.Errorf("making TUN %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

// setUpTun gives the device its mark and its address.
func (n *Net) setUpTun() (index int, err error) {
	l, err := n.nl.LinkByName(n.cfg.Tun)
	if err != nil {
		return 0, fmt.Errorf("finding TUN %s: %w", n.cfg.Tun, err)
	}
	fail := func(what string, err error) (int, error) {
		return 0, fmt.Errorf("setting up TUN %s: %s: %w", n.cfg.Tun, what, err)
	}
	if err := n.nl.LinkSetAlias(l, carrierMark); err != nil {
		return fail("alias", err)
	}
	if err := n.nl.LinkSetMTU(l, tunMTU); err != nil {
		return fail("MTU", err)
	}
	if err := n.nl.LinkSetTxQLen(l, tunQueue); err != nil {
		return fail("queue", err)
	}
	// No address of the kernel's own making. A kernel whose default is to
	// have no IPv6 on new devices says so here; on this one we need it.
	if err := n.nl.LinkSetIP6AddrGenMode(l, nl.IN6_ADDR_GEN_MODE_NONE); err != nil {
		n.log.Debug("address generation stays on", "device", n.cfg.Tun, "err", err)
	}
	if err := n.enableIPv6(n.cfg.Tun); err != nil {
		return fail("IPv6", err)
	}
	if err := n.nl.LinkSetUp(l); err != nil {
		return fail("up", err)
	}
	self := vxlan.Self.Addr().As16()
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: self[:], Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD, Scope: unix.RT_SCOPE_LINK}
	if err := n.nl.AddrReplace(l, addr); err != nil {
		return fail("address", err)
	}
	if err := n.waitLocal(l.Attrs().Index); err != nil {
		return fail("address", err)
	}
	return l.Attrs().Index, nil
}

const (
	// localTime bounds how long the kernel may take to make an address its own,
	// which others who configure networks can delay; localPoll is how often it
	// is asked.
	localTime = 5 * time.Second
	localPoll = 2 * time.Millisecond
)

// waitLocal waits until the kernel takes packets for the device's address. It
// does so from a work queue, even without duplicate address detection
// (addrconf_dad_work in net/ipv6/addrconf.c); before, it drops them.
func (n *Net) waitLocal(device int) error {
	filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, LinkIndex: device}
	for until := time.Now().Add(localTime); ; time.Sleep(localPoll) {
		routes, err := n.nl.RouteListFiltered(netlink.FAMILY_V6, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
		if err != nil {
			return err
		}
		self := vxlan.Self.Addr()
		for _, r := range routes {
			if r.Dst != nil && r.Dst.IP.Equal(self.AsSlice()) {
				return nil
			}
		}
		if time.Now().After(until) {
			return fmt.Errorf("the kernel has not taken %v for its own in %v", self, localTime)
		}
	}
}

// enableIPv6 undoes, for a device of ours only, a default of no IPv6.
func (n *Net) enableIPv6(device string) error {
	path := filepath.Join("/proc/sys/net/ipv6/conf", device, "disable_ipv6")
	return n.within(func() error {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("this kernel has no IPv6, which the carrier needs: %w", err)
		}
		if len(b) > 0 && b[0] == '0' {
			return nil
		}
		return os.WriteFile(path, []byte("0"), 0)
	})
}

// ReadPacket reads one packet that the kernel sends to the carrier. It waits
// for the carrier to be made, too.
func (n *Net) ReadPacket(b []byte) (int, error) {
	<-n.open
	n.mu.RLock()
	tun := n.tun
	n.mu.RUnlock()
	if tun == nil {
		return 0, os.ErrClosed
	}
	return tun.Read(b)
}

// WritePacket gives a packet to the kernel.
func (n *Net) WritePacket(b []byte) error {
	n.mu.RLock()
	tun := n.tun
	n.mu.RUnlock()
	if tun == nil {
		return os.ErrClosed
	}
	_, err := tun.Write(b)
	return err
}
