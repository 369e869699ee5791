package l2ext

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// TestToldGroups: only groups that hosts join are noted, whatever a site tells.
func TestToldGroups(t *testing.T) {
	m, now, good := newMembers(), time.Unix(1000, 0), MAC{0x33, 0x33, 0, 1, 2, 3}
	m.told(now, "b", announce.Message{Groups: []announce.MAC{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {1, 0, 0x5e, 0, 0, 1}, announce.MAC(good), {0x33, 0x33, 0xff, 1, 2, 3}}})
	if got := slices.Collect(maps.Keys(m.byGroup)); !slices.Equal(got, []MAC{good}) {
		t.Errorf("noted: %v", got)
	}
}

// TestGroupsOfMessages: what a message may name is what is not for all on the link.
// Package announce cannot ask package ether.
func TestGroupsOfMessages(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	begin := [][]byte{{1, 0, 0x5e}, {0x33, 0x33}, {0x33, 0x33, 0}, {0x33, 0x33, 0xff}, {1, 0x80, 0xc2}, {}}
	for range 10000 {
		var g MAC
		for i := range g {
			g[i] = byte(r.IntN(256)) * byte(r.IntN(2)) // zeros make the difference
		}
		copy(g[:], begin[r.IntN(len(begin))])
		_, err := announce.Message{Kind: announce.Members, VNI: 1, Groups: []announce.MAC{announce.MAC(g)}}.Append(nil)
		want := g.Group() && !g.LinkLocalGroup() && !(g[0] == 1 && g[3] >= 0x80) // the last is no IPv4
		if (err == nil) != want {
			t.Errorf("seed %d: %v: %v", seed, g, err)
		}
	}
}

// TestGroupsOfOneSite: a site that names more groups than are noted gets all multicast. Another one gets what it listens to, and
// no more.
func TestGroupsOfOneSite(t *testing.T) {
	m, now, sites := newMembers(), time.Unix(1000, 0), []string{"b", "c"}
	group := func(n int) MAC { return MAC{1, 0, 0x5e, 1, byte(n >> 8), byte(n)} }
	want := func(when string, at time.Time, n int, want ...string) {
		t.Helper()
		if got := m.listens(at, group(n), sites); !slices.Equal(got, want) {
			t.Errorf("%s: group %d goes to %v, want %v", when, n, got, want)
		}
	}
	m.mu.Lock()
	m.queriers[0]["a"], m.asking[0] = now.Add(time.Hour), now.Add(-answerTime)
	for n := range 2 * maxMembers {
		m.join(now, group(n), "b")
	}
	later := now.Add(time.Minute)
	m.join(later, group(3), "c")
	m.join(later, group(3*maxMembers), "c")
	m.mu.Unlock()
	want("crowded", later, 2, "b")
	want("crowded", later, 3, "b", "c")
	want("crowded", later, 3*maxMembers, "b", "c")
	want("crowded", later, 3*maxMembers+1, "b")
	if n := len(m.byGroup); n != maxMembers {
		t.Errorf("%d groups are noted", n)
	}
	later = now.Add(3 * memberTime) // all that is over
	m.mu.Lock()
	m.join(later, group(5), "b")
	for range 2 { // in it already
		m.join(later, group(5), "b")
	}
	m.mu.Unlock()
	want("again", later, 5, "b")
	want("again", later, 6)
	m.mu.Lock()
	for n := range 2 * maxMembers { // two that want all share it
		m.join(later, group(n), "b")
	}
	for n := range 2 * maxMembers {
		m.join(later, group(10*maxMembers+n), "c")
	}
	if b, c := m.groups["b"], m.groups["c"]; b+c != maxMembers || max(b, c)-min(b, c) > 2 || len(m.byGroup) != maxMembers {
		t.Errorf("of %d groups b has %d, c %d", len(m.byGroup), b, c)
	}
	m.mu.Unlock()
	m.told(later, "b", announce.Message{})
	if n := m.groups["b"]; n != 0 {
		t.Errorf("%d groups are counted of a site that is in none", n)
	}
}
