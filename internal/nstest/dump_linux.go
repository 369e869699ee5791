package nstest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Dump describes the namespace's devices, their bridge settings and addresses,
// its routes, and the entries of its forwarding databases that do not age, one
// thing on a line and sorted. Two dumps are equal when nothing has been
// changed in between. IPv6 link-local addresses and routes are left out: the
// kernel adds them by itself, some time after a device comes up.
func (n *NS) Dump() (string, error) {
	links, err := n.nl.LinkList()
	if err != nil {
		return "", fmt.Errorf("listing devices: %w", err)
	}
	names := map[int]string{0: "none"}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var lines []string
	for _, l := range links {
		lines = append(lines, n.dumpLink(l, names)...)
	}
	fdb, err := n.fdb(names)
	if err != nil {
		return "", err
	}
	routes, err := n.routes(names)
	if err != nil {
		return "", err
	}
	lines = append(append(lines, fdb...), routes...)
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n", nil
}

func (n *NS) dumpLink(l netlink.Link, names map[int]string) []string {
	a := l.Attrs()
	lines := []string{fmt.Sprintf("link %s %s mtu %d mac %s master %s up %t alias %q promisc %d",
		a.Name, l.Type(), a.MTU, a.HardwareAddr, names[a.MasterIndex], a.RawFlags&unix.IFF_UP != 0, a.Alias, a.Promisc)}
	if p, err := n.nl.LinkGetProtinfo(l); err == nil && a.MasterIndex != 0 {
		lines = append(lines, fmt.Sprintf("port %s %s", a.Name, p.String()))
	}
	addrs, err := n.nl.AddrList(l, unix.AF_UNSPEC)
	if err == nil {
		for _, ad := range addrs {
			if ad.IP.To4() == nil && ad.IP.IsLinkLocalUnicast() {
				continue
			}
			lines = append(lines, fmt.Sprintf("addr %s %s", a.Name, ad.IPNet))
		}
	}
	return lines
}

// FDB lists the entries of the forwarding databases that do not age, one on a
// line and sorted.
func (n *NS) FDB() ([]string, error) {
	links, err := n.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing devices: %w", err)
	}
	names := make(map[int]string)
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	lines, err := n.fdb(names)
	slices.Sort(lines)
	return lines, err
}

func (n *NS) fdb(names map[int]string) ([]string, error) {
	entries, err := n.nl.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return nil, fmt.Errorf("listing forwarding databases: %w", err)
	}
	var lines []string
	for _, e := range entries {
		if e.State&(unix.NUD_PERMANENT|unix.NUD_NOARP) == 0 || e.HardwareAddr[0]&1 != 0 {
			continue // learned by the bridge, or a subscription to a group
		}
		lines = append(lines, fmt.Sprintf("fdb %s %s dst %s master %s flags %#x state %#x",
			names[e.LinkIndex], e.HardwareAddr, e.IP, names[e.MasterIndex], e.Flags, e.State))
	}
	return lines, nil
}

func (n *NS) routes(names map[int]string) ([]string, error) {
	var lines []string
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := n.nl.RouteList(nil, family)
		if err != nil {
			return nil, fmt.Errorf("listing routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst != nil && r.Dst.IP.To4() == nil && r.Dst.IP.IsLinkLocalUnicast() {
				continue
			}
			lines = append(lines, fmt.Sprintf("route %s via %s dev %s", r.Dst, r.Gw, names[r.LinkIndex]))
		}
	}
	return lines, nil
}
