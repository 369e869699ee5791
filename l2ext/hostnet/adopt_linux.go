package hostnet

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// A gateway that comes up after another has died finds a kernel that carries the segments in
// mode direct, and knows itself nothing of their hosts and sites. Until it does, what is there goes on:
// entries, copies and neighbours of the bridge stay, and the tables of nftables, which are made anew, let in
// frames from the machines to which the kernel sends some.

// left is what has stayed of a segment.
type left struct {
	away     map[l2ext.MAC]bool  // hosts with entries that send to other sites
	machines map[netip.Addr]bool // of other sites
}

// adopts tells whether the device over the underlay is to go on as it is. One of another
// segment is not.
func adopts(w l2ext.Wish, direct netlink.Link) bool {
	return w.Direct.Adopt && direct.Attrs().Alias == segmentMark+w.Name
}

// leftOf finds what there is at a device; have is all of its entries of hosts.
func (n *Net) leftOf(device int, have map[l2ext.MAC]directEntry) (l left, err error) {
	l = left{away: make(map[l2ext.MAC]bool), machines: make(map[netip.Addr]bool)}
	for mac, h := range have {
		if h.port == device && h.to.IsValid() {
			l.away[mac] = true
			l.machines[h.to] = true
		}
	}
	list, err := n.nl.NeighList(device, unix.AF_BRIDGE)
	if err != nil {
		return l, fmt.Errorf("listing entries of groups: %w", err)
	}
	for _, e := range list {
		if a, ok := netip.AddrFromSlice(e.IP); ok && e.LinkIndex == device && e.MasterIndex == 0 {
			l.machines[a.Unmap()] = true
		}
	}
	return l, nil
}

// waits tells that an entry is of a site that has yet to say where its machine is, and the one
// of before is to do until then.
func (a attachment) waits(e l2ext.Entry) bool {
	return a.adopts && e.Site != 0 && e.Site != vxlan.Self && !a.sites[e.Site].IsValid()
}
