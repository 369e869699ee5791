package hostnet

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/probe"
)

// In mode direct the kernel also keeps to the policy of a segment, with chains
// beside those that limit storms. The comment of a rule is the reason as which its
// frames are counted (reasons_linux.go):
//
//	chain d100 {     frames that are about to leave by lhdx100
//		broadcasts far over the limits: drop, as in s100
//		iif lhvx100, for a group: drop           what the gateway says is for this LAN
//		broadcast shut, for a group: drop
//		never carried (BPDU, LLDP, LACP, pause, CDP), loop probes: drop
//		router advertisements, if they stay: drop
//		from or for a gateway that is at each site, questions for it: drop
//		for one host: return
//		DHCP, FHRP, if they stay: drop
//		multicast for more than the link, if it stays: drop
//		limits, as in s100 }
//	chain i100 {     frames that have come by it: the same, reports of IGMP and MLD where no
//		router asks, and the limits once for each site }

// The chains' names begin so, or end.
const (
	lanPrefix    = "s"
	leavePrefix  = "d"
	arrivePrefix = "i"
	udpSuffix    = "-udp"
	brakeSuffix  = "-brake"
)

// protoVRRP is the number of VRRP and CARP (IANA's registry of protocols).
const protoVRRP = 112

// addDirect makes both chains and returns their names.
func addDirect(c *nftables.Conn, t *nftables.Table, w l2ext.Wish, a attachment) (leaves, arrives string, err error) {
	own, err := addGateways(c, t, w)
	if err != nil {
		return "", "", err
	}
	d := direct{c: c, w: w, own: own, chain: c.AddChain(&nftables.Chain{Name: fmt.Sprintf("%s%d", leavePrefix, w.VNI), Table: t})}
	l := limits{Limits: w.Policy.Limits, classes: classes, sources: 1, kindAt: untaggedKind}
	if err := addBrake(c, d.chain, l); err != nil {
		return "", "", err
	}
	d.ownStay(a)
	d.policy()
	if err := addLimits(c, d.chain, l); err != nil {
		return "", "", err
	}
	leaves = d.chain.Name
	d.chain = c.AddChain(&nftables.Chain{Name: fmt.Sprintf("%s%d", arrivePrefix, w.VNI), Table: t})
	d.policy()
	d.noReports()
	l.sources = 2 * sources(w.Direct, a.left) // one port is all that frames come by: half of the limit would be all. So twice
	return leaves, d.chain.Name, addLimits(c, d.chain, l)
}

// direct writes the rules of a chain.
type direct struct {
	c     *nftables.Conn
	w     l2ext.Wish
	own   gateways
	chain *nftables.Chain
}

// drop adds a rule.
func (d direct) drop(why reason, match ...[]expr.Any) {
	var all []expr.Any
	for _, m := range match {
		all = append(all, m...)
	}
	d.c.AddRule(&nftables.Rule{Table: d.chain.Table, Chain: d.chain, Exprs: append(all, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}), UserData: why.mark()})
}

// ownStay keeps here what the gateway says to this LAN: its probes, ten a second, and
// announcements of hosts. They are not counted: nothing is lost by it.
func (d direct) ownStay(a attachment) {
	own := append([]expr.Any{&expr.Meta{Key: expr.MetaKeyIIF, Register: 1}, equal(ifindex(a.port)...)}, grouped(expr.CmpOpNeq)...)
	d.c.AddRule(&nftables.Rule{Table: d.chain.Table, Chain: d.chain, Exprs: append(own, &expr.Verdict{Kind: expr.VerdictDrop})})
}

// policy adds what l2ext's judge looks at in mode secure, and Policy.keeps.
func (d direct) policy() {
	p := d.w.Policy
	if d.w.Direct.Shut {
		d.drop(shut, grouped(expr.CmpOpNeq))
	}
	d.never()
	if p.RouterAdverts == l2ext.Local {
		for _, kind := range []byte{134, 137} { // advertisements and redirects (RFC 4861, sections 4.2, 4.5)
			d.drop(kept, neighbours(kind))
		}
	}
	d.keepGateways()
	d.c.AddRule(&nftables.Rule{Table: d.chain.Table, Chain: d.chain, Exprs: append(grouped(expr.CmpOpEq), &expr.Verdict{Kind: expr.VerdictReturn})})
	var ports []uint16
	if p.DHCP == l2ext.Local {
		ports = append(ports, 67, 68, 546, 547)
	}
	if p.FHRP != l2ext.Cross {
		ports = append(ports, 1985, 2029, 3222) // HSRP, HSRP over IPv6, GLBP
		d.drop(kept, protocol(protoVRRP, false))
		d.drop(kept, protocol(protoVRRP, true))
	}
	d.dropUDP(ports)
	if p.Multicast == l2ext.MulticastLinkLocal {
		d.wideMulticast()
	}
}

// never adds what no policy lets through (ether.Header.Forbidden).
func (d direct) never() {
	for _, kind := range [][]byte{{0x88, 0x08}, {0x88, 0x09}, {0x88, 0xcc}} {
		d.drop(forbidden, []expr.Any{load(expr.PayloadBaseLLHeader, 12, 2), equal(kind...)})
	}
	d.drop(probed, []expr.Any{load(expr.PayloadBaseLLHeader, 0, 6), equal(probe.Dst[:]...)})
	d.drop(forbidden, masked([]byte{1, 0x80, 0xc2, 0, 0, 0}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xf0}))
	d.drop(forbidden, masked([]byte{1, 0, 0x0c, 0xcc, 0xcc, 0xcc}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xfe}))
}

// masked matches destinations.
func masked(mac, mask []byte) []expr.Any {
	return []expr.Any{
		load(expr.PayloadBaseLLHeader, 0, 6),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 6, Mask: mask, Xor: make([]byte, 6)},
		equal(mac...),
	}
}

// neighbours matches a kind of ICMPv6.
func neighbours(kind byte) []expr.Any {
	return append(protocol(unix.IPPROTO_ICMPV6, true), load(expr.PayloadBaseTransportHeader, 0, 1), equal(kind))
}

// protocol matches what is in a packet of IP. In one of IPv6 the kernel finds it behind extension headers: a rule
// that looks only at the first header is walked around (RFC 7113).
func protocol(number byte, v6 bool) []expr.Any {
	if v6 {
		return []expr.Any{
			load(expr.PayloadBaseLLHeader, 12, 2), equal(0x86, 0xdd), &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal(number),
		}
	}
	return []expr.Any{
		load(expr.PayloadBaseLLHeader, 12, 2), equal(0x08, 0x00), load(expr.PayloadBaseNetworkHeader, 9, 1), equal(number),
	}
}

// dropUDP drops datagrams for some ports. They have a chain of their own: a storm
// of something else should not be compared with each port.
func (d direct) dropUDP(ports []uint16) {
	if len(ports) == 0 {
		return
	}
	t := d.chain.Table
	own := d.c.AddChain(&nftables.Chain{Name: d.chain.Name + udpSuffix, Table: t})
	for _, v6 := range []bool{false, true} {
		jump := append(protocol(unix.IPPROTO_UDP, v6), &expr.Verdict{Kind: expr.VerdictJump, Chain: own.Name})
		d.c.AddRule(&nftables.Rule{Table: t, Chain: d.chain, Exprs: jump})
	}
	d.chain = own
	for _, port := range ports {
		d.drop(kept, []expr.Any{load(expr.PayloadBaseTransportHeader, 2, 2), equal(byte(port>>8), byte(port))})
	}
}

// linkLocal are the groups of ether.MAC.LinkLocalGroup that begin as others do; the
// last are solicited nodes.
var linkLocal = []struct{ mac, mask []byte }{
	{[]byte{1, 0, 0x5e, 0, 0, 0}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0}},
	{[]byte{0x33, 0x33, 0, 0, 0, 0}, []byte{0xff, 0xff, 0xff, 0xfe, 0xff, 0}},
	{[]byte{0x33, 0x33, 0xff, 0, 0, 0}, []byte{0xff, 0xff, 0xff, 0, 0, 0}},
}

// wideMulticast drops multicast for groups that reach beyond the link
// (ether.MAC.LinkLocalGroup): the link's own return to the limits.
func (d direct) wideMulticast() {
	limit := func(mac, mask []byte) {
		name := d.chain.Name + "-multicast"
		d.c.AddRule(&nftables.Rule{Table: d.chain.Table, Chain: d.chain, Exprs: append(masked(mac, mask), &expr.Verdict{Kind: expr.VerdictGoto, Chain: name})})
	}
	// The chain is made by addLimits, in the same transaction: it must be there before it is named.
	d.c.AddChain(&nftables.Chain{Name: d.chain.Name + "-multicast", Table: d.chain.Table})
	for _, own := range linkLocal[:2] {
		limit(own.mac, own.mask)
	}
	d.drop(kept, masked([]byte{1, 0, 0x5e, 0, 0, 0}, []byte{0xff, 0xff, 0xff, 0, 0, 0}))
	// Not solicited nodes, which are 33:33:ff, nor what is no multicast of IP.
	d.drop(kept, []expr.Any{load(expr.PayloadBaseLLHeader, 0, 2), equal(0x33, 0x33), load(expr.PayloadBaseLLHeader, 2, 1), &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0xff}}})
}
