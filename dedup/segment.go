package dedup

import (
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// slabSize is the memory of a segment's pages in bytes.
const slabSize = record.SegmentPages * page.Size

// A segment holds pages with consecutive numbers. One channel fills it, slot
// after slot; everybody reads what was published. It lives until nobody has
// it pinned any more.
type segment struct {
	id     uint64
	owner  any    // the encoder or decoder that fills it
	filled uint32 // slots filled; only the owner looks
	mem    []byte
	sums   [record.SegmentPages]uint64 // fingerprints, checked at every use

	// refs counts those who have it pinned, the shelf being one; bit 31 says
	// that encoders may not pin it any more.
	refs atomic.Uint32

	// written is the number of slots that any channel's decoder may read.
	written atomic.Uint32
	// acked is the number of slots that the peer is known to hold, in a
	// segment of our own.
	acked atomic.Uint32
}

// sealed is the bit of refs that keeps encoders away.
const sealed = 1 << 31

// slot is the memory of one page.
func (g *segment) slot(i int) []byte { return g.mem[i*page.Size : (i+1)*page.Size : (i+1)*page.Size] }

// intact reports whether the page in a slot is still what was put there.
func (g *segment) intact(i int) bool { return fingerprint(g.slot(i)) == g.sums[i] }

// pin keeps the memory. It fails once the segment is gone or, for an
// encoder, sealed.
func (g *segment) pin(encoder bool) bool {
	for {
		r := g.refs.Load()
		if r&^sealed == 0 || encoder && r&sealed != 0 {
			return false
		}
		if g.refs.CompareAndSwap(r, r+1) {
			return true
		}
	}
}

// unpin undoes one pin.
func (g *segment) unpin(free *slabs) {
	switch r := g.refs.Add(^uint32(0)) &^ sealed; {
	case r == 0:
		free.put(g.mem)
	case r >= sealed/2:
		panic("dedup: segment unpinned twice")
	}
}

// seal keeps encoders away for good, if only the shelf has it pinned.
func (g *segment) seal() bool {
	return g.refs.Load()&sealed != 0 || g.refs.CompareAndSwap(1, 1|sealed)
}
