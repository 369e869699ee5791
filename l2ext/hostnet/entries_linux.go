package hostnet

import (
	"errors"
	"fmt"
	"net/netip"

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
	var errs []error
	for _, e := range entries {
		var err error
		if e.Site == 0 {
			err = n.removeEntry(a.port, e.MAC)
		} else {
			err = n.addEntry(a.port, e)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// setEntries makes the wished entries of a port, and no others.
func (n *Net) setEntries(port int, wished []l2ext.Entry) error {
	have, err := n.entries(port)
	if err != nil {
		return err
	}
	for _, e := range wished {
		h := have[e.MAC]
		delete(have, e.MAC)
		if h.bridge && h.site == e.Site {
			continue
		}
		if err := n.addEntry(port, e); err != nil {
			return err
		}
	}
	for mac := range have {
		if err := n.removeEntry(port, mac); err != nil {
			return err
		}
	}
	return nil
}

// entry is what the kernel has for a MAC behind a port.
type entry struct {
	bridge bool           // static and sticky in the bridge
	site   vxlan.Endpoint // in the VXLAN device; 0 for none
}

// entries lists the hosts behind a port.
func (n *Net) entries(port int) (map[l2ext.MAC]entry, error) {
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
			h.bridge = e.State&netlink.NUD_NOARP != 0 && e.Flags&netlink.NTF_STICKY != 0
		} else if a, ok := netip.AddrFromSlice(e.IP); ok {
			h.site, _ = vxlan.FromAddr(a)
		}
		have[mac] = h
	}
	return have, nil
}

// addEntry sends frames for the MAC into the port, and there to the site.
// Static and sticky: a frame from the LAN with this source cannot move it.
func (n *Net) addEntry(port int, e l2ext.Entry) error {
	if err := n.raw.execute(n.selfEntry(unix.RTM_NEWNEIGH, port, e)); err != nil {
		return fmt.Errorf("adding the way to %v: %w", e.MAC, err)
	}
	if err := n.raw.execute(bridgeEntry(unix.RTM_NEWNEIGH, port, e.MAC)); err != nil {
		return fmt.Errorf("adding %v to the bridge: %w", e.MAC, err)
	}
	return nil
}

// removeEntry takes the bridge's entry away first: until it learns better, it
// floods frames for the MAC to the LAN.
func (n *Net) removeEntry(port int, mac l2ext.MAC) error {
	err1 := n.raw.execute(bridgeEntry(unix.RTM_DELNEIGH, port, mac))
	err2 := n.raw.execute(n.selfEntry(unix.RTM_DELNEIGH, port, l2ext.Entry{MAC: mac}))
	for _, err := range []error{err1, err2} {
		if err != nil && !notFound(err) {
			return fmt.Errorf("removing the entry of %v: %w", mac, err)
		}
	}
	return nil
}

func bridgeEntry(kind, port int, mac l2ext.MAC) *nl.NetlinkRequest {
	return request(kind, &netlink.Ndmsg{
		Family: unix.AF_BRIDGE, Index: uint32(port), State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER | netlink.NTF_STICKY,
	}, nl.NewRtAttr(netlink.NDA_LLADDR, mac[:]))
}

// selfEntry names the endpoint with its device, as link-local addresses must
// be; the library's call cannot.
func (n *Net) selfEntry(kind, port int, e l2ext.Entry) *nl.NetlinkRequest {
	req := request(kind, &netlink.Ndmsg{
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

// allMulticast has a bridge that snoops IGMP and MLD send a port all of it, and
// all reports (MDB_RTR_TYPE_PERM): it is the gateway that knows which other
// sites listen. The library has no call for it.
func allMulticast(port int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(port)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(nl.IFLA_BRPORT_MULTICAST_ROUTER, nl.Uint8Attr(routerPermanent))
	req.AddData(info)
	return req
}

// routerPermanent is MDB_RTR_TYPE_PERM (include/uapi/linux/if_bridge.h).
const routerPermanent = 2

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
