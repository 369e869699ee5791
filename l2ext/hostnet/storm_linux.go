package hostnet

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/probe"
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
//			jump s100-vlan
//			meta pkttype broadcast update @s100-brake { iif . meta protocol limit rate over 500/second } drop
//			ether daddr & 01:00:00:00:00:00 == 0      return
//			ether daddr 03:00:4c:48:00:01             goto s100-probe
//			ether type arp                            goto s100-resolve
//			ip6 nexthdr icmpv6, type 135 or 136       goto s100-resolve
//			ether daddr ff:ff:ff:ff:ff:ff             goto s100-broadcast
//			goto s100-multicast }
//		chain s100-vlan {                             only where the segment is one of the VLANs of its bridge
//			vlan id 100                               return
//			ether daddr & 01:00:00:00:00:00 != 0      drop
//			vlan id @vlans-br0                        return
//			drop }
//		chain s100-resolve {
//			update @s100-resolve { iif limit rate over 50/second } drop
//			limit rate over 100/second drop }
//		…
//	}

// tablePrefix begins the names of our tables; that of the carrier follows, as
// each gateway of a network namespace has one.
const tablePrefix = "longhaul-"

// brakeOver is how many times what one port may send is let past the brake. The brake only
// spares the kernel work: of so many broadcasts nearly all are dropped further on, whatever
// they are, and to compare one with all rules takes twice as long as to make it, or
// four times. Below that, what a policy keeps here takes nothing of the limits.
const brakeOver = 10

// brakeKinds is how many ports, times kinds of frame, the brake knows. What finds no place
// is not braked.
const brakeKinds = 4096

// portMemory is how long the kernel remembers what a LAN port has sent.
const portMemory = 10 * time.Second

// storm is what was programmed.
type storm struct {
	rules  string             // as text; the same text needs no programming
	before map[uint32]dropped // what earlier rules have counted, by VNI
	vlans  map[uint32]dropped // likewise, of frames of other VLANs
	err    error              // why the kernel does not limit; nil if it does
}

// probesOfPort is how many loop probes pass that come by one port, in a second. They have a
// class of their own, and are not limited together: a loop shows by its storm, and its probe
// must not be lost in that, nor in what a guest sends in place of probes. A gateway sends ten
// a second at most, and of those that run in a circle one is enough.
const probesOfPort = 50

// class is a kind of frames that are limited together.
type class struct {
	name  string
	rate  func(l2ext.Limits) int           // of all; 0: only ports have limits
	port  func(rate int) int               // of one port
	match func(kindAt uint32) [][]expr.Any // each is a way to be of the class
}

func half(rate int) int { return max(1, rate/2) }

// probeClass is of the probes by which gateways find loops.
var probeClass = class{
	"probe", func(l2ext.Limits) int { return 0 }, func(int) int { return probesOfPort },
	func(uint32) [][]expr.Any {
		return [][]expr.Any{{load(expr.PayloadBaseLLHeader, 0, 6), equal(probe.Dst[:]...)}}
	},
}

// classes are the others, in the order in which they are told apart.
var classes = []class{
	{"resolve", func(l l2ext.Limits) int { return l.Resolve }, half, func(kindAt uint32) [][]expr.Any {
		return [][]expr.Any{
			{load(expr.PayloadBaseLLHeader, kindAt, 2), equal(0x08, 0x06)},
			{load(expr.PayloadBaseLLHeader, kindAt, 2), equal(0x80, 0x35)},
			append(discovery(kindAt), equal(135)), append(discovery(kindAt), equal(136)),
		}
	}},
	{"broadcast", func(l l2ext.Limits) int { return l.Broadcast }, half, func(uint32) [][]expr.Any {
		return [][]expr.Any{{load(expr.PayloadBaseLLHeader, 0, 6), equal(0xff, 0xff, 0xff, 0xff, 0xff, 0xff)}}
	}},
	{"multicast", func(l l2ext.Limits) int { return l.Multicast }, half, func(uint32) [][]expr.Any { return [][]expr.Any{{}} }}, // all that is left
}

// lanClasses are those of what LAN ports send into a segment.
func lanClasses() []class { return append([]class{probeClass}, classes...) }

// untaggedKind is where in a frame its type is, in bytes, if it has no VLAN tag.
const untaggedKind = 12

// kindAt is where the frames of a segment have it.
func kindAt(w l2ext.Wish) uint32 {
	if w.VLAN != 0 {
		return untaggedKind + ether.TagLen
	}
	return untaggedKind
}

// discovery matches ICMPv6 right behind the header and loads its type.
func discovery(kindAt uint32) []expr.Any {
	return []expr.Any{
		load(expr.PayloadBaseLLHeader, kindAt, 2), equal(0x86, 0xdd),
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
	told := n.storm.err != nil
	err := n.keepDrops(func() error { return n.program(wishes) })
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
			fmt.Fprintf(&b, "%d %d %+v %s %d %t\n", w.VNI, a.port, w.Policy.Limits, w.Bridge, w.VLAN, w.Shared)
			if w.Direct != nil {
				fmt.Fprintf(&b, "direct %d %+v %d %t %t\n", a.direct, w.Policy, sources(w.Direct, a.left), w.Direct.Shut, w.Direct.Listeners.NoReports)
			}
		}
	}
	return b.String()
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
	bridges, err := addBridges(c, t, wishes)
	if err != nil {
		return err
	}
	var out, in []nftables.SetElement
	for _, w := range wishes {
		a, ok := n.attachment(w.VNI)
		if !ok {
			continue
		}
		chain, err := addSegment(c, t, w, bridges[w.Bridge])
		if err != nil {
			return err
		}
		out = append(out, jumpFor(a.port, chain))
		if w.Direct != nil {
			leaves, arrives, err := addDirect(c, t, w, a)
			if err != nil {
				return err
			}
			out, in = append(out, jumpFor(a.direct, leaves)), append(in, jumpFor(a.direct, arrives))
		}
	}
	if err := addHook(c, t, portHook{name: "forward", at: nftables.ChainHookForward, priority: nftables.ChainPriorityFilter, port: expr.MetaKeyOIF, jumps: out}); err != nil {
		return err
	}
	if len(in) > 0 {
		if err := addHook(c, t, portHook{name: "arrive", at: nftables.ChainHookPrerouting, priority: nftables.ChainPriorityFilter, port: expr.MetaKeyIIF, jumps: in}); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("programming nftables: %w", err)
	}
	return nil
}

// portHook is a hook of the bridge from which each of our ports has its own
// chain.
type portHook struct {
	name     string
	at       *nftables.ChainHook
	priority *nftables.ChainPriority
	port     expr.MetaKey // by which a frame leaves, or has come
	first    []expr.Any   // a rule before; nil for none
	jumps    []nftables.SetElement
}

func addHook(c *nftables.Conn, t *nftables.Table, h portHook) error {
	ports := named(&nftables.Set{Table: t, Name: h.name + "-ports", IsMap: true, KeyType: nftables.TypeIFIndex, DataType: nftables.TypeVerdict, Size: uint32(len(h.jumps))})
	if err := c.AddSet(ports, h.jumps); err != nil {
		return fmt.Errorf("making the map of ports: %w", err)
	}
	chain := c.AddChain(&nftables.Chain{
		Name: h.name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: h.at, Priority: h.priority,
	})
	if h.first != nil {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: h.first})
	}
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: h.port, Register: 1},
		&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: ports.Name, SetID: ports.ID},
	}})
	return nil
}

func jumpFor(port int, chain string) nftables.SetElement {
	return nftables.SetElement{Key: ifindex(port), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// addSegment makes the chains of a segment and returns the name of the first.
func addSegment(c *nftables.Conn, t *nftables.Table, w l2ext.Wish, bridge bridgeSegments) (string, error) {
	first := c.AddChain(&nftables.Chain{Name: fmt.Sprintf("%s%d", lanPrefix, w.VNI), Table: t})
	l := limits{Limits: w.Policy.Limits, classes: lanClasses(), sources: 1, kindAt: kindAt(w)}
	addOtherVLANs(c, first, w, bridge)
	if err := addBrake(c, first, l); err != nil {
		return "", err
	}
	c.AddRule(&nftables.Rule{Table: t, Chain: first, Exprs: append(grouped(expr.CmpOpEq), &expr.Verdict{Kind: expr.VerdictReturn})})
	return first.Name, addLimits(c, first, l)
}

// limits are those of a chain.
type limits struct {
	l2ext.Limits
	classes []class
	sources int    // each has the whole limit
	kindAt  uint32 // where in frames their type is, bytes
}

// addBrake drops broadcasts, by LAN port and kind of frame, far over the limits: a storm
// meets this rule and no other. What it asks of a frame is noted beside it by the kernel, so
// that nothing of the frame itself need be read.
func addBrake(c *nftables.Conn, first *nftables.Chain, l limits) error {
	t, name := first.Table, first.Name+brakeSuffix
	ports := named(&nftables.Set{
		Table: t, Name: name, Concatenation: true, KeyType: nftables.MustConcatSetType(nftables.TypeIFIndex, nftables.TypeEtherType),
		Dynamic: true, HasTimeout: true, Timeout: portMemory, Size: brakeKinds,
	})
	if err := c.AddSet(ports, nil); err != nil {
		return fmt.Errorf("making set %s: %w", name, err)
	}
	rate := brakeOver * half(max(l.Resolve, l.Broadcast))
	c.AddRule(&nftables.Rule{Table: t, Chain: first, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: 1}, equal(unix.PACKET_BROADCAST),
		&expr.Meta{Key: expr.MetaKeyIIF, Register: reg32},
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: reg32 + 1}, // behind the tag of a VLAN, if there is one
		&expr.Dynset{SrcRegKey: reg32, SetName: ports.Name, SetID: ports.ID, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{over(rate)}},
		&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
	}})
	return nil
}

// grouped matches frames that are for a group, with CmpOpNeq, or for one host.
func grouped(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		load(expr.PayloadBaseLLHeader, 0, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{1}, Xor: []byte{0}},
		&expr.Cmp{Op: op, Register: 1, Data: []byte{0}},
	}
}

// addLimits makes the limits of frames that first passes, which are for groups:
// for each of so many sources the whole limit, and for one LAN port its part of it.
func addLimits(c *nftables.Conn, first *nftables.Chain, l limits) error {
	t := first.Table
	for _, class := range l.classes {
		name := first.Name + "-" + class.name
		chain := c.AddChain(&nftables.Chain{Name: name, Table: t})
		rate := class.rate(l.Limits) * max(1, l.sources)
		ports := named(&nftables.Set{Table: t, Name: name, KeyType: nftables.TypeIFIndex, Dynamic: true, HasTimeout: true, Timeout: portMemory})
		if err := c.AddSet(ports, nil); err != nil {
			return fmt.Errorf("making set %s: %w", name, err)
		}
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
			&expr.Dynset{SrcRegKey: 1, SetName: ports.Name, SetID: ports.ID, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{over(class.port(rate))}},
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
		}})
		if rate > 0 {
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{over(rate), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}})
		}
		for _, m := range class.match(l.kindAt) {
			c.AddRule(&nftables.Rule{Table: t, Chain: first, Exprs: append(m[:len(m):len(m)], &expr.Verdict{Kind: expr.VerdictGoto, Chain: name})})
		}
	}
	return nil
}

// over matches what exceeds a rate; a burst of a second's worth passes.
func over(rate int) expr.Any {
	return &expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(max(1, rate)), Unit: expr.LimitTimeSecond, Over: true, Burst: uint32(max(1, rate))}
}

// drops tells how many frames the rules have dropped, by VNI.
func (n *Net) drops() map[uint32]dropped {
	return n.countedBy(n.storm.before, func(vni uint32, a attachment) []string { return countingChains(vni, a.direct != 0) })
}

// countedBy adds to what was counted before what the rules of chains have.
func (n *Net) countedBy(before map[uint32]dropped, chains func(vni uint32, a attachment) []string) map[uint32]dropped {
	all := make(map[uint32]dropped)
	maps.Copy(all, before)
	if n.storm.rules == "" {
		return all
	}
	n.mu.RLock()
	segments := maps.Clone(n.segments)
	n.mu.RUnlock()
	t := n.table()
	for vni, a := range segments {
		for _, chain := range chains(vni, a) {
			_ = n.withRules(func(c *nftables.Conn) error {
				rules, err := c.GetRules(t, &nftables.Chain{Name: chain, Table: t})
				sum := all[vni]
				for _, r := range rules {
					sum[reasonOf(r)] += counted(r)
				}
				all[vni] = sum
				return err // somebody has flushed the ruleset; the next Apply makes it anew
			})
		}
	}
	return all
}

// countingChains are those of a segment that count what they drop.
func countingChains(vni uint32, direct bool) (names []string) {
	add := func(prefix string, classes []class) {
		names = append(names, fmt.Sprintf("%s%d", prefix, vni))
		for _, class := range classes {
			names = append(names, fmt.Sprintf("%s%d-%s", prefix, vni, class.name))
		}
	}
	add(lanPrefix, lanClasses())
	if direct {
		for _, prefix := range []string{leavePrefix, arrivePrefix} {
			add(prefix, classes)
			names = append(names, fmt.Sprintf("%s%d%s", prefix, vni, udpSuffix))
		}
	}
	return names
}

// keepDrops saves what the rules have counted when others replace them. Those that could not be
// replaced go on counting.
func (n *Net) keepDrops(replace func() error) error {
	drops, vlans := n.drops(), n.otherVLANs()
	if err := replace(); err != nil {
		return err
	}
	n.storm.before, n.storm.vlans = drops, vlans
	return nil
}

// tableThere tells whether a table is still there: "nft flush ruleset" takes
// it away, and so do tools that reload a firewall.
func (n *Net) tableThere(wanted *nftables.Table) (there bool) {
	err := n.withRules(func(c *nftables.Conn) error {
		tables, err := c.ListTablesOfFamily(wanted.Family)
		there = slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == wanted.Name })
		return err
	})
	return err == nil && there
}

// removeRules removes our table, if it is there.
func (n *Net) removeRules() error {
	n.storm.rules = ""
	return n.removeTable(n.table())
}

// removeTable removes a table, if it is there.
func (n *Net) removeTable(t *nftables.Table) error {
	if !n.tableThere(t) {
		return nil
	}
	c, err := n.nft()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	c.DelTable(t)
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing table %s: %w", t.Name, err)
	}
	return nil
}
