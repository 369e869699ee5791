package fold

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/longhaul-project/longhaul/dedup/blocktest"
)

var (
	seed   = flag.Uint64("seed", rand.Uint64(), "of random blocks")
	update = flag.Bool("update", false, "fold the block in testdata again")
)

func TestBlocks(t *testing.T) { blocktest.Blocks(t, *seed, func() blocktest.Codec { return New() }) }

// TestReach: a match goes as far back as its distance can be told, and no further.
// Zeros keep the search at each byte, and leave what was noted before them.
func TestReach(t *testing.T) {
	t.Logf("seed %d", *seed)
	chaff := blocktest.Noise(rand.New(rand.NewPCG(*seed, 7)), 3000)
	for _, tt := range []struct{ distance, least, most int }{
		{reach - 1, len(chaff), len(chaff) + 200},
		{reach, 2 * len(chaff), 2*len(chaff) + 200},
	} {
		b := append(make([]byte, tt.distance), chaff...)
		copy(b, chaff)
		folded := New().Append(nil, b)
		if n := len(folded); n < tt.least || n > tt.most {
			t.Errorf("noise, and the same %d bytes behind it: folded to %d bytes, want %d to %d", tt.distance, n, tt.least, tt.most)
		}
		got := make([]byte, len(b))
		if err := New().Expand(got, folded); err != nil || !bytes.Equal(got, b) {
			t.Errorf("noise, and the same %d bytes behind it: %v", tt.distance, err)
		}
	}
}

// TestForm: the form stays what it is, on all machines: what was folded once can be
// expanded, and is folded to the same as long as the search for matches is the same.
func TestForm(t *testing.T) {
	const vector = "testdata/memory.fold"
	b := blocktest.Memory(rand.New(rand.NewPCG(1, 2)), 40_000)
	folded := New().Append(nil, b)
	if *update {
		if err := os.WriteFile(vector, folded, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(vector)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(b))
	if err := New().Expand(got, want); err != nil || !bytes.Equal(got, b) {
		t.Errorf("%s does not expand to what it was: %v: the form has changed, and needs another codec", vector, err)
	}
	if !bytes.Equal(folded, want) {
		t.Errorf("%d bytes are folded to %d, not to the %d of %s; if it is meant to find other matches: go test ./dedup/fold -update", len(b), len(folded), len(want), vector)
	}
	if got := hex.EncodeToString(New().Append(nil, []byte("abcabcabcabc"))); got != "c6163d609c3c283c" {
		t.Errorf("a short block is folded as %s", got)
	}
}

// rare is a block that has what memory has not, or too little of: noise that is told to be
// so, of all lengths around the least; numbers of 22 digits; distances of all numbers of
// digits.
func rare(rng *rand.Rand) []byte {
	b := append(blocktest.Noise(rng, 4096), make([]byte, 1<<escape+100)...)
	for n := plainLeast - 8; n < plainLeast+8; n++ {
		b = append(append(b, blocktest.Noise(rng, n)...), make([]byte, 64)...)
	}
	for digits := fewDigits + 1; digits <= bits.Len(reach-1); digits++ {
		again := blocktest.Noise(rng, 64)
		between := 1<<(digits-1) + rng.IntN(1<<(digits-1)) - len(again)
		b = append(append(append(b, again...), make([]byte, between)...), again...)
	}
	return append(b, blocktest.Memory(rng, 20_000)...)
}

// TestRareForm: so does the form of what TestForm has nothing of.
func TestRareForm(t *testing.T) {
	const want = "960da75a6d1b205fe976eba8bb2cd2152fd8036bab2504c3d75431511c073c59"
	b := rare(rand.New(rand.NewPCG(3, 4)))
	folded := New().Append(nil, b)
	if got := fmt.Sprintf("%x", sha256.Sum256(folded)); got != want {
		t.Errorf("%d bytes are folded to %d of SHA-256 %s, not %s: the form has changed, and needs another codec, or other matches are found", len(b), len(folded), got, want)
	}
}

// TestModel: whatever a model learns, each symbol keeps a place, and none is lost.
func TestModel(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 3))
	for range 200 {
		m := even
		favourite := rng.IntN(symbols)
		for range 300 {
			s := favourite
			if rng.IntN(20) == 0 {
				s = rng.IntN(symbols)
			}
			_, before := m.span(uint32(s))
			m.learn(&goals[s])
			sum := uint64(0)
			for i := range uint32(symbols) {
				start, n := m.span(i)
				if start != sum || n == 0 || n > places {
					t.Fatalf("after %d: symbol %d has %d places from %d on, those before %d: %x", s, i, n, start, sum, m)
				}
				sum += n
			}
			if _, after := m.span(uint32(s)); sum != places || after < before {
				t.Fatalf("after %d: %d places in all, of it %d, before %d", s, sum, after, before)
			}
		}
	}
}

// TestNoise: noise is coded as it is, and spoils nothing that stands around it.
func TestNoise(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 4))
	text, chaff := blocktest.Memory(rng, 20_000), blocktest.Noise(rng, 50_000)
	f := New()
	alone, with := len(f.Append(nil, text)), len(f.Append(nil, append(bytes.Clone(text), chaff...)))
	if with > alone+len(chaff)+32 {
		t.Errorf("%d bytes of noise take %d", len(chaff), with-alone)
	}
}

// TestNumbers: all lengths that a block may have come back.
func TestNumbers(t *testing.T) {
	f := New()
	all := []int{0, 1, escape - 1, escape, escape + 1, 100, 1<<halfDigits + 14, 1<<(halfDigits+1) + 14, 1<<escape + 13, 1<<escape + 14, MaxBlock}
	f.reset()
	c := coder{}
	c.begin()
	for _, n := range all {
		f.number(&c, n, &f.m.runs[0], &f.m.runDigits)
	}
	c.end()
	f.reset()
	d := coder{decode: true, in: c.out}
	d.begin()
	for _, n := range all {
		if got := f.number(&d, 0, &f.m.runs[0], &f.m.runDigits); got != n {
			t.Fatalf("%d comes back as %d", n, got)
		}
	}
	if !d.end() {
		t.Error("bytes are left")
	}
}

// TestDistances: so do all distances, by the last ones too.
func TestDistances(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 5))
	all := []match{{1, minMatch, 0}, {15, 5, 1}, {255, 6, 2}, {256, 7, 3}, {511, 8, 4}, {512, 9, 0}, {1<<16 - 1, 10, 0}, {reach - 1, MaxBlock, 0}}
	for range 2000 {
		all = append(all, match{1 + rng.IntN(reach-1)>>rng.IntN(20), minMatch + rng.IntN(40), rng.IntN(5)}, all[rng.IntN(len(all))])
	}
	f := New()
	f.reset()
	c := coder{}
	c.begin()
	for i, m := range all {
		f.match(&c, i, m)
	}
	c.end()
	f.reset()
	d := coder{decode: true, in: c.out}
	d.begin()
	for i, m := range all {
		if n := f.match(&d, i, match{literals: m.literals}); n != m.n || f.last[0] != m.distance {
			t.Fatalf("%+v comes back as %d at %d", m, n, f.last[0])
		}
	}
	if !d.end() {
		t.Error("bytes are left")
	}
}

// TestTooLong: a block that no message may have is our own mistake.
func TestTooLong(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a block over MaxBlock is folded")
		}
	}()
	New().Append(nil, make([]byte, MaxBlock+1))
}

func TestMalformed(t *testing.T) { blocktest.Malformed(t, New()) }
func FuzzExpand(f *testing.F)    { blocktest.Fuzz(f, New()) }
func TestNoGarbage(t *testing.T) { blocktest.NoGarbage(t, New()) }

// BenchmarkFold is what a byte costs: of memory, and of what costs most, which has no
// matches and is not quite noise.
func BenchmarkFold(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	worst := make([]byte, 1<<20)
	for i := range worst {
		worst[i] = byte(rng.IntN(100))
	}
	b.Run("block=memory", func(b *testing.B) { blocktest.Bench(b, New(), blocktest.Memory(rng, 1<<20)) })
	b.Run("block=worst", func(b *testing.B) { blocktest.Bench(b, New(), worst) })
}
