package dedup

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/dedup/store"
	"github.com/longhaul-project/longhaul/internal/page"
)

// slabSize is the memory of a segment's pages in bytes.
const slabSize = record.SegmentPages * page.Size

// slab is the memory of one segment.
type slab = [slabSize]byte

// A segment holds pages with consecutive numbers. One channel fills it, slot
// after slot; everybody reads what was published. It lives until nobody has
// it pinned any more. Its pages are in memory, on disk, or both.
type segment struct {
	id     uint64
	birth  uint64                      // the store that gave the number out; a crash may have made it forget that
	owner  any                         // the encoder or decoder that fills it
	filled uint32                      // slots filled; only the owner looks
	sums   [record.SegmentPages]uint64 // fingerprints, checked at every use

	// mem is nil while the pages are on disk only. It is taken away by
	// tier.evict, while nobody has the segment pinned.
	mem atomic.Pointer[slab]

	// refs counts those who have it pinned, the shelf being one; bit 31 says
	// that encoders may not pin it any more, bit 30 that nobody may for the
	// moment.
	refs atomic.Uint32

	// written is the number of slots that any channel's decoder may read.
	written atomic.Uint32
	// acked is the number of slots that the peer is known to hold, in a
	// segment of our own.
	acked atomic.Uint32

	saved  atomic.Uint32 // slots that are on disk
	idle   atomic.Bool   // it need not stay in memory: it is saved, or could not be
	used   atomic.Bool   // pinned since tier.evict last looked
	queued atomic.Bool   // it is, or was, on its way to the disk
	lost   atomic.Bool   // it cannot be read
	// shunned: the peer did not have a page of it when it needed it.
	shunned atomic.Bool
	load    sync.Mutex // held while mem is read from disk
}

// Bits of refs.
const (
	sealed   = 1 << 31 // encoders may not pin it any more
	evicting = 1 << 30 // mem is being taken away
)

// slot is the memory of one page. The segment is being filled, or is known to
// be in memory otherwise.
func (g *segment) slot(i int) []byte {
	return g.mem.Load()[i*page.Size : (i+1)*page.Size : (i+1)*page.Size]
}

// content is the page in a slot of a pinned segment: of its memory, or read into
// scratch. It is nil when the page cannot be read.
func (g *segment) content(i int, disk *store.Shelf, scratch *[page.Size]byte) []byte {
	if m := g.mem.Load(); m != nil {
		return m[i*page.Size : (i+1)*page.Size : (i+1)*page.Size]
	}
	saved := g.saved.Load()
	if disk == nil || uint32(i) >= saved || g.lost.Load() {
		return nil
	}
	if err := disk.Page(g.header(saved), i, scratch[:]); err != nil {
		g.lost.Store(true)
		return nil
	}
	return scratch[:]
}

// header is that of the file that holds n slots.
func (g *segment) header(n uint32) *store.Header {
	return &store.Header{ID: g.id, Birth: g.birth, Sums: g.sums[:n]}
}

// pin keeps the segment, and its memory if it has any. It fails once the
// segment is gone or, for an encoder, sealed.
func (g *segment) pin(encoder bool) bool {
	for {
		r := g.refs.Load()
		switch {
		case r&evicting != 0:
			runtime.Gosched() // a few instructions
			continue
		case r&^sealed == 0 || encoder && r&sealed != 0:
			return false
		}
		if g.refs.CompareAndSwap(r, r+1) {
			if !g.used.Load() {
				g.used.Store(true)
			}
			return true
		}
	}
}

// unpin undoes one pin.
func (g *segment) unpin(m *tier) {
	switch r := g.refs.Add(^uint32(0)) &^ (sealed | evicting); {
	case r == 0:
		m.drop(g)
	case r >= evicting/2:
		panic("dedup: segment unpinned twice")
	}
}

// seal keeps encoders away for good, if only the shelf has it pinned.
func (g *segment) seal() bool {
	return g.refs.Load()&sealed != 0 || g.refs.CompareAndSwap(1, 1|sealed)
}

// evict takes the memory away, if only the shelf has the segment pinned.
func (g *segment) evict() *slab {
	r := g.refs.Load()
	if r&^sealed != 1 || !g.refs.CompareAndSwap(r, r|evicting) {
		return nil
	}
	m := g.mem.Swap(nil)
	g.refs.And(^uint32(evicting))
	return m
}
