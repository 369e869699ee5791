package l2ext

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
)

var vm = MAC{0x52, 0x54, 0, 0, 0, 9}

func rec(seq uint64, cause announce.Cause, site, job string) announce.Record {
	return announce.Record{MAC: vm, Seq: seq, Cause: cause, Site: site, Job: job}
}

func show(t *table) string {
	b := t.byMAC[vm]
	if b == nil {
		return "none"
	}
	return fmt.Sprintf("%s %d %s%s", b.rec.Site, b.rec.Seq, map[announce.Cause]string{1: "learned", 2: "moved", 3: "withdrawn"}[b.rec.Cause],
		strings.TrimSuffix(" "+b.rec.Job, " "))
}

// TestTable tells the rules of precedence by example, at site "b".
func TestTable(t *testing.T) {
	type step struct {
		at   time.Duration // after the step before
		do   func(now time.Time, t *table) verdict
		want verdict
		then string
	}
	accept := func(r announce.Record) func(time.Time, *table) verdict {
		return func(now time.Time, t *table) verdict { return t.accept(now, r.Site, r) }
	}
	see := func(now time.Time, t *table) verdict { return t.see(now, vm, false) }
	seeAnnounced := func(now time.Time, t *table) verdict { return t.see(now, vm, true) }
	move := func(site, job string, step uint64) func(time.Time, *table) verdict {
		return func(now time.Time, t *table) verdict { t.move(now, vm, site, job, step); return changed }
	}
	const L, M, W = announce.Learned, announce.Moved, announce.Withdrawn
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"seen here", []step{{0, see, changed, "b 1 learned"}, {0, see, nothing, "b 1 learned"}}},
		{"told by a peer", []step{{0, accept(rec(7, L, "a", "")), changed, "a 7 learned"}, {0, accept(rec(7, L, "a", "")), nothing, "a 7 learned"}}},
		{"lower number is stale", []step{
			{0, accept(rec(7, L, "a", "")), changed, "a 7 learned"},
			{0, accept(rec(6, M, "c", "j")), stale, "a 7 learned"}}},
		{"equal number, lower site wins", []step{
			{0, accept(rec(7, L, "c", "")), changed, "c 7 learned"},
			{0, accept(rec(7, L, "a", "")), changed, "a 7 learned"},
			{0, accept(rec(7, L, "c", "")), stale, "a 7 learned"}}},
		{"equal number, a job wins", []step{
			{0, accept(rec(7, L, "a", "")), changed, "a 7 learned"},
			{0, accept(rec(7, M, "c", "j")), changed, "c 7 moved j"},
			{0, accept(rec(7, L, "a", "")), stale, "c 7 moved j"}}},
		{"moved here by itself", []step{
			{0, accept(rec(7, L, "a", "")), changed, "a 7 learned"},
			{time.Second, see, changed, "b 8 learned"}}},
		{"frames in flight prove nothing", []step{
			{0, accept(rec(7, L, "a", "")), changed, "a 7 learned"},
			{settleTime - 1, see, nothing, "a 7 learned"},
			{0, seeAnnounced, changed, "b 8 learned"}}},
		{"a job beats the data path here", []step{
			{0, see, changed, "b 1 learned"},
			{0, move("a", "j", 1), changed, "a 2 moved j"},
			{jobFence - 1, seeAnnounced, fenced, "a 2 moved j"},
			{1, seeAnnounced, changed, "b 3 learned"}}},
		{"a job beats the data path elsewhere", []step{
			{0, accept(rec(2, M, "a", "j")), changed, "a 2 moved j"},
			{jobFence - 1, accept(rec(5, L, "c", "")), raised, "a 6 moved j"},
			{jobFence, accept(rec(7, L, "c", "")), changed, "c 7 learned"}}},
		{"the owner's own news pass the fence", []step{
			{0, accept(rec(2, M, "a", "j")), changed, "a 2 moved j"},
			{1, accept(rec(3, L, "a", "")), changed, "a 3 learned"}}},
		{"flip and back", []step{
			{0, see, changed, "b 1 learned"},
			{0, move("a", "j", 1), changed, "a 2 moved j"},
			{0, move("b", "j", 2), changed, "b 4 moved j"},
			{0, accept(rec(3, M, "a", "j")), stale, "b 4 moved j"}}},
		{"withdrawn", []step{
			{0, accept(rec(7, L, "a", "")), changed, "a 7 learned"},
			{0, accept(rec(8, W, "a", "")), changed, "a 8 withdrawn"},
			{0, accept(rec(7, L, "a", "")), stale, "a 8 withdrawn"},
			{0, see, changed, "b 9 learned"}}},
		{"withdrawn unknown", []step{{0, accept(rec(8, W, "a", "")), nothing, "none"}}},
		{"withdrawn is forgotten", []step{
			{0, accept(rec(7, L, "a", "")), changed, "a 7 learned"},
			{0, accept(rec(8, W, "a", "")), changed, "a 8 withdrawn"},
			{keepWithdraw + 1, func(now time.Time, t *table) verdict { t.expire(now); return nothing }, nothing, "none"}}},
		{"silent host is withdrawn", []step{
			{0, see, changed, "b 1 learned"},
			{forgetAfter, func(now time.Time, t *table) verdict { t.expire(now); return nothing }, nothing, "b 1 learned"},
			{1, func(now time.Time, t *table) verdict { t.expire(now); return nothing }, nothing, "b 2 withdrawn"}}},
		{"remote silent host stays", []step{
			{0, accept(rec(7, L, "a", "")), changed, "a 7 learned"},
			{10 * forgetAfter, func(now time.Time, t *table) verdict { t.expire(now); return nothing }, nothing, "a 7 learned"}}},
		{"two hosts with one MAC", []step{
			{0, see, changed, "b 1 learned"},
			{2 * time.Second, accept(rec(2, L, "a", "")), changed, "a 2 learned"},
			{2 * time.Second, see, changed, "b 3 learned"},
			{2 * time.Second, accept(rec(4, L, "a", "")), changed, "a 4 learned"},
			{2 * time.Second, see, changed, "b 5 learned"},
			{2 * time.Second, accept(rec(6, L, "a", "")), changed, "a 6 learned"}, // the fifth move
			{2 * time.Second, see, fenced, "a 6 learned"},
			{freezeTime, see, changed, "b 7 learned"}}},
		{"a job thaws", []step{
			{0, see, changed, "b 1 learned"},
			{0, func(now time.Time, t *table) verdict { t.byMAC[vm].frozen = now.Add(freezeTime); return nothing }, nothing, "b 1 learned"},
			{0, move("a", "j", 1), changed, "a 2 moved j"},
			{jobFence, see, changed, "b 3 learned"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab, now := newTable("b"), time.Unix(1000, 0)
			for i, s := range tt.steps {
				now = now.Add(s.at)
				if got := s.do(now, tab); got != s.want || show(tab) != s.then {
					t.Fatalf("step %d: verdict %d, now %s; want %d, %s", i, got, show(tab), s.want, s.then)
				}
				checkSum(t, tab)
			}
		})
	}
}

// checkSum compares the running digest with one made anew.
func checkSum(t *testing.T, tab *table) {
	t.Helper()
	var sum uint64
	var live uint32
	for _, b := range tab.byMAC {
		if !b.withdrawn() {
			sum += b.rec.Hash()
			live++
		}
	}
	if sum != tab.sum || live != tab.live {
		t.Errorf("digest is %d, %x, should be %d, %x", tab.live, tab.sum, live, sum)
	}
}

func TestNote(t *testing.T) {
	tab, now := newTable("b"), time.Unix(1000, 0)
	ip := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	says := func(i int) ether.Claim { return ether.Claim{IP: ip(i)} }
	if rs := tab.note(now, vm, says(1)); rs != nil {
		t.Error("an address of an unknown host was noted")
	}
	tab.see(now, vm, false)
	for i := range announce.MaxIPs + 3 {
		if rs := tab.note(now, vm, says(i)); len(rs) != 1 || tab.note(now, vm, says(i)) != nil || !tab.knows(vm, says(i)) {
			t.Errorf("address %d: records %v", i, rs)
		}
		checkSum(t, tab)
	}
	if r := tab.byMAC[vm].rec; len(r.IPs) != announce.MaxIPs || r.IPs[0] != ip(3) || r.Seq != 1+announce.MaxIPs+3 {
		t.Errorf("noted %+v", r)
	}
	tab.move(now, vm, "a", "j", 1)
	if rs := tab.note(now, vm, says(99)); rs != nil || len(tab.byMAC[vm].rec.IPs) != announce.MaxIPs {
		t.Error("an address of another site's host was noted, or the move lost them")
	}
}

func TestTableIsBounded(t *testing.T) {
	tab, now := newTable("b"), time.Unix(1000, 0)
	for i := range MaxMACs + 10 {
		m := MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}
		if v := tab.see(now, m, false); (v == changed) != (i < MaxMACs) {
			t.Fatalf("MAC %d: verdict %d", i, v)
		}
	}
	if v := tab.accept(now, "a", rec(1, announce.Learned, "a", "")); v != full {
		t.Errorf("verdict %d", v)
	}
}

// TestCompareIsTotal checks that any two records have one order, both ways, and
// that the order has no circles: all sites end with the same record.
func TestCompareIsTotal(t *testing.T) {
	var all []announce.Record
	for _, seq := range []uint64{1, 2} {
		for _, cause := range []announce.Cause{announce.Learned, announce.Moved, announce.Withdrawn} {
			for _, site := range []string{"a", "b"} {
				for _, job := range []string{"", "j"} {
					all = append(all, rec(seq, cause, site, job))
				}
			}
		}
	}
	for _, a := range all {
		for _, b := range all {
			if compare(a, b) != -compare(b, a) || (compare(a, b) == 0) != (a.Hash() == b.Hash()) {
				t.Errorf("%+v and %+v: %d, %d", a, b, compare(a, b), compare(b, a))
			}
			for _, c := range all {
				if compare(a, b) < 0 && compare(b, c) < 0 && compare(a, c) >= 0 {
					t.Errorf("a circle: %+v, %+v, %+v", a, b, c)
				}
			}
		}
	}
}

// TestTablesConverge lets three sites see, move and tell in any order, with
// messages delayed and doubled: when all has been exchanged, all agree.
func TestTablesConverge(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	sites := []string{"a", "b", "c"}
	for round := range 300 {
		now := time.Unix(1000, 0)
		tabs := make(map[string]*table)
		for _, s := range sites {
			tabs[s] = newTable(s)
		}
		for range 60 {
			now = now.Add(time.Duration(rnd.IntN(3000)) * time.Millisecond)
			s := sites[rnd.IntN(3)]
			switch rnd.IntN(6) {
			case 0:
				tabs[s].move(now, vm, sites[rnd.IntN(3)], fmt.Sprintf("j%d", rnd.IntN(3)), 1)
			case 1, 2:
				tabs[s].see(now, vm, rnd.IntN(2) == 0)
			default:
				from := sites[rnd.IntN(3)]
				if b := tabs[from].byMAC[vm]; b != nil {
					tabs[s].accept(now, from, b.rec)
				}
			}
			checkSum(t, tabs[s])
		}
		for range 4 { // everybody tells everybody, as digests make them do
			for _, from := range sites {
				for _, to := range sites {
					if b := tabs[from].byMAC[vm]; b != nil && from != to {
						tabs[to].accept(now, from, b.rec)
					}
				}
			}
		}
		if a, b, c := show(tabs["a"]), show(tabs["b"]), show(tabs["c"]); a != b || b != c {
			t.Fatalf("round %d: %s, %s, %s", round, a, b, c)
		}
	}
}

func TestLimits(t *testing.T) {
	now := time.Unix(1000, 0)
	b := bucket{rate: 10}
	passed := 0
	for range 1000 {
		if b.take(now, 1) {
			passed++
		}
		now = now.Add(10 * time.Millisecond)
	}
	if passed < 109 || passed > 111 { // 10 s, and a burst of one second's worth
		t.Errorf("%d passed", passed)
	}
	if l := (Limits{Resolve: 7}).or(defaultLimits); l != (Limits{Resolve: 7, Broadcast: 50, Multicast: 500, Unknown: 500}) {
		t.Errorf("limits are %+v", l)
	}
}
