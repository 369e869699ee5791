package dedup

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// fillIndex puts n random pages into a table that was made for them, or nearly
// outgrown, and tells how many of every sixteenth it has lost, and its bytes
// per page, with the 8 of the fingerprint that the page's segment has in memory.
func fillIndex(n, room int) (lost int, bytes float64) {
	x := newIndexTable(room)
	var wg sync.WaitGroup
	var missing atomic.Int64
	const parts = 2
	for part := range parts {
		wg.Go(func() { missing.Add(int64(fillPart(x, n/parts, part))) })
	}
	wg.Wait()
	return int(missing.Load()), 8 + float64(len(x.slots)*8)/float64(n)
}

func fillPart(x *indexTable, n, part int) (lost int) {
	page := func(i int) handle { return handle(part*n + i + 1) }
	rng := rand.New(rand.NewPCG(1, uint64(part)))
	for i := range n {
		x.put(rng.Uint64(), page(i))
	}
	rng = rand.New(rand.NewPCG(1, uint64(part)))
	for i := range n {
		h := rng.Uint64()
		if i%16 > 0 {
			continue
		}
		first, second := x.candidates(h)
		hit := false
		for j := range bucket {
			hit = hit || handle(first[j].Load()) == page(i) || handle(second[j].Load()) == page(i)
		}
		if !hit {
			lost++
		}
	}
	return lost
}

func TestIndexLosesNothing(t *testing.T) {
	n := 1 << 20
	if underRace {
		n = 1 << 18 // the Makefile runs it in full without
	}
	for _, room := range []int{n, n * leastSlots / roomySlots} {
		lost, bytes := fillIndex(n, room)
		t.Logf("%.1f bytes per page, %d of %d lost", bytes, lost, n/16)
		if lost > n/16/2000 || bytes > 24 { // 1 of 8000 shares half of its fingerprint with another
			t.Errorf("%d of %d pages lost, at %.1f bytes per page", lost, n/16, bytes)
		}
	}
}

// TestIndexOf100Million builds the exact index of 10^8 pages, 400 GB of
// content: the fingerprints are in it, the content is aside.
func TestIndexOf100Million(t *testing.T) {
	if underRace {
		t.Skip("takes 2 GB, and six times as much with the race detector; one goroutine has no races")
	}
	t.Parallel()
	lost, bytes := fillIndex(100_000_000, 100_000_000)
	t.Logf("%.1f bytes per page, %d of %d lost", bytes, lost, 100_000_000/16)
	if lost > 1_500_000/16 || bytes > 24 { // 1.2 per cent share half of their fingerprint with another
		t.Errorf("%d of every sixteenth of 10^8 pages lost, at %.1f bytes per page", lost, bytes)
	}
}
