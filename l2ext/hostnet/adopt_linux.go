package hostnet

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/probe"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// A gateway that comes up after another has died finds a kernel that carries the segments in
// mode direct, and knows itself nothing of their hosts. What is there for sites that have yet
// to tell all goes on: entries, copies and neighbours of the bridge stay, and the tables of
// nftables, which are made anew, let in frames from the machines of these sites. Which these are
// the kernel knows as well, by the entries of their gateways. What is there for other machines goes:
// these are of sites that have left the segment while nobody looked. Of sites that have told all, entries of hosts
// stay a while longer where they lead to where these sites are.

// left is what has stayed of a segment.
type left struct {
	machines map[l2ext.MAC]netip.Addr // by the gateway's MAC, those of the sites that have yet to tell all
	addrs    map[netip.Addr]bool      // the same, and those of strangers
	settling map[netip.Addr]bool      // machines of which only hosts that nobody names are left
	away     map[l2ext.MAC]bool       // hosts with entries that send there
	gone     map[l2ext.MAC]bool       // hosts whose entries have been removed
}

// adopts tells whether something of the device over the underlay is to stay as it is. One of another
// segment is not.
func adopts(w l2ext.Wish, direct netlink.Link) bool {
	return w.Direct.Adopted.Any() && direct.Attrs().Alias == segmentMark+w.Name
}

// leftOf finds the machines for which what is there stays. known are those that an Apply before has
// found: a site that says that it is at another one is still at both, for its hosts.
func (n *Net) leftOf(device int, u *l2ext.Underlay, known map[l2ext.MAC]netip.Addr) (l left, err error) {
	list, err := n.nl.NeighList(device, unix.AF_BRIDGE)
	if err != nil {
		return l, fmt.Errorf("listing what there is: %w", err)
	}
	there := make(map[l2ext.MAC]netip.Addr)
	l = left{machines: make(map[l2ext.MAC]netip.Addr), addrs: make(map[netip.Addr]bool), settling: make(map[netip.Addr]bool), away: make(map[l2ext.MAC]bool), gone: make(map[l2ext.MAC]bool)}
	for _, e := range list {
		if a, ok := netip.AddrFromSlice(e.IP); ok && e.LinkIndex == device && e.MasterIndex == 0 && len(e.HardwareAddr) == 6 {
			there[l2ext.MAC(e.HardwareAddr)] = a.Unmap()
			l.addrs[a.Unmap()] = u.Adopted.Strangers
		}
	}
	for _, s := range u.Sites { // they are no strangers
		l.addrs[s.Addr] = false
	}
	for _, s := range u.Adopted.Sites {
		if at, ok := known[s.MAC]; ok {
			l.machines[s.MAC] = at
		} else if at, ok := there[s.MAC]; ok {
			l.machines[s.MAC] = at
		}
	}
	for _, at := range l.machines {
		l.addrs[at] = true
	}
	for _, s := range u.Adopted.Settling {
		l.settling[s.Addr] = true
	}
	return l, nil
}

// keeps tells whether what leads to a machine stays.
func (l left) keeps(at netip.Addr) bool { return l.addrs[at] }

// keepsHost tells whether the entry of a MAC that leads to one does.
func (l left) keepsHost(mac l2ext.MAC, at netip.Addr) bool {
	return l.keeps(at) || l.settling[at] && !probe.IsGateway(mac)
}

// sitesOf are the machines to which the kernel is to send: those that sites have told, and
// until then those that were theirs before.
func sitesOf(u *l2ext.Underlay, l left) map[vxlan.Endpoint]netip.Addr {
	sites := make(map[vxlan.Endpoint]netip.Addr, len(u.Sites))
	for _, s := range u.Adopted.Sites {
		if at, ok := l.machines[s.MAC]; ok {
			sites[s.Site] = at
		}
	}
	for _, s := range u.Sites {
		sites[s.Site] = s.Addr
	}
	return sites
}

// sources are how many machines may send frames of a segment.
func sources(u *l2ext.Underlay, l left) int {
	all := make(map[netip.Addr]bool)
	for at, keeps := range l.addrs {
		if keeps {
			all[at] = true
		}
	}
	for _, s := range u.Sites {
		all[s.Addr] = true
	}
	return len(all)
}
