package hostnet

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// A bridge floods into our port what is of any VLAN. It must not use up the limits of
// the segment's, nor the gateway's time: the rules that limit storms begin with these.
// Of frames for groups each port takes its own VLAN's. One for a host may be of another
// VLAN of ours that the host is in as well, and its bridge has one entry for it
// (l2ext/vlan.go): only what is of no segment's is dropped here.

// vlanSuffix ends the name of their chain.
const vlanSuffix = "-vlan"

// bridgeSegments are the VLANs of the segments of a bridge.
type bridgeSegments struct {
	set  *nftables.Set
	bare bool // what has no tag is one of them
}

// addBridges makes a set of VLANs for each bridge whose segments need rules, by name.
func addBridges(c *nftables.Conn, t *nftables.Table, wishes []l2ext.Wish) (map[string]bridgeSegments, error) {
	vids := make(map[string][]uint16)
	for _, w := range wishes {
		if w.VLAN != 0 || w.Shared {
			vids[w.Bridge] = append(vids[w.Bridge], w.VLAN)
		}
	}
	all := make(map[string]bridgeSegments, len(vids))
	for bridge, of := range vids {
		set := named(&nftables.Set{Table: t, Name: "vlans-" + bridge, KeyType: nftables.TypeInetService}) // which is two bytes
		elements := make([]nftables.SetElement, 0, len(of))
		for _, vid := range of {
			elements = append(elements, nftables.SetElement{Key: []byte{byte(vid >> 8), byte(vid)}})
		}
		if err := c.AddSet(set, elements); err != nil {
			return nil, fmt.Errorf("making set %s: %w", set.Name, err)
		}
		all[bridge] = bridgeSegments{set: set, bare: slices.Contains(of, 0)}
	}
	return all, nil
}

// addOtherVLANs adds the rules, if the segment does not have its bridge to itself.
func addOtherVLANs(c *nftables.Conn, first *nftables.Chain, w l2ext.Wish, bridge bridgeSegments) {
	if w.VLAN == 0 && !w.Shared {
		return
	}
	own := c.AddChain(&nftables.Chain{Name: first.Name + vlanSuffix, Table: first.Table})
	c.AddRule(&nftables.Rule{Table: first.Table, Chain: first, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: own.Name}}})
	rule := func(match []expr.Any, then ...expr.Any) {
		c.AddRule(&nftables.Rule{Table: own.Table, Chain: own, Exprs: append(match, then...)})
	}
	drop := []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
	pass := &expr.Verdict{Kind: expr.VerdictReturn}
	rule(inVLAN(&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(w.VLAN >> 8), byte(w.VLAN)}}), pass) // 0 is a priority only
	if w.VLAN == 0 {
		rule(bare(), pass)
	}
	rule(grouped(expr.CmpOpNeq), drop...)
	rule(inVLAN(&expr.Lookup{SourceRegister: 1, SetName: bridge.set.Name, SetID: bridge.set.ID}), pass)
	if bridge.bare && w.VLAN != 0 {
		rule(bare(), pass)
	}
	rule(nil, drop...)
}

// inVLAN matches frames with a tag of 802.1Q whose VLAN is as a test of register 1 wants it.
func inVLAN(test expr.Any) []expr.Any {
	return []expr.Any{
		load(expr.PayloadBaseLLHeader, untaggedKind, 2), equal(ether.TypeVLAN>>8, ether.TypeVLAN&0xff),
		load(expr.PayloadBaseLLHeader, untaggedKind+2, 2),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{vidMask >> 8, vidMask & 0xff}, Xor: []byte{0, 0}},
		test,
	}
}

// bare matches frames without a tag: none of 802.1Q, and none of a provider's.
func bare() []expr.Any {
	differs := func(b ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: b} }
	return []expr.Any{
		load(expr.PayloadBaseLLHeader, untaggedKind, 2), differs(ether.TypeVLAN>>8, ether.TypeVLAN&0xff), differs(0x88, 0xa8),
	}
}

// otherVLANs tells how many frames these rules have dropped, by VNI.
func (n *Net) otherVLANs() map[uint32]dropped {
	return n.countedBy(n.storm.vlans, func(vni uint32, a attachment) []string {
		if a.lan.alone() {
			return nil
		}
		return []string{fmt.Sprintf("s%d%s", vni, vlanSuffix)}
	})
}
