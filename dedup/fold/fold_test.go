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
)

var (
	seed   = flag.Uint64("seed", rand.Uint64(), "of random blocks")
	update = flag.Bool("update", false, "fold the block in testdata again")
)

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

// noisy is n bytes of noise.
func noisy(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// TestBlocks: whatever the block, it comes back, from a Fold of its own as from one that
// has done others before.
func TestBlocks(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 1))
	used := New()
	blocks := [][]byte{{}, {0}, {255}, []byte("seven b"), []byte("eight by"), []byte("nine byte"), make([]byte, 100_000), bytes.Repeat([]byte("ab"), 5000)}
	for _, n := range []int{15, 17, 1000, 4096, 70_000} {
		blocks = append(blocks, memory(rng, n), memory(rng, rng.IntN(n)))
	}
	blocks = append(blocks, noisy(rng, 1<<20))
	for i, b := range blocks {
		before := bytes.Clone(b)
		folded := used.Append([]byte("x"), b)
		if !bytes.Equal(b, before) || folded[0] != 'x' {
			t.Fatalf("block %d: what was given has changed", i)
		}
		if again := New().Append(nil, b); !bytes.Equal(again, folded[1:]) {
			t.Fatalf("block %d of %d bytes: another Fold makes other bytes of it", i, len(b))
		}
		for _, p := range []*Fold{used, New()} {
			got := bytes.Repeat([]byte{0x55}, len(b))
			if err := p.Expand(got, folded[1:]); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("block %d of %d bytes: %v", i, len(b), err)
			}
		}
	}
}

// TestReach: a match goes as far back as its distance can be told, and no further.
// Zeros keep the search at each byte, and leave what was noted before them.
func TestReach(t *testing.T) {
	t.Logf("seed %d", *seed)
	chaff := noisy(rand.New(rand.NewPCG(*seed, 7)), 3000)
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
	b := memory(rand.New(rand.NewPCG(1, 2)), 40_000)
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
	if got := hex.EncodeToString(New().Append(nil, []byte("abcabcabcabc"))); got != "c616396070e09f33" {
		t.Errorf("a short block is folded as %s", got)
	}
}

// rare is a block that has what memory has not, or too little of: noise that is told to be
// so, of all lengths around the least; numbers of 22 digits; distances of all numbers of
// digits.
func rare(rng *rand.Rand) []byte {
	b := append(noisy(rng, 4096), make([]byte, 1<<escape+100)...)
	for n := plainLeast - 8; n < plainLeast+8; n++ {
		b = append(append(b, noisy(rng, n)...), make([]byte, 64)...)
	}
	for digits := fewDigits + 1; digits <= bits.Len(reach-1); digits++ {
		again := noisy(rng, 64)
		between := 1<<(digits-1) + rng.IntN(1<<(digits-1)) - len(again)
		b = append(append(append(b, again...), make([]byte, between)...), again...)
	}
	return append(b, memory(rng, 20_000)...)
}

// TestRareForm: so does the form of what TestForm has nothing of.
func TestRareForm(t *testing.T) {
	const want = "51f2f1a1294f9e88889fe006e25958fb2c805d0ce4b197df80d060c1c2ef8de6"
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
	text, chaff := memory(rng, 20_000), noisy(rng, 50_000)
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

// TestMalformed: what is cut short, too long or for another size is refused.
func TestMalformed(t *testing.T) {
	p := New()
	b := memory(rand.New(rand.NewPCG(3, 4)), 3000)
	folded := p.Append(nil, b)
	got := make([]byte, len(b))
	for n := range folded {
		if p.Expand(got, folded[:n]) == nil {
			t.Fatalf("the first %d of %d bytes expand", n, len(folded))
		}
	}
	if p.Expand(got, append(bytes.Clone(folded), 0)) == nil {
		t.Error("a byte too many is taken")
	}
	for _, n := range []int{0, len(b) - 1} {
		if p.Expand(got[:n], folded) == nil {
			t.Errorf("a block of %d bytes expands to %d", len(b), n)
		}
	}
}

// FuzzExpand: nothing makes it panic, and what is expanded can be folded again.
func FuzzExpand(f *testing.F) {
	p := New()
	b := memory(rand.New(rand.NewPCG(5, 6)), 2000)
	f.Add(p.Append(nil, b), len(b))
	f.Add([]byte{0, 0, 0, 0}, 2000)
	f.Add(p.Append(nil, append(bytes.Repeat([]byte("row 1234"), 90), b[:800]...)), 1520)
	f.Add(p.Append(nil, make([]byte, 1000)), 1500)
	f.Fuzz(func(t *testing.T, folded []byte, n int) {
		block := make([]byte, n&0x7ff)
		if p.Expand(block, folded) != nil {
			return
		}
		got := make([]byte, len(block))
		if err := p.Expand(got, p.Append(nil, block)); err != nil || !bytes.Equal(got, block) {
			t.Errorf("what %x expands to does not come back: %v", folded, err)
		}
	})
}

// TestNoGarbage: a Fold allocates nothing but what it returns.
func TestNoGarbage(t *testing.T) {
	p := New()
	b := memory(rand.New(rand.NewPCG(7, 8)), 5000)
	folded, got := p.Append(nil, b), make([]byte, len(b))
	out := make([]byte, 0, len(b))
	if n := testing.AllocsPerRun(3, func() {
		out = p.Append(out[:0], b)
		if err := p.Expand(got, folded); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkFold is what a byte costs: of memory, and of what costs most, which has no
// matches and is not quite noise.
func BenchmarkFold(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	worst := make([]byte, 1<<20)
	for i := range worst {
		worst[i] = byte(rng.IntN(100))
	}
	f := New()
	for _, in := range []struct {
		name  string
		block []byte
	}{{"memory", memory(rng, 1<<20)}, {"worst", worst}} {
		block, folded := in.block, f.Append(nil, in.block)
		b.Run("block="+in.name+"/append", func(b *testing.B) {
			b.SetBytes(int64(len(block)))
			for b.Loop() {
				folded = f.Append(folded[:0], block)
			}
			b.ReportMetric(100*float64(len(folded))/float64(len(block)), "%left")
		})
		b.Run("block="+in.name+"/expand", func(b *testing.B) {
			b.SetBytes(int64(len(block)))
			for b.Loop() {
				if err := f.Expand(block, folded); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
