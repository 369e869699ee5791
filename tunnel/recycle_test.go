package tunnel

import (
	"testing"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// TestBufferSize: the buffer of any length is long enough, an eighth longer at most,
// and where those of another size are not.
func TestBufferSize(t *testing.T) {
	t.Parallel()
	sizes := make(map[int]int) // by place
	for n := leastBuffer + 1; n <= frame.MaxMessage; n += 1 + n/1000 {
		for _, n := range []int{n, n + 1} {
			size, place := bufferSize(n)
			if size < n || size > n+n/8+1 {
				t.Fatalf("%d bytes for %d", size, n)
			}
			if place < 0 || place >= len(recycled) {
				t.Fatalf("the place for %d bytes is %d of %d", n, place, len(recycled))
			}
			if was := sizes[place]; was != 0 && was != size {
				t.Fatalf("buffers of %d and of %d bytes are in one place", was, size)
			}
			sizes[place] = size
			if again, at := bufferSize(size); again != size || at != place {
				t.Fatalf("a buffer of %d bytes comes back as one of %d", size, again)
			}
		}
	}
}

// TestRecycle: what was given back is used again for what fits, at its whole length, and
// what is none of ours is left alone.
func TestRecycle(t *testing.T) {
	b := newBuffer(100_000)
	if len(b) != 100_000 || cap(b) < len(b) {
		t.Fatalf("a buffer of %d, %d bytes", len(b), cap(b))
	}
	for _, foreign := range [][]byte{nil, make([]byte, 100), make([]byte, 100_001), b[1:]} {
		Recycle(foreign)
	}
	same := 0
	for range 1000 { // the race detector has the pool forget some
		b := newBuffer(100_000)
		Recycle(b[:7])
		if c := newBuffer(cap(b)); &c[0] == &b[0] && len(c) == cap(b) {
			same++
		}
	}
	if same < 300 {
		t.Errorf("%d of 1000 buffers were used again", same)
	}
}
