package vmstream

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// noise is n bytes that seldom repeat.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 11))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestChunks: what comes again is cut alike, whatever stands before it.
func TestChunks(t *testing.T) {
	stream := noise(1, 6<<20)
	copy(stream[1<<20:], make([]byte, 1<<20)) // where no cut is likely
	plain := scan(t, NewOpaque(), stream, whole, never)
	shifted := scan(t, NewOpaque(), append(noise(2, 12345), stream...), whole, never)
	ends := map[int]bool{}
	for i, it := range plain.items {
		ends[plain.at[i]+it.Len()] = true
		if n := it.Len(); n > maxChunkLen || n < minChunk && i < len(plain.items)-1 {
			t.Errorf("chunk of %d bytes", n)
		}
	}
	same := 0
	for i, it := range shifted.items {
		if ends[shifted.at[i]+it.Len()-12345] {
			same++
		}
	}
	if n := len(plain.items); n < 30 || same < n*3/4 {
		t.Errorf("%d chunks, of which %d end at the same byte behind something else", n, same)
	}
	checkSplits(t, NewOpaque, stream[:1<<20], 10)
}

// TestChunkCut: what a silent source has left leaves at once.
func TestChunkCut(t *testing.T) {
	s := NewOpaque()
	for n, kind := range map[int]page.Kind{1: page.Opaque, page.Size - 1: page.Opaque, page.Size: page.Chunk, 3 * minChunk / 2: page.Chunk} {
		b := noise(3, n)
		if it, used := s.Next(b); used != 0 {
			t.Fatalf("item of %d bytes of %d: no cut was expected: %+v", used, n, it.Kind)
		}
		if it := s.Cut(b); it.Kind != kind || it.Mark != page.Flush || !bytes.Equal(it.Data, b) {
			t.Errorf("%d bytes are of kind %d, want %d; mark %d", n, it.Kind, kind, it.Mark)
		}
	}
}
