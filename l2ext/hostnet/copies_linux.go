package hostnet

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// In mode direct the VXLAN device makes the copies of frames for many: it sends one
// to each entry of the frame's group or, where that has none, to each entry of the MAC
// zero, of which there is one for each site (vxlan_xmit, drivers/net/vxlan/vxlan_core.c).
// So a group with entries of its own goes to the sites that listen. One that is to go
// nowhere has to be dropped before: table owner (guard_linux.go) has
//
//	set groups100 { type ether_addr }
//	chain owner100 { for a group: jump groups100 }
//	chain groups100 {
//		IGMP or MLD: return                          whose business all sites' routers are
//		for a group that is local to the link: return
//		for a group of IPv4 that @groups100 does not have, but 01:00:5e:00:00:00: drop
//		… of IPv6 … 33:33:00:00:00:00 … }
//
// These two, which are local to the link themselves, are in the set when only groups
// in it are to pass. So what hosts and routers say changes the set, and never the
// tables, of which other sets would begin anew.

// aCopy is an entry: frames for a group, or for all with the zero MAC, go to a machine.
type aCopy struct {
	group l2ext.MAC
	to    netip.Addr
}

// copiesOf are those that a segment ought to have.
func copiesOf(u *l2ext.Underlay) map[aCopy]bool {
	want, at := make(map[aCopy]bool), make(map[vxlan.Endpoint]netip.Addr)
	for _, s := range u.Sites {
		want[aCopy{to: s.Addr}] = true
		at[s.Site] = s.Addr
	}
	for _, g := range u.Listeners.Groups {
		if g.MAC.LinkLocalGroup() {
			continue // to all, always
		}
		for _, e := range g.Sites {
			if to := at[e]; to.IsValid() {
				want[aCopy{g.MAC, to}] = true
			}
		}
	}
	return want
}

// setCopies makes these entries, and no others but those that stay.
func (n *Net) setCopies(port int, u *l2ext.Underlay, stay left) error {
	want := copiesOf(u)
	list, err := n.nl.NeighList(port, unix.AF_BRIDGE)
	if err != nil {
		return fmt.Errorf("listing entries: %w", err)
	}
	have := make(map[aCopy]bool)
	for _, e := range list {
		if e.LinkIndex != port || len(e.HardwareAddr) != 6 || l2ext.MAC(e.HardwareAddr).Host() {
			continue
		}
		if a, ok := netip.AddrFromSlice(e.IP); ok { // else it is a group to which the device itself listens
			have[aCopy{l2ext.MAC(e.HardwareAddr), a.Unmap()}] = true
		}
	}
	var reqs []*nl.NetlinkRequest
	for c := range want {
		if !have[c] {
			reqs = append(reqs, copyEntry(port, unix.RTM_NEWNEIGH, c))
		}
	}
	for c := range have {
		if !want[c] && !stay.keeps(c.to) {
			reqs = append(reqs, copyEntry(port, unix.RTM_DELNEIGH, c))
		}
	}
	var errs []error
	for i, err := range n.raw.executeAll(reqs) {
		if err != nil && !(gone(reqs[i]) && notFound(err)) {
			errs = append(errs, fmt.Errorf("entries of groups: %w", err))
		}
	}
	return errors.Join(errs[:min(len(errs), maxErrors)]...)
}

func copyEntry(port, kind int, c aCopy) *nl.NetlinkRequest {
	flags := unix.NLM_F_ACK
	if kind == unix.RTM_NEWNEIGH {
		flags |= unix.NLM_F_CREATE | unix.NLM_F_APPEND
	}
	req := nl.NewNetlinkRequest(kind, flags)
	req.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(port), State: netlink.NUD_NOARP | netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF})
	req.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, c.group[:]))
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, c.to.AsSlice()))
	return req
}

// onlyGroups are in the set when nothing but its groups of IPv4, or IPv6, is to pass.
var onlyGroups = [2]l2ext.MAC{{1, 0, 0x5e}, {0x33, 0x33}}

// groupsOf is what is in the set.
func groupsOf(l l2ext.Listeners) map[l2ext.MAC]bool {
	all := make(map[l2ext.MAC]bool)
	for _, g := range l.Groups {
		all[g.MAC] = true
	}
	for f, only := range l.OnlyGroups {
		set(all, onlyGroups[f], only)
	}
	return all
}

// addGroups adds the set, and the chain of groups that go nowhere if there can be such.
func addGroups(c *nftables.Conn, owner *nftables.Chain, w l2ext.Wish) error {
	s := macSet(owner.Table, "groups", w.VNI)
	if err := c.AddSet(s, nil); err != nil || w.Policy.Multicast != l2ext.MulticastListeners {
		return err
	}
	own := c.AddChain(&nftables.Chain{Name: s.Name, Table: owner.Table})
	c.AddRule(&nftables.Rule{Table: owner.Table, Chain: owner, Exprs: append(grouped(expr.CmpOpNeq), &expr.Verdict{Kind: expr.VerdictJump, Chain: own.Name})})
	rule := func(verdict expr.VerdictKind, match ...expr.Any) {
		c.AddRule(&nftables.Rule{Table: own.Table, Chain: own, Exprs: append(match, &expr.Verdict{Kind: verdict})})
	}
	rule(expr.VerdictReturn, protocol(unix.IPPROTO_IGMP, false)...)
	rule(expr.VerdictReturn, mld()...)
	for _, local := range linkLocal {
		rule(expr.VerdictReturn, masked(local.mac, local.mask)...)
	}
	for f, prefix := range [][]byte{{1, 0, 0x5e}, {0x33, 0x33}} {
		rule(expr.VerdictDrop, load(expr.PayloadBaseLLHeader, 0, uint32(len(prefix))), equal(prefix...),
			load(expr.PayloadBaseLLHeader, 0, 6), &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID, Invert: true},
			&expr.Immediate{Register: 1, Data: onlyGroups[f][:]}, &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}, &expr.Counter{})
	}
	return nil
}

// mld matches ICMPv6 behind the hop-by-hop header that MLD has (RFC 9777, section 5),
// and loads its type.
func mld() []expr.Any {
	return []expr.Any{
		load(expr.PayloadBaseLLHeader, 12, 2), equal(ether.TypeIPv6>>8, ether.TypeIPv6&0xff),
		load(expr.PayloadBaseNetworkHeader, 6, 1), equal(unix.IPPROTO_HOPOPTS),
		load(expr.PayloadBaseNetworkHeader, 40, 1), equal(unix.IPPROTO_ICMPV6),
		load(expr.PayloadBaseNetworkHeader, 48, 1),
	}
}

// noReports drops what other sites' hosts say of groups, where no router asks here.
func (d direct) noReports() {
	only := d.w.Direct.Listeners.NoReports
	if only[0] { // all but queries
		d.drop(noListener, protocol(unix.IPPROTO_IGMP, false), []expr.Any{load(expr.PayloadBaseTransportHeader, 0, 1), &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0x11}}})
	}
	if only[1] {
		for _, kind := range []byte{131, 132, 143} {
			d.drop(noListener, mld(), []expr.Any{equal(kind)})
		}
	}
}
