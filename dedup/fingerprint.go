package dedup

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// fingerprint of a page. It finds candidates and catches rotten memory; it
// never decides that two pages are equal (reliability.md, C.1: 64 bits collide
// in a real fleet).
func fingerprint(p []byte) uint64 { return xxhash.Sum64(p) }

// isZero reports whether all bytes of p, a multiple of 32 long, are zero.
func isZero(p []byte) bool {
	for ; len(p) >= 32; p = p[32:] {
		if binary.LittleEndian.Uint64(p)|binary.LittleEndian.Uint64(p[8:])|
			binary.LittleEndian.Uint64(p[16:])|binary.LittleEndian.Uint64(p[24:]) != 0 {
			return false
		}
	}
	return true
}

// handle names a page of either shelf in 32 bits: bit 31 tells the shelf, the
// rest is the low end of the page's number. Zero is no page. It is enough
// because a shelf's window is far below 2^31 pages, so that a handle means at
// most one page that is still there; shelf.number finds it.
type handle uint32

const (
	otherShelf handle = 1 << 31 // numbered by the end that decodes
	numberMask        = 1<<31 - 1
)

// bucket is the number of slots that a page may sit in: one line of cache.
const bucket = 8

// An index finds pages by fingerprint. It is a cache of hints, open addressed
// inside buckets, without locks: a lost update or a stale handle costs a
// missed duplicate, for every hit is compared byte by byte. A full bucket
// loses one of its slots; at the load of at most one half that newIndex makes
// this is rare.
type index struct {
	slots []atomic.Uint64 // upper 32 bits of the fingerprint | handle
	shift uint            // of a fingerprint, to the first slot of its bucket
}

// newIndex makes an index for n pages: 16 to 32 bytes per page.
func newIndex(n int) *index {
	b := max(bits.Len(uint(2*n-1)), 4)
	return &index{slots: make([]atomic.Uint64, 1<<b), shift: uint(64 - b)}
}

// candidates are the slots where a page of fingerprint h may be. A slot whose
// upper half is tag(h) is a hint.
func (x *index) candidates(h uint64) []atomic.Uint64 {
	// The tag is the upper half, so the place comes from a mix of both.
	i := (h * 0x9e3779b97f4a7c15) >> x.shift &^ (bucket - 1)
	return x.slots[i : i+bucket : i+bucket]
}

// put remembers h. It replaces a slot of the same tag, or an empty one, or
// one by chance.
func (x *index) put(h uint64, p handle) {
	slots := x.candidates(h)
	place := -1
	for i := range slots {
		v := slots[i].Load()
		if v>>32 == h>>32 {
			place = i
			break
		}
		if v == 0 && place < 0 {
			place = i
		}
	}
	if place < 0 {
		place = int(p) % bucket // numbers grow: in turn, so about the oldest
	}
	slots[place].Store(h&^(1<<32-1) | uint64(p))
}
