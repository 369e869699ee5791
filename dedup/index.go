package dedup

import (
	"math/bits"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup/record"
)

// bucket is the number of slots that a page may sit in: one line of cache.
const bucket = 8

// An index finds pages by fingerprint. It is a cache of hints, open addressed
// inside two buckets, without locks: a lost update or a stale handle costs a
// missed duplicate, for every hit is compared byte by byte. A full bucket
// loses one of its slots; at the load that grow keeps this hardly happens.
type index struct {
	table atomic.Pointer[indexTable]
}

type indexTable struct {
	slots []atomic.Uint64 // upper 32 bits of the fingerprint | handle
}

// Slots per page that an index has when it has just grown, and at least, in
// tenths. A slot has 8 bytes, so that is 14 to 16 bytes per page, and 24 with its
// fingerprint (segment.sums). Two buckets to choose from keep a table that is so full
// from losing pages.
const (
	roomySlots = 20
	leastSlots = 17
)

// newIndexTable makes a table for n pages.
func newIndexTable(n int) *indexTable {
	x := &indexTable{slots: make([]atomic.Uint64, max(n*roomySlots/10/bucket, 2)*bucket)}
	huge(x.slots)
	return x
}

// tight tells whether the table should grow before it holds n pages.
func (x *indexTable) tight(n int) bool { return len(x.slots)*10 < n*leastSlots }

// candidates are the slots where a page of fingerprint h may be: two buckets. A
// slot whose upper half is the fingerprint's is a hint. The buckets follow from
// that half as well, so that a table can be filled from another one; in a table
// of 10^8 pages one look in eight meets a page that shares all of these bits.
func (x *indexTable) candidates(h uint64) (first, second []atomic.Uint64) {
	n := uint64(len(x.slots) / bucket)
	i, _ := bits.Mul64((h>>32)*0x9e3779b97f4a7c15, n)
	j, _ := bits.Mul64((h>>32)*0xd6e8feb86659fd93, n)
	i, j = i*bucket, j*bucket
	return x.slots[i : i+bucket : i+bucket], x.slots[j : j+bucket : j+bucket]
}

// candidates are the slots of the table in use.
func (x *index) candidates(h uint64) (first, second []atomic.Uint64) {
	return x.table.Load().candidates(h)
}

// put remembers h.
func (x *index) put(h uint64, p handle) { x.table.Load().put(h, p) }

// put replaces a slot of the same fingerprint, or takes an empty one of the
// emptier bucket, or else that of the oldest page, which is the first to go.
func (x *indexTable) put(h uint64, p handle) {
	first, second := x.candidates(h)
	in, at, free := first, -1, 0
	for _, slots := range [2][]atomic.Uint64{first, second} {
		place, empty := -1, 0
		for i := range slots {
			v := slots[i].Load()
			if v>>32 == h>>32 && v != 0 {
				slots[i].Store(h&^(1<<32-1) | uint64(p))
				return
			}
			if v == 0 {
				place, empty = i, empty+1
			}
		}
		if empty > free {
			in, at, free = slots, place, empty
		}
	}
	if at < 0 {
		in, at = oldest(first, second, p)
	}
	in[at].Store(h&^(1<<32-1) | uint64(p))
}

// oldest is the slot of the page on p's shelf that was numbered longest before
// p, or any if there is none.
func oldest(first, second []atomic.Uint64, p handle) (in []atomic.Uint64, at int) {
	in, at = first, int(p)%bucket
	most := handle(0)
	for _, slots := range [2][]atomic.Uint64{first, second} {
		for i := range slots {
			v := handle(slots[i].Load())
			if age := (p - v) & numberMask; v&otherShelf == p&otherShelf && age > most {
				in, at, most = slots, i, age
			}
		}
	}
	return in, at
}

// grow makes room for the pages of a segment more. What other channels put into
// the old tables meanwhile is lost: these are hints.
func (s *Store) grow() {
	n := int(s.segments.Add(1)) * record.SegmentPages
	if x := s.index.table.Load(); !x.tight(n) && !s.anchors.tight(n) || !s.growing.TryLock() {
		return
	}
	defer s.growing.Unlock()
	if s.index.table.Load().tight(n) {
		n = s.recount() + record.SegmentPages
	}
	if old := s.index.table.Load(); old.tight(n) {
		x := newIndexTable(n)
		x.fill(old)
		s.index.table.Store(x)
	}
	s.anchors.grow(n)
}

// fill takes over what is in another table.
func (x *indexTable) fill(old *indexTable) {
	for i := range old.slots {
		if v := old.slots[i].Load(); v != 0 {
			x.put(v, handle(v))
		}
	}
}

// recount counts the pages that there is room for on both shelves: those that
// have gone need no place in an index.
func (s *Store) recount() int {
	n := s.sent.held().segments + s.received.held().segments
	s.segments.Store(n)
	return int(n) * record.SegmentPages
}

// index puts all pages of the shelf into the index.
func (sh *shelf) index(x *index, shelf handle) {
	for id := sh.free; id < sh.next; id++ {
		if g := sh.at(id); g != nil {
			g.index(x, shelf)
		}
	}
}

func (g *segment) index(x *index, shelf handle) {
	for i := range g.written.Load() {
		x.put(g.sums[i], shelf|handle((firstNumber(g.id)+uint64(i))&numberMask))
	}
}
