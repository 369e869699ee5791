package blocktest

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// A Codec compresses and expands blocks, one at a time.
type Codec interface {
	// Append appends the coded form of block, which it only reads, to dst.
	Append(dst, block []byte) []byte
	// Expand fills block with what coded stands for.
	Expand(block, coded []byte) error
}

// Blocks tests that all blocks come back, from a codec of their own as from one that has
// done others before.
func Blocks(t *testing.T, seed uint64, open func() Codec) {
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	blocks := [][]byte{{}, {0}, {255}, []byte("seven b"), []byte("eight by"), []byte("nine byte"), make([]byte, 100_000), bytes.Repeat([]byte("ab"), 5000)}
	for _, n := range []int{15, 17, 1000, 4096, 70_000} {
		blocks = append(blocks, Memory(rng, n), Memory(rng, rng.IntN(n)))
	}
	blocks = append(blocks, Noise(rng, 100_000))
	used := open()
	for i, b := range blocks {
		before := bytes.Clone(b)
		coded := used.Append([]byte("x"), b)
		if !bytes.Equal(b, before) || coded[0] != 'x' {
			t.Fatalf("block %d: what was given has changed", i)
		}
		if again := open().Append(nil, b); !bytes.Equal(again, coded[1:]) {
			t.Fatalf("block %d of %d bytes: a new codec makes other bytes of it", i, len(b))
		}
		for _, c := range []Codec{used, open()} {
			got := bytes.Repeat([]byte{0x55}, len(b))
			if err := c.Expand(got, coded[1:]); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("block %d of %d bytes: %v", i, len(b), err)
			}
		}
	}
}

// Malformed tests that what is cut short, too long or for another size is refused.
func Malformed(t *testing.T, c Codec) {
	b := Memory(rand.New(rand.NewPCG(3, 4)), 3000)
	coded := c.Append(nil, b)
	got := make([]byte, len(b))
	for n := range coded {
		if c.Expand(got, coded[:n]) == nil {
			t.Fatalf("the first %d of %d bytes expand", n, len(coded))
		}
	}
	if c.Expand(got, append(bytes.Clone(coded), 0)) == nil {
		t.Error("a byte too many is taken")
	}
	for _, n := range []int{0, len(b) - 1} {
		if c.Expand(got[:n], coded) == nil {
			t.Errorf("a block of %d bytes expands to %d", len(b), n)
		}
	}
}

// Fuzz tests that nothing makes Expand panic, and that what is expanded can be coded again.
func Fuzz(f *testing.F, c Codec) {
	b := Memory(rand.New(rand.NewPCG(5, 6)), 2000)
	f.Add(c.Append(nil, b), len(b))
	f.Add([]byte{0, 0, 0, 0}, 2000)
	f.Add(c.Append(nil, append(bytes.Repeat([]byte("row 1234"), 90), b[:800]...)), 1520)
	f.Add(c.Append(nil, make([]byte, 1000)), 1500)
	f.Fuzz(func(t *testing.T, coded []byte, n int) {
		block := make([]byte, n&0x7ff)
		if c.Expand(block, coded) != nil {
			return
		}
		got := make([]byte, len(block))
		if err := c.Expand(got, c.Append(nil, block)); err != nil || !bytes.Equal(got, block) {
			t.Errorf("what %x expands to does not come back: %v", coded, err)
		}
	})
}

// NoGarbage tests that a codec allocates nothing but what it returns.
func NoGarbage(t *testing.T, c Codec) {
	b := Memory(rand.New(rand.NewPCG(7, 8)), 5000)
	coded, got := c.Append(nil, b), make([]byte, len(b))
	out := make([]byte, 0, len(b))
	if n := testing.AllocsPerRun(3, func() {
		out = c.Append(out[:0], b)
		if err := c.Expand(got, coded); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Bench measures what a byte of block costs, and how much of it is left.
func Bench(b *testing.B, c Codec, block []byte) {
	block = bytes.Clone(block)
	coded := c.Append(nil, block)
	b.Run("append", func(b *testing.B) {
		b.SetBytes(int64(len(block)))
		for b.Loop() {
			coded = c.Append(coded[:0], block)
		}
		b.ReportMetric(100*float64(len(coded))/float64(len(block)), "%left")
	})
	b.Run("expand", func(b *testing.B) {
		b.SetBytes(int64(len(block)))
		for b.Loop() {
			if err := c.Expand(block, coded); err != nil {
				b.Fatal(err)
			}
		}
	})
}
