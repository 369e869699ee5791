package hostnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// Point adds or removes entries of one segment.
func (n *Net) Point(vni uint32, entries []l2ext.Entry) error {
	n.apply.Lock()
	defer n.apply.Unlock()
	n.mu.RLock()
	a, ok := n.segments[vni]
	n.mu.RUnlock()
	if !ok {
		return fmt.Errorf("programming entries of VNI %d: %w", vni, unix.ENODEV)
	}
	if a.direct == 0 {
		return n.setAll(a, entries)
	}
	return errors.Join(n.setAll(a, entries), n.guardEntries(vni, entries))
}

// setAll adds entries of a port, and removes those whose site is 0, all in one
// go: a site's evacuation may flip thousands.
func (n *Net) setAll(a attachment, entries []l2ext.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	reqs := make([]*nl.NetlinkRequest, 0, 2*len(entries))
	of := make([]l2ext.Entry, 0, 2*len(entries))
	port := a.port
	for _, e := range entries {
		switch {
		case a.fast != nil: // the gateway knows the sites
			reqs, of = append(reqs, bridgeEntry(port, e)), append(of, e)
		case a.direct != 0:
			rs := a.directRequests(e)
			reqs, of = append(reqs, rs...), append(of, slices.Repeat([]l2ext.Entry{e}, len(rs))...)
		case e.Site == 0: // the bridge's first: until it learns better, it floods frames for the MAC to the LAN
			reqs, of = append(reqs, bridgeEntry(port, e), n.selfEntry(port, e)), append(of, e, e)
		case e.Moves:
			reqs, of = append(reqs, n.selfEntry(port, e)), append(of, e)
		default:
			reqs, of = append(reqs, n.selfEntry(port, e), bridgeEntry(port, e)), append(of, e, e)
		}
	}
	var errs []error
	for i, err := range n.raw.executeAll(reqs) {
		if e := of[i]; err != nil && !(gone(reqs[i]) && notFound(err)) {
			errs = append(errs, fmt.Errorf("entry of %v, endpoint %d: %w", e.MAC, e.Site, err))
		}
	}
	return errors.Join(errs[:min(len(errs), maxErrors)]...)
}

// maxErrors is how many errors of a batch are told: they are all the same.
const maxErrors = 4

// setEntries makes the wished entries of a port, and no others.
func (n *Net) setEntries(a attachment, wished []l2ext.Entry) error {
	have, err := n.entries(a.port, a.lan.inside())
	if err != nil {
		return err
	}
	var change []l2ext.Entry
	for _, e := range wished {
		h := have[e.MAC]
		delete(have, e.MAC)
		if !h.bridge || a.fast == nil && h.site != e.Site {
			change = append(change, e)
		}
	}
	for mac := range have {
		change = append(change, l2ext.Entry{MAC: mac})
	}
	return n.setAll(a, change)
}

// entry is what the kernel has for a MAC behind a port.
type entry struct {
	bridge bool           // static and sticky in the bridge
	site   vxlan.Endpoint // in the VXLAN device; 0 for none
}

// entries lists the hosts behind a port. On a bridge that filters VLANs an entry is one
// for each of the port's, and vlan says which one counts; 0 elsewhere.
func (n *Net) entries(port int, vlan uint16) (map[l2ext.MAC]entry, error) {
	list, err := n.nl.NeighList(port, unix.AF_BRIDGE)
	if err != nil {
		return nil, fmt.Errorf("listing entries: %w", err)
	}
	have := make(map[l2ext.MAC]entry)
	for _, e := range list {
		if len(e.HardwareAddr) != 6 || e.LinkIndex != port {
			continue
		}
		mac := l2ext.MAC(e.HardwareAddr)
		if !mac.Host() || (e.MasterIndex != 0 && e.State&netlink.NUD_PERMANENT != 0) {
			continue // the default entry, a group, or the device's own address
		}
		h := have[mac]
		if e.MasterIndex != 0 {
			if vlan == 0 || e.Vlan == int(vlan) {
				h.bridge = e.State&netlink.NUD_NOARP != 0 && e.Flags&netlink.NTF_STICKY != 0
			}
		} else if a, ok := netip.AddrFromSlice(e.IP); ok {
			h.site, _ = vxlan.FromAddr(a)
		}
		have[mac] = h
	}
	return have, nil
}

// bridgeEntry sends frames for the MAC into the port, or no longer if there is no
// site. Static and sticky: a frame from the LAN with this source cannot move it.
func bridgeEntry(port int, e l2ext.Entry) *nl.NetlinkRequest {
	return request(kindOf(e), &netlink.Ndmsg{
		Family: unix.AF_BRIDGE, Index: uint32(port), State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER | netlink.NTF_STICKY,
	}, nl.NewRtAttr(netlink.NDA_LLADDR, e.MAC[:]))
}

// selfEntry sends them on to the site. It names the endpoint with its device, as
// link-local addresses must be; the library's call cannot.
func (n *Net) selfEntry(port int, e l2ext.Entry) *nl.NetlinkRequest {
	req := request(kindOf(e), &netlink.Ndmsg{
		Family: unix.AF_BRIDGE, Index: uint32(port), State: netlink.NUD_NOARP | netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
	}, nl.NewRtAttr(netlink.NDA_LLADDR, e.MAC[:]))
	if e.Site != 0 {
		ip := e.Site.Addr().As16()
		req.AddData(nl.NewRtAttr(netlink.NDA_DST, ip[:]))
		n.mu.RLock()
		defer n.mu.RUnlock()
		req.AddData(nl.NewRtAttr(netlink.NDA_IFINDEX, nl.Uint32Attr(uint32(n.tunIndex))))
	}
	return req
}

// multicastTo has a bridge that snoops IGMP and MLD send a port all of it, and
// all reports (MDB_RTR_TYPE_PERM), or nothing: it is the gateway that knows which
// other sites listen. The library has no call for it.
func multicastTo(port int, all bool) *nl.NetlinkRequest {
	var router uint8 = routerNever
	if all {
		router = routerPermanent
	}
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(port)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(nl.IFLA_BRPORT_MULTICAST_ROUTER, nl.Uint8Attr(router))
	req.AddData(info)
	return req
}

// MDB_RTR_TYPE_DISABLED and MDB_RTR_TYPE_PERM (include/uapi/linux/if_bridge.h).
const (
	routerNever     = 0
	routerPermanent = 2
)

func kindOf(e l2ext.Entry) int {
	if e.Site == 0 {
		return unix.RTM_DELNEIGH
	}
	return unix.RTM_NEWNEIGH
}

func request(kind int, msg *netlink.Ndmsg, attrs ...*nl.RtAttr) *nl.NetlinkRequest {
	flags := unix.NLM_F_ACK
	if kind == unix.RTM_NEWNEIGH {
		flags |= unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	req := nl.NewNetlinkRequest(kind, flags)
	req.AddData(msg)
	for _, a := range attrs {
		req.AddData(a)
	}
	return req
}
