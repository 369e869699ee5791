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
