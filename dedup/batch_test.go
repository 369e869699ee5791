package dedup

import (
	"math/rand/v2"
	"testing"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// Strong settings have larger batches, and none is larger than a message may be.
func TestBatchSize(t *testing.T) {
	for _, c := range []struct {
		set    Setting
		pages  int // of literals
		blanks int // of zero pages
	}{{Setting{Codec: Zstd, Level: 3}, 128, 512}, {Setting{Codec: LZ4, Level: 9}, 128, 512}, {Setting{Codec: Zstd, Level: 7}, 256, 768}, {Setting{Codec: Press}, 256, 768}} {
		rng := rand.New(rand.NewPCG(7, 7))
		fill := func(p func() []byte) int {
			e := NewStore(Config{Budget: 32 << 20}).NewEncoder(EncoderConfig{Setting: c.set})
			for n := 1; ; n++ {
				if e.Add(fullPage(1, uint64(n), p())) {
					return n
				}
			}
		}
		zero := make([]byte, page.Size)
		if got := fill(func() []byte { return randomPage(rng) }); got != c.pages {
			t.Errorf("%v: a batch of %d new pages, want %d", c.set, got, c.pages)
		}
		if got := fill(func() []byte { return zero }); got < c.blanks*99/100 || got > c.blanks {
			t.Errorf("%v: a batch of %d zero pages, want %d less their heads", c.set, got, c.blanks)
		}
		if _, raw := c.set.BatchSize(); raw+page.MaxItem > record.MaxRaw {
			t.Errorf("%v: a batch of %d bytes and an item is over %d", c.set, raw, record.MaxRaw)
		}
	}
}

// TestCodecs: what any codec has compressed comes back.
func TestCodecs(t *testing.T) {
	items := guest(1, 200)
	for _, s := range settings {
		t.Run(s.name, func(t *testing.T) {
			w := newWire(t, NewStore(Config{}), NewStore(Config{}), EncoderConfig{Setting: s.set})
			w.add(items...)
			w.add(changeSome(items, 1, 1)...)
			w.close()
		})
	}
}
