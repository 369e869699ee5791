package dedup

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/longhaul-project/longhaul/internal/page"
)

func TestDelta(t *testing.T) {
	base := make([]byte, page.Size)
	fillRandom(base, 1)
	edit := func(f func(p []byte)) []byte {
		p := bytes.Clone(base)
		f(p)
		return p
	}
	for _, tt := range []struct {
		name   string
		target []byte
		max    int // bytes of ops and literals; -1: no delta
	}{
		{"equal", base, 3},
		{"first byte", edit(func(p []byte) { p[0]++ }), 5},
		{"last byte", edit(func(p []byte) { p[4095]++ }), 14},
		{"ten words", edit(func(p []byte) {
			for i := range 10 {
				p[i*400]++
			}
		}), 50},
		{"moved by 13", append(bytes.Clone(base[13:]), base[:13]...), 30},
		{"moved back by 100", append(bytes.Clone(base[3996:]), base[:3996]...), 20},
		{"halves swapped", append(bytes.Clone(base[2048:]), base[:2048]...), 20},
		{"zero but for a word", edit(func(p []byte) { clear(p[8:]) }), -1},
		{"another page", edit(func(p []byte) { fillRandom(p, 2) }), -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d differ
			ops, lits, ok := d.make([]byte("o"), []byte("l"), base, tt.target)
			if string(ops[:1]) != "o" || string(lits[:1]) != "l" {
				t.Fatal("what was there before has changed")
			}
			ops, lits = ops[1:], lits[1:]
			if !ok {
				if tt.max >= 0 || len(ops)+len(lits) > 0 {
					t.Fatalf("no delta; %d bytes left behind", len(ops)+len(lits))
				}
				return
			}
			if n := len(ops) + len(lits); tt.max < 0 || n > tt.max {
				t.Errorf("%d bytes, want at most %d", n, tt.max)
			}
			got, ops, lits, err := patch(nil, append(ops, 1), append(lits, 2), base)
			if err != nil || !bytes.Equal(got, tt.target) || len(ops) != 1 || len(lits) != 1 {
				t.Errorf("patch: %d bytes, %d and %d left over, %v", len(got), len(ops), len(lits), err)
			}
		})
	}
}

// TestDeltas: whatever the pages, a delta makes the target.
func TestDeltas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		rng := rand.New(rand.NewPCG(seed, 1))
		base, target := make([]byte, page.Size), make([]byte, page.Size)
		fillRandom(base, seed)
		letters := byte(rapid.IntRange(1, 4).Draw(t, "letters"))
		for i := range base {
			base[i] %= letters
			if i > 64 {
				base[i] = base[rng.IntN(64)]
			}
		}
		copy(target, base)
		for range rapid.IntRange(0, 30).Draw(t, "edits") {
			at, from, n := rng.IntN(page.Size), rng.IntN(page.Size), rng.IntN(600)
			copy(target[at:min(at+n, page.Size)], base[from:])
			target[rng.IntN(page.Size)] = byte(rng.Uint32())
		}
		var d differ
		ops, lits, ok := d.make(nil, nil, base, target)
		if !ok {
			return
		}
		got, ops, lits, err := patch(nil, ops, lits, base)
		if err != nil || !bytes.Equal(got, target) || len(ops)+len(lits) > 0 {
			t.Fatalf("patch: %v", err)
		}
	})
}

func TestDiffering(t *testing.T) {
	a := make([]byte, page.Size)
	b := make([]byte, page.Size)
	for i := range 512 {
		if got := differing(a, b, 1000); got != i {
			t.Fatalf("%d words differ, got %d", i, got)
		}
		b[i*8+i%8] = 1
	}
	if got := differing(a, b, 100); got < 100 || got > 108 {
		t.Errorf("stopped at %d, not soon after 100", got)
	}
}

// FuzzPatch: no delta makes anything but a page or an error.
func FuzzPatch(f *testing.F) {
	base := make([]byte, page.Size)
	fillRandom(base, 1)
	target := bytes.Clone(base)
	copy(target[100:], base[50:900])
	target[2000]++
	var d differ
	ops, lits, _ := d.make(nil, nil, base, target)
	f.Add(ops, lits)
	f.Add([]byte{0, 0x80, 0x40}, []byte{})
	f.Fuzz(func(t *testing.T, ops, lits []byte) {
		got, _, _, err := patch(make([]byte, 0, page.Size), ops, lits, base)
		if err == nil && len(got) != page.Size || len(got) > page.Size {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}
