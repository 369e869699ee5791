package l2exttest

import (
	"cmp"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// snoop is what a frame that came in by a LAN port tells of its host, if it is of the
// segment.
func (o *overlay) snoop(port string, frame []byte) (fresh []l2ext.Sighting) {
	if !o.alone() {
		if vid, ok := ether.VID(frame); !ok || vid != o.wish.VLAN {
			return nil
		}
		if o.wish.VLAN != 0 {
			frame = ether.Untag(slices.Clone(frame))
		}
	}
	head, err := ether.Parse(frame)
	if err != nil {
		return nil
	}
	s := l2ext.Sighting{VNI: o.wish.VNI, MAC: head.Src}
	if c, ok := ether.Snoop(head, frame); ok {
		told := s
		told.Port, told.IP, told.Announced, told.Router = port, c.IP, c.Announced, c.Router
		fresh = append(fresh, told)
	}
	if _, ok := ether.MembershipOf(head, frame); ok && o.wish.Direct != nil {
		told := s
		told.Report = slices.Clone(frame)
		fresh = append(fresh, told)
	}
	if mac, ip, ok := ether.Lease(head, frame); ok {
		fresh = append(fresh, l2ext.Sighting{VNI: o.wish.VNI, MAC: mac, IP: ip, Leased: true})
	}
	return fresh
}

// alone tells whether all that its bridge has is the segment's.
func (o *overlay) alone() bool { return o.wish.VLAN == 0 && !o.wish.Shared }

// overlaysOf are the segments of a bridge, by VNI. It needs h.mu.
func (h *Host) overlaysOf(bridge string) (all []*overlay) {
	for _, o := range h.segments {
		if o.wish.Bridge == bridge {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b *overlay) int { return cmp.Compare(a.wish.VNI, b.wish.VNI) })
	return all
}

// A way is a port by which a frame comes into a bridge.
type way struct {
	port    string
	overlay bool // it is one of l2ext's, on which the bridge learns nothing
}

// forward is what a bridge does with a frame: it knows nothing of VLANs, and nothing
// goes from one overlay to another. It needs h.mu.
func (h *Host) forward(name string, from way, head ether.Header, frame []byte) {
	b := h.bridges[name]
	overlays := h.overlaysOf(name)
	entryOf := func(mac l2ext.MAC) int { // the bridge has one for a MAC
		return slices.IndexFunc(overlays, func(o *overlay) bool { return o.entries[mac] != 0 })
	}
	if len(overlays) > 0 && !from.overlay && entryOf(head.Src) < 0 {
		b.learned[head.Src], b.heard[head.Src] = from.port, time.Now()
	}
	known := entryOf(head.Dst)
	if to, ok := b.learned[head.Dst]; ok && known < 0 {
		if from.overlay || to != from.port {
			show(b.ports[to], frame)
		}
		return
	}
	for i, o := range overlays {
		site := o.entries[head.Dst]
		unknown := site == 0 && !head.Dst.Group()
		switch {
		case known >= 0 && i != known:
		case o.wish.Direct != nil:
			h.leave(o, site, head, frame)
		case !from.overlay && !(unknown && o.wish.Policy.Unknown != l2ext.UnknownLimited):
			h.give(o, cmp.Or(site, vxlan.Everyone), frame)
		}
	}
	if known >= 0 {
		return
	}
	for port, c := range b.ports {
		if (from.overlay || port != from.port) && !(head.Dst.Group() && b.muted[port]) {
			show(c, frame)
		}
	}
}

// give gives a frame to the gateway.
func (h *Host) give(o *overlay, site vxlan.Endpoint, frame []byte) {
	if o.port != nil {
		o.port.offer(frame)
		return
	}
	offer(h.carrier, vxlan.Packet{VNI: o.wish.VNI, From: vxlan.Self, To: site, Frame: frame}.Append(nil))
}
