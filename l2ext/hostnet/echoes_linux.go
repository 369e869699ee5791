package hostnet

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/longhaul-project/longhaul/l2ext/probe"
)

// The gateways' echoes (l2ext/probe) tell whether the underlay works. They go from
// the gateway's own plug to the underlay, and back. A host of the LAN must neither
// send one, by which it could keep the gateway busy, nor hear one: who knows the
// number of a question can answer it, and pretend that a dead underlay works.

// toEchoes has the chain of that name look at echoes.
func toEchoes(echoes *nftables.Chain) []expr.Any {
	gateways := probe.GatewayOf(0, "") // of any segment and site: they begin with the same bytes
	return []expr.Any{
		load(expr.PayloadBaseLLHeader, 12, 2), equal(probe.Type>>8, probe.Type&0xff),
		load(expr.PayloadBaseLLHeader, 0, 2), equal(gateways[:2]...), &expr.Verdict{Kind: expr.VerdictJump, Chain: echoes.Name},
	}
}

// guardEchoes keeps those of a segment between its two ports.
func guardEchoes(c *nftables.Conn, echoes *nftables.Chain, a attachment) {
	rule := func(verdict expr.VerdictKind, match ...expr.Any) {
		c.AddRule(&nftables.Rule{Table: echoes.Table, Chain: echoes, Exprs: append(match, &expr.Verdict{Kind: verdict})})
	}
	from := func(port int) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIF, Register: 1}, equal(ifindex(port)...)}
	}
	to := func(port int) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIF, Register: 1}, equal(ifindex(port)...)}
	}
	rule(expr.VerdictReturn, append(from(a.port), to(a.direct)...)...)
	rule(expr.VerdictReturn, append(from(a.direct), to(a.port)...)...)
	for _, port := range []int{a.port, a.direct} {
		rule(expr.VerdictDrop, from(port)...)
		rule(expr.VerdictDrop, to(port)...)
	}
}
