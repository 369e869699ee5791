package press

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/longhaul-project/longhaul/dedup/blocktest"
)

var seed = flag.Uint64("seed", rand.Uint64(), "of random blocks")

func TestBlocks(t *testing.T) { blocktest.Blocks(t, *seed, func() blocktest.Codec { return New() }) }

// TestForm: the coded form stays what it is, on all machines.
func TestForm(t *testing.T) {
	b := blocktest.Memory(rand.New(rand.NewPCG(1, 2)), 100_000)
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

func TestMalformed(t *testing.T) { blocktest.Malformed(t, New()) }
func FuzzExpand(f *testing.F)    { blocktest.Fuzz(f, New()) }
func TestNoGarbage(t *testing.T) { blocktest.NoGarbage(t, New()) }

func BenchmarkPress(b *testing.B) {
	blocktest.Bench(b, New(), blocktest.Memory(rand.New(rand.NewPCG(1, 2)), 1<<20))
}
