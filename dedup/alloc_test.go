//go:build !race

package dedup

import (
	"runtime"
	"testing"
)

// The race detector allocates by itself, and makes sync.Pool forget.

// TestAllocations: the path allocates for batches and segments, not for
// pages.
func TestAllocations(t *testing.T) {
	items := corpus(t)
	items = items[:min(len(items), 16000)]
	pages := float64(len(items))
	from, to := NewStore(Config{}), NewStore(Config{})
	var msgs [][]byte
	e, d := from.NewEncoder(EncoderConfig{}), to.NewDecoder(DecoderConfig{})
	var dst []byte
	for _, round := range []string{"new", "known", "rewritten"} {
		in := items
		if round == "rewritten" {
			in = rewrite(items, 1)
		}
		n := mallocs(func() { msgs, _ = encodeAll(t, e, in, true) })
		if got := n / pages; got > 0.05 {
			t.Errorf("%s: %.3f allocations per page encoded", round, got)
		}
		n = mallocs(func() { dst = decodeAll(t, d, dst, msgs) })
		if got := n / pages; got > 0.05 {
			t.Errorf("%s: %.3f allocations per page decoded", round, got)
		}
	}
}

// mallocs counts the allocations of one run of f. testing.AllocsPerRun would
// run it twice, and the second run would meet known content.
func mallocs(f func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs - before.Mallocs)
}
