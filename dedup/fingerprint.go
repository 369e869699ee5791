package dedup

import (
	"encoding/binary"

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

// handleOf is the handle of page n of a shelf.
func handleOf(n uint64, other bool) handle {
	h := handle(n & numberMask)
	if other {
		h |= otherShelf
	}
	return h
}
