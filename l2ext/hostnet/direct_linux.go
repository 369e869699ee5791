package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/probe"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// In mode direct a segment has a second port, lhdx<VNI>: a VXLAN device over the
// underlay, which carries its frames. It outlives the gateway, so that frames go
// on passing when that dies, and is taken up by its mark.

// directPort is the UDP port of these devices. It is not that of the carrier,
// whose socket has other settings.
const directPort = vxlan.DirectPort

const directPrefix = "lhdx"

func directName(vni uint32) string { return fmt.Sprintf("%s%d", directPrefix, vni) }

// devicesOf are the names of the devices of a segment.
func devicesOf(w l2ext.Wish) []string {
	if w.Direct == nil {
		return []string{deviceName(w.VNI)}
	}
	return []string{deviceName(w.VNI), directName(w.VNI)}
}

// attachDirect makes the device over the underlay, with the copies of frames for many, and finds what
// of an earlier gateway's is to stay.
func (n *Net) attachDirect(w l2ext.Wish, br netlink.Link, at *attachment) error {
	l, err := n.needDirect(w, br)
	if err != nil {
		return err
	}
	at.direct, at.adopts = l.Attrs().Index, adopts(w, l)
	if at.adopts {
		before, _ := n.attachment(w.VNI)
		if at.left, err = n.leftOf(at.direct, w.Direct, before.left.machines); err != nil {
			return err
		}
	}
	at.sites = sitesOf(w.Direct, at.left)
	return n.setCopies(at.direct, w.Direct, at.left)
}

// needDirect finds the segment's VXLAN device over the underlay as it ought to
// be, or makes it.
func (n *Net) needDirect(w l2ext.Wish, br netlink.Link) (netlink.Link, error) {
	name := directName(w.VNI)
	mtu := max(w.MTU, br.Attrs().MTU)
	l, err := n.nl.LinkByName(name)
	switch {
	case err == nil && !strings.HasPrefix(l.Attrs().Alias, segmentMark):
		return nil, fmt.Errorf("device %s is there and is not ours", name)
	case err == nil && isDirect(l, w):
		return l, n.setDirect(w, l, br, mtu)
	case err == nil:
		if err := n.nl.LinkDel(l); err != nil {
			return nil, fmt.Errorf("removing device %s: %w", name, err)
		}
	case !notFound(err):
		return nil, fmt.Errorf("finding device %s: %w", name, err)
	}
	return n.makeDirect(w, br, mtu)
}

func isDirect(l netlink.Link, w l2ext.Wish) bool {
	vx, ok := l.(*netlink.Vxlan)
	if !ok {
		return false
	}
	local, _ := netip.AddrFromSlice(vx.SrcAddr)
	return vx.VxlanId == int(w.VNI) && vx.VtepDevIndex == 0 && vx.Port == directPort && !vx.Learning && local.Unmap() == w.Direct.Local
}

// makeDirect makes the device. It is bound to no device below: its MTU would be
// capped to that of the underlay less 50, though the kernel can send longer
// packets in fragments. Checksums are on: without them a receiving kernel does
// not join packets.
func (n *Net) makeDirect(w l2ext.Wish, br netlink.Link, mtu int) (netlink.Link, error) {
	la := netlink.NewLinkAttrs()
	la.Name, la.MTU, la.HardwareAddr = directName(w.VNI), mtu, randomMAC(0xfe, 0xff)
	err := n.nl.LinkAdd(&netlink.Vxlan{
		LinkAttrs: la, VxlanId: int(w.VNI), SrcAddr: w.Direct.Local.AsSlice(), Port: directPort, Learning: false, UDPCSum: true,
	})
	if err != nil {
		return nil, fmt.Errorf("making device %s with address %v: %w", la.Name, w.Direct.Local, err)
	}
	l, err := n.claim(la.Name, segmentMark+w.Name)
	if err != nil {
		return nil, err
	}
	return l, n.setDirect(w, l, br, mtu)
}

// setDirect plugs it in. It comes up last, by openDirect, when there are rules for it.
func (n *Net) setDirect(w l2ext.Wish, l, br netlink.Link, mtu int) error {
	return n.setPort(w, l, br, portSpec{mtu: mtu, stays: true, many: true})
}

// openDirect sets the port up, or down when its frames could not be guarded.
func (n *Net) openDirect(w l2ext.Wish, guarded error) error {
	l, err := n.nl.LinkByName(directName(w.VNI))
	if err != nil {
		return errors.Join(guarded, fmt.Errorf("finding device %s: %w", directName(w.VNI), err))
	}
	up := l.Attrs().RawFlags&unix.IFF_UP != 0
	switch {
	case guarded != nil:
		return errors.Join(fmt.Errorf("the kernel cannot guard a segment in mode direct, so it carries nothing: nf_tables with the families bridge, netdev and inet is needed: %w", guarded), n.nl.LinkSetDown(l))
	case !up:
		if err := n.nl.LinkSetUp(l); err != nil {
			return fmt.Errorf("setting up device %s: %w", l.Attrs().Name, err)
		}
	}
	return nil
}

// withGateways adds to the wished entries those of the gateways themselves.
func withGateways(w l2ext.Wish) []l2ext.Entry {
	es := append(w.Entries[:len(w.Entries):len(w.Entries)], l2ext.Entry{MAC: w.Direct.Self, Site: vxlan.Self})
	for _, s := range w.Direct.Sites {
		es = append(es, l2ext.Entry{MAC: s.MAC, Site: s.Site})
	}
	return es
}

// directEntry is what the kernel has for a MAC of a segment in mode direct.
type directEntry struct {
	port int        // of the bridge's entry, static and sticky; 0 for none
	to   netip.Addr // where the VXLAN device sends it
}

// setDirectEntries makes the wished entries, and no others but those that stay, which it notes.
func (n *Net) setDirectEntries(a attachment, wished []l2ext.Entry) error {
	have := make(map[l2ext.MAC]directEntry)
	for _, port := range []int{a.port, a.direct} {
		if err := n.addEntries(have, port); err != nil {
			return err
		}
	}
	var change []l2ext.Entry
	for _, e := range wished {
		if have[e.MAC] != a.entry(e) {
			e.Moves = false
			change = append(change, e)
		}
		delete(have, e.MAC)
	}
	for mac, h := range have {
		if h.port == a.direct && a.left.keepsHost(mac, h.to) {
			set(a.left.away, mac, !probe.IsGateway(mac))
			continue
		}
		if a.adopts {
			a.left.gone[mac] = true
		}
		change = append(change, l2ext.Entry{MAC: mac})
	}
	return n.setAll(a, change)
}

func (n *Net) addEntries(have map[l2ext.MAC]directEntry, port int) error {
	list, err := n.nl.NeighList(port, unix.AF_BRIDGE)
	if err != nil {
		return fmt.Errorf("listing entries: %w", err)
	}
	for _, e := range list {
		if len(e.HardwareAddr) != 6 || e.LinkIndex != port {
			continue
		}
		mac := l2ext.MAC(e.HardwareAddr)
		if !mac.Host() || (e.MasterIndex != 0 && e.State&netlink.NUD_PERMANENT != 0) {
			continue // the entries of frames for all, a group, or the device's own address
		}
		h := have[mac]
		if e.MasterIndex != 0 {
			if e.State&netlink.NUD_NOARP != 0 && e.Flags&netlink.NTF_STICKY != 0 {
				h.port = port
			}
		} else if to, ok := netip.AddrFromSlice(e.IP); ok {
			h.to = to.Unmap()
		}
		have[mac] = h
	}
	return nil
}

// entry is what an entry ought to be in the kernel.
func (a attachment) entry(e l2ext.Entry) directEntry {
	if e.Site == vxlan.Self {
		return directEntry{port: a.port}
	}
	return directEntry{port: a.direct, to: a.sites[e.Site]}
}

// directRequests are what makes an entry, or removes it.
func (a attachment) directRequests(e l2ext.Entry) (reqs []*nl.NetlinkRequest) {
	to := a.sites[e.Site]
	switch {
	case e.Site == 0: // the bridge's first: until it learns better, it floods frames for the MAC to the LAN
		return []*nl.NetlinkRequest{bridgeEntry(a.direct, e), bridgeEntry(a.port, e), underlayEntry(a.direct, e.MAC, netip.Addr{})}
	case e.Site == vxlan.Self:
		return []*nl.NetlinkRequest{bridgeEntry(a.port, e), underlayEntry(a.direct, e.MAC, netip.Addr{})}
	case e.Moves:
		return []*nl.NetlinkRequest{underlayEntry(a.direct, e.MAC, to)}
	}
	return []*nl.NetlinkRequest{underlayEntry(a.direct, e.MAC, to), bridgeEntry(a.direct, e)}
}

// underlayEntry sends frames for a MAC to a machine of the underlay; an invalid
// address ends that.
func underlayEntry(port int, mac l2ext.MAC, to netip.Addr) *nl.NetlinkRequest {
	kind := unix.RTM_DELNEIGH
	attrs := []*nl.RtAttr{nl.NewRtAttr(netlink.NDA_LLADDR, mac[:])}
	if to.IsValid() {
		kind = unix.RTM_NEWNEIGH
		attrs = append(attrs, nl.NewRtAttr(netlink.NDA_DST, to.AsSlice()))
	}
	return request(kind, &netlink.Ndmsg{
		Family: unix.AF_BRIDGE, Index: uint32(port), State: netlink.NUD_NOARP | netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
	}, attrs...)
}

// gone tells whether a request removes something, which need not be there.
func gone(req *nl.NetlinkRequest) bool { return req.Type == unix.RTM_DELNEIGH }

// Traffic tells what the kernel has carried of a segment in mode direct.
func (n *Net) Traffic(vni uint32) (t l2ext.Traffic, ok bool) {
	n.mu.RLock()
	a, known := n.segments[vni]
	n.mu.RUnlock()
	if !known || a.direct == 0 {
		return t, false
	}
	l, err := n.linkByIndex(a.direct)
	if err != nil || l.Attrs().Statistics == nil {
		return t, false
	}
	s := l.Attrs().Statistics
	t = l2ext.Traffic{Sent: s.TxPackets, SentBytes: s.TxBytes, Received: s.RxPackets, ReceivedBytes: s.RxBytes}
	t.Foreign = n.foreign(vni)
	return t, true
}

func ifindex(i int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(i)) }

// removeDirect removes the devices over the underlay, which do not go with the
// carrier, when the gateway ends.
func (n *Net) removeDirect() error {
	var errs []error
	for _, vni := range n.directSegments() {
		l, err := n.nl.LinkByName(directName(vni))
		if err == nil {
			n.forgetNeighbours(l)
			err = n.nl.LinkDel(l)
		}
		if err != nil && !notFound(err) {
			errs = append(errs, fmt.Errorf("removing device %s: %w", directName(vni), err))
		}
	}
	return errors.Join(errs...)
}

// forgetNeighbours removes ours from the bridge into which a device over the
// underlay is plugged, before it is removed.
func (n *Net) forgetNeighbours(l netlink.Link) {
	a := l.Attrs()
	if !strings.HasPrefix(a.Name, directPrefix) || a.MasterIndex == 0 {
		return
	}
	if err := n.setNeighbours(a.MasterIndex, nil, nil); err != nil {
		n.log.Warn("neighbours of the bridge stay", "device", a.Name, "err", err)
	}
}
