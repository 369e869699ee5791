package hostnet

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// A bridge floods into our port what is of any VLAN. It must not use up the limits of
// the segment's, nor the gateway's time: the rules that limit storms begin with these.
// Only frames for groups are dropped here: one for a host may be of another VLAN of ours
// that the host is in as well, and its bridge has one entry for it (l2ext/vlan.go).

// vlanSuffix ends the name of their chain.
const vlanSuffix = "-vlan"

// addOtherVLANs adds the rules, if the segment does not have its bridge to itself.
func addOtherVLANs(c *nftables.Conn, first *nftables.Chain, w l2ext.Wish) {
	if w.VLAN == 0 && !w.Shared {
		return
	}
	own := c.AddChain(&nftables.Chain{Name: first.Name + vlanSuffix, Table: first.Table})
	c.AddRule(&nftables.Rule{Table: first.Table, Chain: first, Exprs: append(grouped(expr.CmpOpNeq), &expr.Verdict{Kind: expr.VerdictJump, Chain: own.Name})})
	rule := func(match []expr.Any, then ...expr.Any) {
		c.AddRule(&nftables.Rule{Table: own.Table, Chain: own, Exprs: append(match, then...)})
	}
	drop := []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
	if w.VLAN != 0 {
		rule(inVLAN(expr.CmpOpEq, w.VLAN), &expr.Verdict{Kind: expr.VerdictReturn})
		rule(nil, drop...)
		return
	}
	rule(inVLAN(expr.CmpOpNeq, 0), drop...) // with a priority only, it has none
	rule([]expr.Any{load(expr.PayloadBaseLLHeader, untaggedKind, 2), equal(0x88, 0xa8)}, drop...)
}

// inVLAN matches frames with a tag of 802.1Q, of a VLAN or of all others.
func inVLAN(op expr.CmpOp, vid uint16) []expr.Any {
	return []expr.Any{
		load(expr.PayloadBaseLLHeader, untaggedKind, 2), equal(ether.TypeVLAN>>8, ether.TypeVLAN&0xff),
		load(expr.PayloadBaseLLHeader, untaggedKind+2, 2),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{vidMask >> 8, vidMask & 0xff}, Xor: []byte{0, 0}},
		&expr.Cmp{Op: op, Register: 1, Data: []byte{byte(vid >> 8), byte(vid)}},
	}
}

// otherVLANs tells how many frames these rules have dropped, by VNI.
func (n *Net) otherVLANs() map[uint32]uint64 {
	return n.countedBy(n.storm.vlans, func(vni uint32, a attachment) []string {
		if a.lan.alone() {
			return nil
		}
		return []string{fmt.Sprintf("s%d%s", vni, vlanSuffix)}
	})
}
