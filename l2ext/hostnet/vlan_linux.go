package hostnet

import (
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"

	"github.com/longhaul-project/longhaul/l2ext"
)

// A segment that is one VLAN of its bridge (l2ext.Segment.VLAN) has frames with a tag at
// its port, and the gateway is who reads it. Here is what the bridge has to do with it:
//
//	a plain bridge      takes tags for a part of the frame. It floods into our port what is
//	                    of any VLAN (the kernel drops that again, see storm_linux.go), and
//	                    does not tell of which VLAN a host is that it has learned
//	one that filters    makes our port a member of the VLAN, with tags, and of no other.
//	VLANs               Ports of guests have the VLAN as theirs, and frames without tags
//
// Our ports on one bridge are isolated from each other: what one site sends into one VLAN
// is nothing that another site has to get.

// bridgeVLANs is the part of netlink that is about bridges that filter VLANs. Not all
// kernels have it, such as those on which our tests run.
type bridgeVLANs interface {
	// filters tells whether a bridge filters VLANs.
	filters(br netlink.Link) bool
	// of lists the VLANs of all ports of the machine, by index. What it lists is the
	// caller's. A machine may have many, and each is a message: see listVLANs.
	of() (map[int][]nl.BridgeVlanInfo, error)
	// add makes a port a member of a VLAN, with tags; remove ends that.
	add(port netlink.Link, vid uint16) error
	remove(port netlink.Link, vid uint16) error
}

// kernelVLANs are those of this machine.
type kernelVLANs struct{ n *Net }

func (k kernelVLANs) filters(br netlink.Link) bool {
	b, ok := br.(*netlink.Bridge)
	return ok && b.VlanFiltering != nil && *b.VlanFiltering
}

func (k kernelVLANs) of() (map[int][]nl.BridgeVlanInfo, error) {
	var list map[int32][]*nl.BridgeVlanInfo
	err := k.n.ask(func(h *netlink.Handle) (err error) {
		list, err = h.BridgeVlanList()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the VLANs of ports: %w", err)
	}
	all := make(map[int][]nl.BridgeVlanInfo, len(list))
	for port, vlans := range list {
		for _, v := range vlans {
			all[int(port)] = append(all[int(port)], *v)
		}
	}
	return all, nil
}

func (k kernelVLANs) add(port netlink.Link, vid uint16) error {
	return k.n.nl.BridgeVlanAdd(port, vid, false, false, false, false)
}

func (k kernelVLANs) remove(port netlink.Link, vid uint16) error {
	return k.n.nl.BridgeVlanDel(port, vid, false, false, false, false)
}

// movesVLAN tells whether a port of ours is in its bridge for another VLAN than is wished,
// or may be: an attempt to attach the segment that came to nothing has left it there.
func (n *Net) movesVLAN(w l2ext.Wish, port int) bool {
	a, ok := n.attachment(w.VNI)
	if !ok || a.port != port && a.direct != port {
		return w.Direct == nil // those over the underlay outlive us, and have no VLAN
	}
	return a.lan.vlan != w.VLAN
}

// setVLAN has a bridge that filters VLANs give our port the segment's, and no other; the
// one of the bridge's default is among those that go. It ends with the port.
func (n *Net) setVLAN(w l2ext.Wish, port, br netlink.Link) error {
	if w.VLAN == 0 || !n.vlans.filters(br) {
		return nil
	}
	all, err := n.wishedVLANs()
	if err != nil {
		return err
	}
	have := false
	for _, v := range all[port.Attrs().Index] {
		if v.Vid == w.VLAN {
			have = !v.PortVID() && !v.EngressUntag()
			continue
		}
		if err := n.vlans.remove(port, v.Vid); err != nil {
			return fmt.Errorf("leaving VLAN %d of %s: %w", v.Vid, br.Attrs().Name, err)
		}
	}
	if have {
		return nil
	}
	if err := n.vlans.add(port, w.VLAN); err != nil {
		return fmt.Errorf("joining VLAN %d of %s: %w", w.VLAN, br.Attrs().Name, err)
	}
	return nil
}

// A lan is which part of a bridge a segment is.
type lan struct {
	vlan    uint16 // l2ext.Segment.VLAN
	shared  bool   // other segments are on the bridge
	filters bool   // the bridge filters VLANs
	pvid    uint16 // of a bridge that does: the VLAN in which what has no tag is at our port; 0: in none
}

// lanOf tells what a segment is of its bridge, for its port.
func (n *Net) lanOf(w l2ext.Wish, port, br netlink.Link) (lan, error) {
	l := lan{vlan: w.VLAN, shared: w.Shared}
	if l.alone() || !n.vlans.filters(br) {
		return l, nil
	}
	l.filters = true
	if w.VLAN != 0 { // it is not what has no tag
		return l, nil
	}
	all, err := n.wishedVLANs()
	if err != nil {
		return l, err
	}
	l.pvid = pvidIn(all[port.Attrs().Index])
	return l, nil
}

// alone tells whether all that the bridge has is the segment's, of whatever VLAN.
func (l lan) alone() bool { return l.vlan == 0 && !l.shared }

// inside is the segment's VLAN as a bridge that filters has it; 0 in others.
func (l lan) inside() uint16 {
	switch {
	case !l.filters:
		return 0
	case l.vlan == 0:
		return l.pvid
	}
	return l.vlan
}

// tags are those that the segment's frames have at a LAN port whose VLANs are these; 0
// is to have none. A port that is not in the segment's VLAN has no frames of it, whatever
// their tags say: a packet socket hears them before the bridge throws them away.
func (l lan) tags(vlans []nl.BridgeVlanInfo) []uint16 {
	if !l.filters {
		return []uint16{l.vlan}
	}
	if !l.in(vlans) {
		return nil
	}
	tags := []uint16{l.inside()}
	if pvid := pvidIn(vlans); pvid != 0 && pvid == l.inside() {
		tags = append(tags, 0)
	}
	return tags
}

// in tells whether a LAN port is in the segment, which is one of a bridge that filters VLANs.
func (l lan) in(vlans []nl.BridgeVlanInfo) bool {
	return l.inside() != 0 && slices.ContainsFunc(vlans, func(v nl.BridgeVlanInfo) bool { return v.Vid == l.inside() })
}

// pvidIn is the VLAN of what comes into a port without a tag; 0: of none.
func pvidIn(vlans []nl.BridgeVlanInfo) uint16 {
	for _, v := range vlans {
		if v.PortVID() {
			return v.Vid
		}
	}
	return 0
}

// A member is a segment of a bridge.
type member struct {
	vni uint32
	at  attachment
}

// membersOf are the segments of a bridge.
func (n *Net) membersOf(bridge int) (all []member) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for vni, a := range n.segments {
		if a.bridge == bridge && bridge != 0 {
			all = append(all, member{vni, a})
		}
	}
	return all
}

// byVLAN tells whether members of a bridge go by the VLANs of its ports.
func byVLAN(members []member) bool {
	return slices.ContainsFunc(members, func(m member) bool { return m.at.lan.filters })
}

// PortSegments tells on which segments a port may be.
func (n *Net) PortSegments(port string) (vnis []uint32) {
	if port == "" {
		return nil
	}
	var l netlink.Link
	err := n.ask(func(h *netlink.Handle) (err error) {
		l, err = h.LinkByName(port)
		return err
	})
	if err != nil {
		return nil
	}
	members := n.membersOf(l.Attrs().MasterIndex)
	var vlans []nl.BridgeVlanInfo
	if byVLAN(members) { // a VM's tap has come a moment ago, and its VLAN may have after it
		all, err := n.listVLANs(time.Now())
		if err != nil {
			n.log.Debug("VLANs of a port are not known for sure", "err", err)
		}
		vlans = all[l.Attrs().Index]
	}
	for _, m := range members {
		if !m.at.lan.filters || m.at.lan.in(vlans) {
			vnis = append(vnis, m.vni)
		}
	}
	slices.Sort(vnis)
	return vnis
}
