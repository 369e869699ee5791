package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
)

// The limits of broadcasts in the kernel. A storm must be stopped before each
// of its frames is wrapped and given to the gateway: a guest can send a million
// a second. The rules look at frames that a bridge is about to send into one of
// our ports, and at nothing else; what LAN ports send each other is the
// operator's business.
//
//	table bridge longhaul-lhtun0 {
//		chain forward { type filter hook forward priority filter
//			oif vmap { lhvx100 : jump s100 } }
//		chain s100 {
//			ether type arp                            goto s100-resolve
//			ip6 nexthdr icmpv6, type 135 or 136       goto s100-resolve
//			ether daddr ff:ff:ff:ff:ff:ff             goto s100-broadcast
//			ether daddr & 01:00:00:00:00:00 != 0      goto s100-multicast }
//		chain s100-resolve {
//			update @s100-resolve { iif limit rate over 50/second } drop
//			limit rate over 100/second drop }
//		…
//	}

// tablePrefix begins the names of our tables; that of the carrier follows, as
// each gateway of a network namespace has one.
const tablePrefix = "longhaul-"

// portMemory is how long the kernel remembers what a LAN port has sent.
const portMemory = 10 * time.Second

// storm is what was programmed.
type storm struct {
	rules  string            // as text; the same text needs no programming
	before map[uint32]uint64 // drops that earlier rules have counted, by VNI
	err    error             // why the kernel does not limit; nil if it does
}

// classes of frames, in the order in which they are told apart.
var classes = []struct {
	name  string
	rate  func(l2ext.Limits) int
	match [][]expr.Any // each is a way to be of the class
}{
	{"resolve", func(l l2ext.Limits) int { return l.Resolve }, [][]expr.Any{
		{load(expr.PayloadBaseLLHeader, 12, 2), equal(0x08, 0x06)},
		{load(expr.PayloadBaseLLHeader, 12, 2), equal(0x80, 0x35)},
		append(discovery(), equal(135)), append(discovery(), equal(136)),
	}},
	{"broadcast", func(l l2ext.Limits) int { return l.Broadcast }, [][]expr.Any{
		{load(expr.PayloadBaseLLHeader, 0, 6), equal(0xff, 0xff, 0xff, 0xff, 0xff, 0xff)},
	}},
	{"multicast", func(l l2ext.Limits) int { return l.Multicast }, [][]expr.Any{{}}}, // all that is left
}

// discovery matches ICMPv6 right behind the header and loads its type.
func discovery() []expr.Any {
	return []expr.Any{
		load(expr.PayloadBaseLLHeader, 12, 2), equal(0x86, 0xdd),
		load(expr.PayloadBaseNetworkHeader, 6, 1), equal(unix.IPPROTO_ICMPV6),
		load(expr.PayloadBaseNetworkHeader, 40, 1),
	}
}

func load(base expr.PayloadBase, offset, n uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: n}
}

func equal(b ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }

// limitStorms makes the rules for the wished segments. A kernel that cannot is
// told of once: the gateway has limits of its own, only later.
func (n *Net) limitStorms(wishes []l2ext.Wish) {
	rules := n.wishedRules(wishes)
	if rules == n.storm.rules {
		return
	}
	n.keepDrops()
	told := n.storm.err != nil
	err := n.program(wishes)
	n.storm.err = err
	if err == nil {
		n.storm.rules = rules
		return
	}
	if !told {
		n.log.Warn("no limits of broadcasts in the kernel; the gateway's own hold", "err", err)
	}
}

func (n *Net) wishedRules(wishes []l2ext.Wish) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var b strings.Builder
	for _, w := range wishes {
		if a, ok := n.segments[w.VNI]; ok {
			fmt.Fprintf(&b, "%d %d %+v\n", w.VNI, a.port, w.Policy.Limits)
		}
	}
	return b.String()
}

func (n *Net) nft() (*nftables.Conn, error) {
	if n.ns.IsOpen() {
		return nftables.New(nftables.WithNetNSFd(int(n.ns)))
	}
	return nftables.New()
}

func (n *Net) table() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyBridge, Name: tablePrefix + n.cfg.Tun}
}

// program replaces the table in one transaction.
func (n *Net) program(wishes []l2ext.Wish) error {
	c, err := n.nft()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	t := c.AddTable(n.table()) // so that there is one to delete
	c.DelTable(t)
	t = c.AddTable(n.table())
	ports := &nftables.Set{Table: t, Name: "ports", IsMap: true, KeyType: nftables.TypeIFIndex, DataType: nftables.TypeVerdict}
	var elements []nftables.SetElement
	for _, w := range wishes {
		n.mu.RLock()
		a, ok := n.segments[w.VNI]
		n.mu.RUnlock()
		if !ok {
			continue
		}
		chain, err := addSegment(c, t, w)
		if err != nil {
			return err
		}
		elements = append(elements, nftables.SetElement{
			Key:         binary.NativeEndian.AppendUint32(nil, uint32(a.port)),
			VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain},
		})
	}
	if err := c.AddSet(ports, elements); err != nil {
		return fmt.Errorf("making the map of ports: %w", err)
	}
	forward := c.AddChain(&nftables.Chain{
		Name: "forward", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	c.AddRule(&nftables.Rule{Table: t, Chain: forward, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIF, Register: 1},
		&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: ports.Name, SetID: ports.ID},
	}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("programming nftables: %w", err)
	}
	return nil
}

// addSegment makes the chains of a segment and returns the name of the first.
func addSegment(c *nftables.Conn, t *nftables.Table, w l2ext.Wish) (string, error) {
	first := c.AddChain(&nftables.Chain{Name: fmt.Sprintf("s%d", w.VNI), Table: t})
	group := []expr.Any{ // unicast is not limited here
		load(expr.PayloadBaseLLHeader, 0, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{1}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0}},
		&expr.Verdict{Kind: expr.VerdictReturn},
	}
	c.AddRule(&nftables.Rule{Table: t, Chain: first, Exprs: group})
	for _, class := range classes {
		name := first.Name + "-" + class.name
		chain := c.AddChain(&nftables.Chain{Name: name, Table: t})
		ports := &nftables.Set{Table: t, Name: name, KeyType: nftables.TypeIFIndex, Dynamic: true, HasTimeout: true, Timeout: portMemory}
		if err := c.AddSet(ports, nil); err != nil {
			return "", fmt.Errorf("making set %s: %w", name, err)
		}
		rate := class.rate(w.Policy.Limits)
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
			&expr.Dynset{SrcRegKey: 1, SetName: ports.Name, SetID: ports.ID, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{over(max(1, rate/2))}},
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
		}})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{over(rate), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}})
		for _, m := range class.match {
			c.AddRule(&nftables.Rule{Table: t, Chain: first, Exprs: append(m[:len(m):len(m)], &expr.Verdict{Kind: expr.VerdictGoto, Chain: name})})
		}
	}
	return first.Name, nil
}

// over matches what exceeds a rate; a burst of a second's worth passes.
func over(rate int) expr.Any {
	return &expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(max(1, rate)), Unit: expr.LimitTimeSecond, Over: true, Burst: uint32(max(1, rate))}
}

// drops tells how many frames the rules have dropped, by VNI.
func (n *Net) drops() map[uint32]uint64 {
	all := make(map[uint32]uint64)
	for vni, k := range n.storm.before {
		all[vni] = k
	}
	if n.storm.rules == "" {
		return all
	}
	c, err := n.nft()
	if err != nil {
		return all
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	for vni := range n.segments {
		for _, class := range classes {
			t := n.table()
			rules, err := c.GetRules(t, &nftables.Chain{Name: fmt.Sprintf("s%d-%s", vni, class.name), Table: t})
			if err != nil {
				continue // somebody has flushed the ruleset; the next Apply makes it anew
			}
			for _, r := range rules {
				for _, e := range r.Exprs {
					if k, ok := e.(*expr.Counter); ok {
						all[vni] += k.Packets
					}
				}
			}
		}
	}
	return all
}

// keepDrops saves what the rules have counted before they go.
func (n *Net) keepDrops() { n.storm.before = n.drops() }

// rulesThere tells whether our table is still there: "nft flush ruleset" takes
// it away, and so do tools that reload a firewall.
func (n *Net) rulesThere() bool {
	c, err := n.nft()
	if err != nil {
		return false
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyBridge)
	if err != nil {
		return false
	}
	for _, t := range tables {
		if t.Name == n.table().Name {
			return true
		}
	}
	return false
}

// removeRules removes our table, if it is there.
func (n *Net) removeRules() error {
	n.storm.rules = ""
	if !n.rulesThere() {
		return nil
	}
	c, err := n.nft()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	c.DelTable(n.table())
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing the limits of broadcasts: %w", err)
	}
	return nil
}
