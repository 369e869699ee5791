package press

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"math/rand/v2"
	"testing"
)

var seed = flag.Uint64("seed", rand.Uint64(), "of random blocks")

// memory is a block such as guests have: text, tables of pointers, noise, zeros, and
// what came before with some changes.
func memory(rng *rand.Rand, n int) []byte {
	words := [][]byte{[]byte("connection "), []byte("refused "), []byte("session "), []byte("{\"time\":"), []byte("\x48\x8b\x45\xf8"), []byte("\x00\x00\x00\x00\x00")}
	var b []byte
	for len(b) < n {
		switch rng.IntN(5) {
		case 0:
			for range 40 {
				b = append(b, words[rng.IntN(len(words))]...)
			}
		case 1:
			for range 64 {
				b = append(b, byte(rng.IntN(4)*8), byte(rng.Uint32()), 0x81, 0x03, 0x81, 0x88, 0xff, 0xff)
			}
		case 2:
			for range 100 {
				b = append(b, byte(rng.Uint32()))
			}
		case 3:
			b = append(b, make([]byte, rng.IntN(3000))...)
		default:
			if len(b) > 0 {
				at := rng.IntN(len(b))
				part := bytes.Clone(b[at:min(len(b), at+rng.IntN(2000))])
				for range rng.IntN(6) {
					if len(part) > 0 {
						part[rng.IntN(len(part))]++
					}
				}
				b = append(b, part...)
			}
		}
	}
	return b[:n]
}

// TestBlocks: whatever the block, it comes back, from a Press of its own as from
// one that has done others before.
func TestBlocks(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 1))
	used := New()
	blocks := [][]byte{{}, {0}, {255}, []byte("seven b"), []byte("eight by"), []byte("nine byte"), make([]byte, 100_000), bytes.Repeat([]byte("ab"), 5000)}
	for _, n := range []int{15, 17, 1000, 4096, 70_000} {
		blocks = append(blocks, memory(rng, n), memory(rng, rng.IntN(n)))
	}
	for i, b := range blocks {
		before := bytes.Clone(b)
		coded := used.Append([]byte("x"), b)
		if !bytes.Equal(b, before) || coded[0] != 'x' {
			t.Fatalf("block %d: what was given has changed", i)
		}
		if again := New().Append(nil, b); !bytes.Equal(again, coded[1:]) {
			t.Fatalf("block %d of %d bytes: another Press makes other bytes of it", i, len(b))
		}
		for _, p := range []*Press{used, New()} {
			got := bytes.Repeat([]byte{0x55}, len(b))
			if err := p.Expand(got, coded[1:]); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("block %d of %d bytes: %v", i, len(b), err)
			}
		}
	}
}

// TestForm: the coded form stays what it is, on all machines.
func TestForm(t *testing.T) {
	b := memory(rand.New(rand.NewPCG(1, 2)), 100_000)
	coded := New().Append(nil, b)
	sum := sha256.Sum256(coded)
	const want, size = "44e6eea2a5b87a0e", 6586
	if got := hex.EncodeToString(sum[:8]); got != want || len(coded) != size {
		t.Errorf("%d bytes in %d of digest %s, want %d of %s: the form has changed, and needs another codec", len(b), len(coded), got, size, want)
	}
	if got := hex.EncodeToString(New().Append(nil, []byte("abcabcabcabc"))); got != "9e94e54c1f64dd5170" {
		t.Errorf("a short block is coded as %s", got)
	}
}

// TestMalformed: what is cut short, too long or for another size is refused.
func TestMalformed(t *testing.T) {
	p := New()
	b := memory(rand.New(rand.NewPCG(3, 4)), 3000)
	coded := p.Append(nil, b)
	got := make([]byte, len(b))
	for n := range coded {
		if p.Expand(got, coded[:n]) == nil {
			t.Fatalf("the first %d of %d bytes expand", n, len(coded))
		}
	}
	if p.Expand(got, append(bytes.Clone(coded), 0)) == nil {
		t.Error("a byte too many is taken")
	}
	for _, n := range []int{0, len(b) - 1} {
		if p.Expand(got[:n], coded) == nil {
			t.Errorf("a block of %d bytes expands to %d", len(b), n)
		}
	}
}

// FuzzExpand: nothing makes it panic, and what is expanded can be coded again.
func FuzzExpand(f *testing.F) {
	p := New()
	b := memory(rand.New(rand.NewPCG(5, 6)), 2000)
	f.Add(p.Append(nil, b), len(b))
	f.Add([]byte{0, 0, 0, 0}, 2000)
	f.Add(p.Append(nil, make([]byte, 1000)), 1500)
	f.Fuzz(func(t *testing.T, coded []byte, n int) {
		block := make([]byte, n&0x7ff)
		if p.Expand(block, coded) != nil {
			return
		}
		got := make([]byte, len(block))
		if err := p.Expand(got, p.Append(nil, block)); err != nil || !bytes.Equal(got, block) {
			t.Errorf("what %x expands to does not come back: %v", coded, err)
		}
	})
}

// TestNoGarbage: a Press allocates nothing but what it returns.
func TestNoGarbage(t *testing.T) {
	p := New()
	b := memory(rand.New(rand.NewPCG(7, 8)), 5000)
	coded, got := p.Append(nil, b), make([]byte, len(b))
	out := make([]byte, 0, len(b))
	if n := testing.AllocsPerRun(3, func() {
		out = p.Append(out[:0], b)
		if err := p.Expand(got, coded); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPress(b *testing.B) {
	block := memory(rand.New(rand.NewPCG(1, 2)), 1<<20)
	p := New()
	var coded []byte
	b.Run("append", func(b *testing.B) {
		b.SetBytes(int64(len(block)))
		for b.Loop() {
			coded = p.Append(coded[:0], block)
		}
		b.ReportMetric(100*float64(len(coded))/float64(len(block)), "%left")
	})
	b.Run("expand", func(b *testing.B) {
		b.SetBytes(int64(len(block)))
		coded = p.Append(coded[:0], block)
		for b.Loop() {
			if err := p.Expand(block, coded); err != nil {
				b.Fatal(err)
			}
		}
	})
}
