package hostnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/longhaul-project/longhaul/l2ext"
)

// With l2ext.GatewayAnycast each site has a gateway of its own with the same
// addresses. Nothing from, for or about it may cross (l2ext.Policy.keeps), or hosts
// would find that of another site:
//
//	set gateways100 { type ether_addr; flags interval }     its MAC, and those of virtual routers
//	set gateways100-ip4, -ip6                               its addresses
//
//	ether saddr @gateways100 drop
//	ether daddr @gateways100 drop
//	arp saddr ip @gateways100-ip4 drop, arp daddr ip …      and neighbour discovery likewise

// gateways are the sets of a segment; nil where there is nothing in them.
type gateways struct {
	macs, ip4, ip6 *nftables.Set
}

// virtualRouters are the MACs of l2ext/ether's VirtualRouter, as so many first bits.
var virtualRouters = []struct {
	mac  l2ext.MAC
	bits int
}{
	{l2ext.MAC{0, 0, 0x0c, 0x07, 0xac}, 40}, // HSRP
	{l2ext.MAC{0, 0, 0x0c, 0x9f, 0xf0}, 36}, // HSRP 2
	{l2ext.MAC{0, 0, 0x5e, 0, 1}, 40},       // VRRP, CARP
	{l2ext.MAC{0, 0, 0x5e, 0, 2}, 40},       // VRRP over IPv6
	{l2ext.MAC{0, 0x05, 0x73, 0xa0, 0}, 36}, // HSRP over IPv6
	{l2ext.MAC{0, 0x07, 0xb4}, 24},          // GLBP
}

// addGateways makes the sets of a segment.
func addGateways(c *nftables.Conn, t *nftables.Table, w l2ext.Wish) (g gateways, err error) {
	p := w.Policy
	if p.Gateway != l2ext.GatewayAnycast {
		return g, nil
	}
	add := func(suffix string, kind nftables.SetDatatype, es []nftables.SetElement) *nftables.Set {
		if len(es) == 0 || err != nil {
			return nil
		}
		s := named(&nftables.Set{Table: t, Name: fmt.Sprintf("gateways%d%s", w.VNI, suffix), KeyType: kind, Interval: suffix == ""})
		if e := c.AddSet(s, es); e != nil {
			err = fmt.Errorf("making set %s: %w", s.Name, e)
		}
		return s
	}
	g.macs = add("", nftables.TypeEtherAddr, gatewayMACs(p))
	var ip4, ip6 []nftables.SetElement
	known := make(map[netip.Addr]bool)
	for _, ip := range p.GatewayIPs {
		switch ip = ip.Unmap(); {
		case known[ip]:
		case ip.Is4():
			ip4 = append(ip4, nftables.SetElement{Key: ip.AsSlice()})
		default:
			ip6 = append(ip6, nftables.SetElement{Key: ip.AsSlice()})
		}
		known[ip] = true
	}
	g.ip4 = add("-ip4", nftables.TypeIPAddr, ip4)
	g.ip6 = add("-ip6", nftables.TypeIP6Addr, ip6)
	return g, err
}

// gatewayMACs are ranges: each begins with one element, and ends before the next.
func gatewayMACs(p l2ext.Policy) (es []nftables.SetElement) {
	add := func(mac l2ext.MAC, bits int) {
		first := binary.BigEndian.Uint64(append([]byte{0, 0}, mac[:]...))
		end := binary.BigEndian.AppendUint64(nil, first+1<<(48-bits))
		es = append(es, nftables.SetElement{Key: mac[:]}, nftables.SetElement{Key: end[2:], IntervalEnd: true})
	}
	virtual := p.FHRP != l2ext.Cross
	if virtual {
		for _, r := range virtualRouters {
			add(r.mac, r.bits)
		}
	}
	if p.GatewayMAC != (l2ext.MAC{}) && !(virtual && p.GatewayMAC.VirtualRouter()) {
		add(p.GatewayMAC, 48)
	}
	return es
}

// keepGateways adds the rules.
func (d direct) keepGateways() {
	in := func(s *nftables.Set, base expr.PayloadBase, offset uint32) []expr.Any {
		return []expr.Any{load(base, offset, s.KeyType.Bytes), &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}}
	}
	if s := d.own.macs; s != nil {
		d.drop(kept, in(s, expr.PayloadBaseLLHeader, 6))
		d.drop(kept, in(s, expr.PayloadBaseLLHeader, 0))
	}
	if s := d.own.ip4; s != nil {
		arp := []expr.Any{load(expr.PayloadBaseLLHeader, 12, 2), equal(0x08, 0x06)}
		d.drop(kept, arp, in(s, expr.PayloadBaseNetworkHeader, 14)) // of who sends it
		d.drop(kept, arp, in(s, expr.PayloadBaseNetworkHeader, 24)) // that is asked for
	}
	if s := d.own.ip6; s != nil {
		for _, kind := range []byte{135, 136} { // solicitation and advertisement (RFC 4861)
			d.drop(kept, neighbours(kind), in(s, expr.PayloadBaseNetworkHeader, 8))
			d.drop(kept, neighbours(kind), in(s, expr.PayloadBaseTransportHeader, 8))
		}
	}
}
