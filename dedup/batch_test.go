package dedup

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// Strong settings have larger batches, and none is larger than a message may be.
func TestBatchSize(t *testing.T) {
	long(t)
	for _, c := range []struct {
		set    Setting
		pages  int // of literals
		blanks int // of zero pages
	}{{Setting{Codec: Zstd, Level: 3}, 128, 512}, {Setting{Codec: LZ4, Level: 9}, 128, 512}, {Setting{Codec: Zstd, Level: 7}, 256, 768}, {Setting{Codec: Press}, 256, 768},
		{Setting{Codec: Fold}, 256, 768}} {
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
	long(t)
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

// A column is coded as its setting says where that is worth it, and comes back.
func TestColumn(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	table := make([]byte, 0, 3*foldLeast)
	for len(table) < cap(table) {
		table = append(table, byte(rng.Uint32()), byte(rng.Uint32()&3), 0, 0, 0x81, 0x88, 0xff, 0xff)
	}
	var noise []byte
	for len(noise) <= foldLeast {
		noise = append(noise, randomPage(rng)...)
	}
	for _, tt := range []struct {
		name string
		set  Setting
		col  []byte
		want record.Codec
	}{
		{"a table", Setting{Codec: Fold}, table, record.Fold},
		{"a short one", Setting{Codec: Fold}, table[:foldLeast-1], record.Zstd},
		{"noise", Setting{Codec: Fold}, noise, record.Raw},
		{"a few bytes", Setting{Codec: Fold}, table[:minColumn-1], record.Raw},
		{"a table under press", Setting{Codec: Press}, table, record.Press},
		{"noise under press", Setting{Codec: Press}, noise, record.Raw},
	} {
		var c compressors
		p, _, err := c.column(tt.col, nil, tt.set, record.MaxPress)
		if err != nil || p.Codec != tt.want || p.Size != len(tt.col) {
			t.Errorf("%s: %d bytes of %s, %v, want %s", tt.name, p.Size, p.Codec, err, tt.want)
		}
		got, err := expand(make([]byte, 0, len(tt.col)), p)
		if err != nil || !bytes.Equal(got, tt.col) {
			t.Errorf("%s: it does not come back: %v", tt.name, err)
		}
	}
}
