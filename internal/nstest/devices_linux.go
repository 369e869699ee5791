package nstest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Veth joins two namespaces, or two places of one, by a virtual cable. Both
// ends are up.
func Veth(a *NS, aName string, b *NS, bName string) error {
	la := netlink.NewLinkAttrs()
	la.Name = aName
	err := a.nl.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: bName, PeerNamespace: netlink.NsFd(int(b.fd))})
	if err != nil {
		return fmt.Errorf("making veth %s-%s: %w", aName, bName, err)
	}
	if err := a.Up(aName); err != nil {
		return err
	}
	return b.Up(bName)
}

// Bridge makes a bridge that forwards at once, and plugs the named ports.
func (n *NS) Bridge(name string, ports ...string) error {
	la := netlink.NewLinkAttrs()
	la.Name = name
	off := false
	if err := n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: la, MulticastSnooping: &off}); err != nil {
		return fmt.Errorf("making bridge %s: %w", name, err)
	}
	for _, p := range ports {
		if err := n.Plug(p, name); err != nil {
			return err
		}
	}
	return n.Up(name)
}

// VXLAN makes a VXLAN device of the kernel with one remote, down: it learns, and
// its port is that of RFC 7348.
func (n *NS) VXLAN(name string, vni int, local, remote string) error {
	la := netlink.NewLinkAttrs()
	la.Name, la.MTU = name, 1500
	err := n.nl.LinkAdd(&netlink.Vxlan{
		LinkAttrs: la, VxlanId: vni, SrcAddr: net.ParseIP(local), Group: net.ParseIP(remote), Port: 4789, Learning: true, UDPCSum: true,
	})
	return wrap("making VXLAN", name, err)
}

// Tap makes a TAP device and sets it up. It lives as long as the file, which
// reads and writes whole Ethernet frames without any header, and which honours
// deadlines.
func (n *NS) Tap(name string) (*os.File, error) {
	var f *os.File
	err := n.Do(func() (err error) {
		f, err = openTap(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := n.Up(name); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("making TAP %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

// Plug makes dev a port of the bridge; an empty bridge unplugs it.
func (n *NS) Plug(dev, bridge string) error {
	l, err := n.link(dev)
	if err != nil {
		return err
	}
	if bridge == "" {
		return wrap("unplugging", dev, n.nl.LinkSetNoMaster(l))
	}
	br, err := n.link(bridge)
	if err != nil {
		return err
	}
	return wrap("plugging", dev, n.nl.LinkSetMaster(l, br))
}

// Up sets a device up.
func (n *NS) Up(dev string) error {
	return n.change("setting up", dev, n.nl.LinkSetUp)
}

// Down sets a device down.
func (n *NS) Down(dev string) error {
	return n.change("setting down", dev, n.nl.LinkSetDown)
}

// Del removes a device.
func (n *NS) Del(dev string) error {
	return n.change("deleting", dev, n.nl.LinkDel)
}

// SetMTU sets the MTU of a device, in bytes.
func (n *NS) SetMTU(dev string, mtu int) error {
	return n.change("setting the MTU of", dev, func(l netlink.Link) error { return n.nl.LinkSetMTU(l, mtu) })
}

// SetMAC sets the MAC of a device.
func (n *NS) SetMAC(dev, mac string) error {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return fmt.Errorf("setting the MAC of %s: %w", dev, err)
	}
	return n.change("setting the MAC of", dev, func(l netlink.Link) error { return n.nl.LinkSetHardwareAddr(l, hw) })
}

// MAC tells the MAC of a device.
func (n *NS) MAC(dev string) (string, error) {
	l, err := n.link(dev)
	if err != nil {
		return "", err
	}
	return l.Attrs().HardwareAddr.String(), nil
}

// Received tells how many packets a device has received.
func (n *NS) Received(dev string) (uint64, error) {
	l, err := n.link(dev)
	if err != nil {
		return 0, err
	}
	if s := l.Attrs().Statistics; s != nil {
		return s.RxPackets, nil
	}
	return 0, fmt.Errorf("device %s: the kernel counts nothing", dev)
}

// Move moves a device into another namespace, where it is down.
func (n *NS) Move(dev string, to *NS) error {
	return n.change("moving", dev, func(l netlink.Link) error { return n.nl.LinkSetNsFd(l, int(to.fd)) })
}

// Addr gives a device an address with its prefix length, such as
// "10.0.0.1/24" or "fd00::1/64". It is usable at once: no duplicate address
// detection.
func (n *NS) Addr(dev, cidr string) error {
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return fmt.Errorf("address %q: %w", cidr, err)
	}
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	return n.change("adding "+cidr+" to", dev, func(l netlink.Link) error { return n.nl.AddrReplace(l, a) })
}

// Route sends what is for dst ("default" or a prefix) via a gateway.
func (n *NS) Route(dst, via string) error {
	gw := net.ParseIP(via)
	if gw == nil {
		return fmt.Errorf("route via %q: %w", via, unix.EINVAL)
	}
	r := &netlink.Route{Gw: gw}
	if dst != "default" {
		_, p, err := net.ParseCIDR(dst)
		if err != nil {
			return fmt.Errorf("route to %q: %w", dst, err)
		}
		r.Dst = p
	}
	return wrap("adding the route to", dst, n.nl.RouteReplace(r))
}

// Neighbour binds an IP to a MAC on a device for good, so that nobody asks.
func (n *NS) Neighbour(dev, ip, mac string) error {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return fmt.Errorf("neighbour %s: %w", ip, err)
	}
	return n.change("adding a neighbour to", dev, func(l netlink.Link) error {
		return n.nl.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(ip), HardwareAddr: hw})
	})
}

// Sysctl sets a value below /proc/sys/net of the namespace, such as
// ("ipv4.ip_forward", "1").
func (n *NS) Sysctl(key, value string) error {
	path := filepath.Join("/proc/sys/net", filepath.Join(strings.Split(key, ".")...))
	return n.Do(func() error { return wrap("setting sysctl", key, os.WriteFile(path, []byte(value), 0)) })
}

func (n *NS) change(what, dev string, f func(netlink.Link) error) error {
	l, err := n.link(dev)
	if err != nil {
		return err
	}
	return wrap(what, dev, f(l))
}

func (n *NS) link(dev string) (netlink.Link, error) {
	l, err := n.nl.LinkByName(dev)
	if err != nil {
		return nil, fmt.Errorf("finding device %s in namespace %q: %w", dev, n.name, err)
	}
	return l, nil
}

func wrap(what, dev string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, dev, err)
	}
	return nil
}
