package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// What the gateway does with frames in mode secure, the kernel has to do in mode
// direct:
//
//	table bridge longhaul-lhtun0-owner {      a MAC sends from the site that owns it, and from no other
//		set away100 { type ether_addr }       MACs of other sites
//		set twins100 { type ether_addr; timeout 10s }
//		chain forward { type filter hook forward priority filter + 1   a storm has met its brake before
//			ether type 0x88b5 ether daddr & ff:ff:: == 0e:4c:: jump echoes
//			oif vmap { lhdx100 : jump owner100 } }   so that a frame costs the same with any number of segments
//		chain owner100 {
//			iif != lhvx100 ether saddr @away100 update @twins100 { ether saddr } counter drop }
//		chain echoes {                        gateways ask each other, and nobody else hears or says a word of it
//			iif lhvx100 oif lhdx100 return
//			iif lhdx100 oif lhvx100 return
//			iif or oif is lhvx100 or lhdx100: drop } }
//	table netdev longhaul-lhtun0-detour {     what arrives for a host that has left goes on to where it is
//		set left100 { type ether_addr; timeout 5s }
//		set coming100 { type ether_addr }     and for one that a job is about to bring here, waits in the gateway
//		chain s100 { type filter hook ingress device lhdx100 priority filter
//			ether daddr @left100 dup to lhdx100 drop
//			ether daddr @coming100 dup to lhvx100 drop } }
//	table inet longhaul-lhtun0-underlay {     VXLAN comes from the machines of the segment's sites, and from no other
//		set peers4 { type ipv4_addr . mark }  with the VNI
//		chain input { type filter hook input priority raw
//			udp dport 14790 ip saddr . @th,96,32 != @peers4 drop } }
//
// The tables are replaced when the devices change; otherwise only what is in
// the sets is.

const (
	ownerTable    = "-owner"
	detourTable   = "-detour"
	underlayTable = "-underlay"

	// twinMemory is how long the kernel remembers a foreign sender for us to
	// ask; we do, every second.
	twinMemory = 10 * time.Second

	// maxElements of one message: its attributes may have 64 KiB, and an element
	// takes 40 bytes at most.
	maxElements = 1000
)

// guard is what was programmed.
type guard struct {
	key    string                             // of the tables: the same devices need no new ones
	away   map[uint32]map[l2ext.MAC]bool      // by VNI
	coming map[uint32]map[l2ext.MAC]bool      // by VNI
	groups map[uint32]map[l2ext.MAC]bool      // by VNI; of multicast, that go anywhere
	left   map[uint32]map[l2ext.MAC]time.Time // by VNI; since when
	peers  map[guarded]bool
}

// guarded is a machine that may send frames of a segment.
type guarded struct {
	addr string // its bytes
	vni  uint32
}

// guardDirect makes the tables for the wished segments, and fills the sets.
func (n *Net) guardDirect(wishes []l2ext.Wish) error {
	var key strings.Builder
	var direct []l2ext.Wish
	for _, w := range wishes {
		if a, ok := n.attachment(w.VNI); ok && w.Direct != nil && a.direct != 0 {
			fmt.Fprintf(&key, "%d %d %d %s\n", w.VNI, a.port, a.direct, w.Policy.Multicast)
			direct = append(direct, w)
		}
	}
	if n.guard.key != "" && !n.guardThere() {
		n.guard = guard{}
	}
	if len(direct) == 0 {
		return n.removeGuard() // one that a gateway before us has left, too
	}
	if n.guard.key != key.String() {
		n.guard = guard{} // a new table has nothing
	}
	return n.fillGuard(key.String(), direct)
}

func (n *Net) guardTable(what string) *nftables.Table {
	family := map[string]nftables.TableFamily{
		ownerTable: nftables.TableFamilyBridge, detourTable: nftables.TableFamilyNetdev, underlayTable: nftables.TableFamilyINet,
	}[what]
	return &nftables.Table{Family: family, Name: tablePrefix + n.cfg.Tun + what}
}

func guardTables() []string { return []string{ownerTable, detourTable, underlayTable} }

// guardThere tells whether all tables are there.
func (n *Net) guardThere() bool {
	for _, what := range guardTables() {
		if !n.tableThere(n.guardTable(what)) {
			return false
		}
	}
	return true
}

func (n *Net) removeGuard() error {
	n.guard = guard{}
	var errs []error
	for _, what := range guardTables() {
		errs = append(errs, n.removeTable(n.guardTable(what)))
	}
	return errors.Join(errs...)
}

// addGuard makes all tables anew, with empty sets.
func (n *Net) addGuard(c *nftables.Conn, direct []l2ext.Wish) error {
	made := make(map[string]*nftables.Table)
	for _, what := range guardTables() {
		c.DelTable(c.AddTable(n.guardTable(what))) // so that there is one to delete
		made[what] = c.AddTable(n.guardTable(what))
	}
	owner, detour, underlay := made[ownerTable], made[detourTable], made[underlayTable]
	echoes := c.AddChain(&nftables.Chain{Name: "echoes", Table: owner})
	var jumps []nftables.SetElement
	for _, w := range direct {
		a, _ := n.attachment(w.VNI)
		own := c.AddChain(&nftables.Chain{Name: ownerChain(w.VNI), Table: owner})
		if err := errors.Join(addOwner(c, own, w.VNI, a), addGroups(c, own, w), addDetour(c, detour, w.VNI, a)); err != nil {
			return err
		}
		guardEchoes(c, echoes, a)
		jumps = append(jumps, jumpFor(a.direct, own.Name))
	}
	after := nftables.ChainPriorityRef(*nftables.ChainPriorityFilter + 1)
	forward := portHook{name: "forward", at: nftables.ChainHookForward, priority: after, port: expr.MetaKeyOIF, first: toEchoes(echoes), jumps: jumps}
	return errors.Join(addHook(c, owner, forward), addUnderlay(c, underlay))
}

// ownerChain is the chain of table owner that frames pass which are about to leave a
// segment by the underlay.
func ownerChain(vni uint32) string { return fmt.Sprintf("owner%d", vni) }

func (n *Net) attachment(vni uint32) (attachment, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	a, ok := n.segments[vni]
	return a, ok
}

// macSet is a set of MACs of a segment.
func macSet(t *nftables.Table, name string, vni uint32) *nftables.Set {
	return named(&nftables.Set{Table: t, Name: fmt.Sprintf("%s%d", name, vni), KeyType: nftables.TypeEtherAddr})
}

func timed(s *nftables.Set, d time.Duration) *nftables.Set {
	s.HasTimeout, s.Timeout = true, d
	return s
}

func twins(t *nftables.Table, vni uint32) *nftables.Set {
	s := timed(macSet(t, "twins", vni), twinMemory)
	s.Dynamic = true
	return s
}

func addOwner(c *nftables.Conn, own *nftables.Chain, vni uint32, a attachment) error {
	away, seen := macSet(own.Table, "away", vni), twins(own.Table, vni)
	if err := errors.Join(c.AddSet(away, nil), c.AddSet(seen, nil)); err != nil {
		return err
	}
	c.AddRule(&nftables.Rule{Table: own.Table, Chain: own, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: 1}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: ifindex(a.port)},
		load(expr.PayloadBaseLLHeader, 6, 6),
		&expr.Lookup{SourceRegister: 1, SetName: away.Name, SetID: away.ID},
		&expr.Dynset{SrcRegKey: 1, SetName: seen.Name, SetID: seen.ID, Operation: unix.NFT_DYNSET_OP_UPDATE},
		&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
	}})
	return nil
}

func addDetour(c *nftables.Conn, t *nftables.Table, vni uint32, a attachment) error {
	chain := c.AddChain(&nftables.Chain{
		Name: fmt.Sprintf("s%d", vni), Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Device: directName(vni),
	})
	left, coming := timed(macSet(t, "left", vni), l2ext.MoveGrace), macSet(t, "coming", vni)
	for _, way := range []struct {
		set *nftables.Set
		to  int
	}{{left, a.direct}, {coming, a.port}} {
		if err := c.AddSet(way.set, nil); err != nil {
			return err
		}
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			load(expr.PayloadBaseLLHeader, 0, 6),
			&expr.Lookup{SourceRegister: 1, SetName: way.set.Name, SetID: way.set.ID},
			&expr.Immediate{Register: 1, Data: ifindex(way.to)},
			&expr.Dup{RegDev: 1, IsRegDevSet: true},
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	return nil
}

// The registers of 4 bytes, of which a key of several parts is made
// (include/uapi/linux/netfilter/nf_tables.h).
const reg32 = unix.NFT_REG32_00

func peerSet(t *nftables.Table, v6 bool) *nftables.Set {
	s := &nftables.Set{Table: t, Name: "peers4", Concatenation: true, KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeMark)}
	if v6 {
		s.Name, s.KeyType = "peers6", nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeMark)
	}
	return named(s)
}

func addUnderlay(c *nftables.Conn, t *nftables.Table) error {
	input := c.AddChain(&nftables.Chain{Name: "input", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRaw})
	for _, ip := range []struct {
		v6         bool
		proto      byte
		at, length uint32 // of the source address
	}{{false, unix.NFPROTO_IPV4, 12, 4}, {true, unix.NFPROTO_IPV6, 8, 16}} {
		set := peerSet(t, ip.v6)
		if err := c.AddSet(set, nil); err != nil {
			return err
		}
		c.AddRule(&nftables.Rule{Table: t, Chain: input, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal(ip.proto),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal(unix.IPPROTO_UDP),
			load(expr.PayloadBaseTransportHeader, 2, 2), equal(directPort>>8, directPort&0xff),
			&expr.Payload{DestRegister: reg32, Base: expr.PayloadBaseNetworkHeader, Offset: ip.at, Len: ip.length},
			&expr.Payload{DestRegister: reg32 + ip.length/4, Base: expr.PayloadBaseTransportHeader, Offset: 12, Len: 4},
			&expr.Lookup{SourceRegister: reg32, SetName: set.Name, SetID: set.ID, Invert: true},
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	return nil
}

// fillGuard makes the sets hold what is wished, and before that the tables where
// there are none for these devices, all in one transaction.
func (n *Net) fillGuard(key string, direct []l2ext.Wish) error {
	next := newGuard(key)
	if n.guard.left != nil {
		next.left = n.guard.left
	}
	for _, w := range direct {
		a, _ := n.attachment(w.VNI)
		next.wish(w, a.left)
	}
	err := n.withRules(func(c *nftables.Conn) error {
		var errs []error
		if n.guard.key == "" {
			errs = append(errs, n.addGuard(c, direct))
		}
		for _, w := range direct {
			errs = append(errs,
				follow(c, macSet(n.guardTable(ownerTable), "away", w.VNI), n.guard.away[w.VNI], next.away[w.VNI], macKey),
				follow(c, macSet(n.guardTable(ownerTable), "groups", w.VNI), n.guard.groups[w.VNI], next.groups[w.VNI], macKey),
				follow(c, macSet(n.guardTable(detourTable), "coming", w.VNI), n.guard.coming[w.VNI], next.coming[w.VNI], macKey))
		}
		for _, v6 := range []bool{false, true} {
			errs = append(errs, follow(c, peerSet(n.guardTable(underlayTable), v6), n.guard.machines(v6), next.machines(v6), guarded.key))
		}
		return errors.Join(append(errs, c.Flush())...)
	})
	if err != nil {
		n.guard = guard{} // what the sets hold is not known: the next Apply makes them anew
		return fmt.Errorf("programming nftables: %w", err)
	}
	n.guard = next
	return nil
}

func newGuard(key string) guard {
	return guard{
		key: key, peers: make(map[guarded]bool), left: make(map[uint32]map[l2ext.MAC]time.Time),
		away: make(map[uint32]map[l2ext.MAC]bool), coming: make(map[uint32]map[l2ext.MAC]bool), groups: make(map[uint32]map[l2ext.MAC]bool),
	}
}

// wish adds what a segment needs, and what has stayed of it.
func (g *guard) wish(w l2ext.Wish, stay left) {
	away, coming := make(map[l2ext.MAC]bool), make(map[l2ext.MAC]bool)
	maps.Copy(away, stay.away)
	for _, e := range w.Entries {
		set(away, e.MAC, e.Site != vxlan.Self)
		set(coming, e.MAC, e.Coming)
	}
	g.away[w.VNI], g.coming[w.VNI], g.groups[w.VNI] = away, coming, groupsOf(w.Direct.Listeners)
	for _, s := range w.Direct.Sites {
		g.peers[guarded{string(s.Addr.AsSlice()), w.VNI}] = true
	}
	for addr, keeps := range stay.addrs {
		if keeps {
			g.peers[guarded{string(addr.AsSlice()), w.VNI}] = true
		}
	}
}

// machines are those of a version of IP.
func (g *guard) machines(v6 bool) map[guarded]bool {
	some := maps.Clone(g.peers)
	maps.DeleteFunc(some, func(p guarded, _ bool) bool { return (len(p.addr) > 4) != v6 })
	return some
}

func macKey(m l2ext.MAC) []byte { return m[:] }

// key is the element: the address, and the VNI as it stands in a packet.
func (p guarded) key() []byte { return binary.BigEndian.AppendUint32([]byte(p.addr), p.vni<<8) }

// follow adds to a set what is new and takes out what is not wished any more.
func follow[K comparable](c *nftables.Conn, s *nftables.Set, have, want map[K]bool, key func(K) []byte) error {
	var add, del []nftables.SetElement
	for k := range want {
		if !have[k] {
			add = append(add, nftables.SetElement{Key: key(k)})
		}
	}
	for k := range have {
		if !want[k] {
			del = append(del, nftables.SetElement{Key: key(k)})
		}
	}
	return errors.Join(inParts(add, s, c.SetAddElements), inParts(del, s, c.SetDeleteElements))
}

func inParts(es []nftables.SetElement, s *nftables.Set, do func(*nftables.Set, []nftables.SetElement) error) error {
	for len(es) > 0 {
		k := min(len(es), maxElements)
		if err := do(s, es[:k]); err != nil {
			return err
		}
		es = es[k:]
	}
	return nil
}

// guardEntries has the sets follow a change of entries, in the order of what is
// urgent: first what has left goes on.
func (n *Net) guardEntries(vni uint32, entries []l2ext.Entry) error {
	if n.guard.key == "" || n.guard.away[vni] == nil {
		return nil
	}
	now := time.Now()
	changes := n.guard.changes(now, vni, entries)
	err := n.withRules(func(c *nftables.Conn) error {
		owner, detour := n.guardTable(ownerTable), n.guardTable(detourTable)
		left, away, coming := timed(macSet(detour, "left", vni), l2ext.MoveGrace), macSet(owner, "away", vni), macSet(detour, "coming", vni)
		return errors.Join(
			inParts(changes.left, left, c.SetAddElements), inParts(changes.back, left, c.SetDeleteElements),
			inParts(changes.away, away, c.SetAddElements), inParts(changes.notAway, away, c.SetDeleteElements),
			inParts(changes.coming, coming, c.SetAddElements), inParts(changes.notComing, coming, c.SetDeleteElements),
			c.Flush())
	})
	if err != nil {
		n.guard = guard{}
		return fmt.Errorf("programming nftables: %w", err)
	}
	return nil
}

// guardChanges are what is to be added to the sets, or taken out.
type guardChanges struct {
	left, back, away, notAway, coming, notComing []nftables.SetElement
}

// changes notes entries, and tells what they change.
func (g *guard) changes(now time.Time, vni uint32, entries []l2ext.Entry) (c guardChanges) {
	if g.left[vni] == nil {
		g.left[vni] = make(map[l2ext.MAC]time.Time)
	}
	left, away, coming := g.left[vni], g.away[vni], g.coming[vni]
	maps.DeleteFunc(left, func(_ l2ext.MAC, at time.Time) bool { return now.Sub(at) > l2ext.MoveGrace })
	for _, e := range entries {
		el := nftables.SetElement{Key: e.MAC[:]}
		_, sentOn := left[e.MAC]
		switch here := e.Site == 0 || e.Site == vxlan.Self; {
		case e.Left:
			c.left = append(c.left, el)
			left[e.MAC] = now
		case here && sentOn: // added once more, as one that has just expired cannot be deleted
			c.left, c.back = append(c.left, el), append(c.back, el)
			delete(left, e.MAC)
		}
		if is := e.Site != 0 && e.Site != vxlan.Self; is != away[e.MAC] {
			c.away, c.notAway = put(is, el, c.away, c.notAway)
			set(away, e.MAC, is)
		}
		if e.Coming != coming[e.MAC] {
			c.coming, c.notComing = put(e.Coming, el, c.coming, c.notComing)
			set(coming, e.MAC, e.Coming)
		}
	}
	return c
}

func put(add bool, e nftables.SetElement, to, from []nftables.SetElement) (_, _ []nftables.SetElement) {
	if add {
		return append(to, e), from
	}
	return to, append(from, e)
}

func set(m map[l2ext.MAC]bool, mac l2ext.MAC, is bool) {
	if is {
		m[mac] = true
	} else {
		delete(m, mac)
	}
}

// foreign is how many frames the kernel has dropped because their source is
// another site's.
func (n *Net) foreign(vni uint32) (dropped uint64) {
	t := n.guardTable(ownerTable)
	var rules []*nftables.Rule
	err := n.withRules(func(c *nftables.Conn) (err error) {
		rules, err = c.GetRules(t, &nftables.Chain{Name: ownerChain(vni), Table: t})
		return err
	})
	if err != nil {
		return 0 // somebody has flushed the ruleset; the next Apply makes it anew
	}
	for _, r := range rules {
		dropped += counted(r)
	}
	return dropped
}

// counted is what the counters of a rule say.
func counted(r *nftables.Rule) (packets uint64) {
	for _, e := range r.Exprs {
		if k, ok := e.(*expr.Counter); ok {
			packets += k.Packets
		}
	}
	return packets
}

// twinsOf are the MACs of other sites that have sent from LAN ports of a segment
// in the last seconds.
func (n *Net) twinsOf(vni uint32) (macs []l2ext.MAC) {
	var es []nftables.SetElement
	err := n.withRules(func(c *nftables.Conn) (err error) {
		es, err = c.GetSetElements(twins(n.guardTable(ownerTable), vni))
		return err
	})
	if err != nil {
		return nil // likewise
	}
	for _, e := range es {
		if mac := (l2ext.MAC{}); len(e.Key) >= len(mac) {
			macs = append(macs, l2ext.MAC(e.Key[:len(mac)]))
		}
	}
	return macs
}
