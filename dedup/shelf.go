package dedup

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup/record"
)

// A shelf holds the pages of one direction, in segments numbered from 1 in
// order of first use. The sender of the pages decides what is on it; the
// receiver follows. At any time the segments lie in a window of at most size,
// so segment n has the ring's place n % size at both ends.
//
//	free  floor   retire          next
//	  |     |       |               |
//	  v     v       v               v      segments, oldest first
//	--+-----+-------+-------+-------+-----------> number
//	gone    |       |       |
//	        |       |  may be referred to, and pinned
//	        |  are sent again as copies when met
//	   announced as gone; kept until the peer has
//	   heard of it and cannot refer to them any more
//
// All pointers only rise. A segment is passed by floor when no batch that the
// peer may still have to decode refers to it or fills it.
type shelf struct {
	ring   []atomic.Pointer[segment]
	memory *tier
	disk   *saver        // nil: the pages are in memory only
	birth  func() uint64 // of new segments: the name of the store that numbers them

	retire atomic.Uint64 // ours only
	floor  atomic.Uint64
	// distrust is a segment number below which nothing may be referred to at
	// all; see Store.Forget.
	distrust atomic.Uint64

	mu     sync.Mutex // guards what follows, and changes of the ring and the pointers above
	free   uint64     // first segment that is held
	next   uint64     // one after the newest segment
	target uint64     // ours only: where floor should be, at most at retire
	heard  uint64     // ours only: floor that the peer is known to have heard of
	gone   int64      // segments evicted so far
	last   uint64     // ours only: no segment is opened from this number on; 0: the window is the bound
	full   bool       // one would have been
	leases map[*lease]struct{}
}

// A lease keeps what the peer may refer to while it sends on a channel: no
// segment from floor on is freed. The shelf's mu guards it.
type lease struct {
	floor uint64
	ended bool

	abandoned atomic.Bool // whoever had it is gone without a word; no lock
}

// abandon ends a lease for good, when somebody next sweeps.
func (l *lease) abandon() { l.abandoned.Store(true) }

// Parts of a window. The oldest quarter retires, so that what is in use has
// time to be kept anew; the oldest eighth is let go, so that the peer has
// heard of it by the time that its place is needed.
const (
	retirePart = 4
	floorPart  = 8
)

func newShelf(size int, m *tier, birth func() uint64) *shelf {
	sh := &shelf{ring: make([]atomic.Pointer[segment], size), memory: m, birth: birth, free: 1, next: 1, target: 1, heard: 1,
		leases: make(map[*lease]struct{})}
	sh.retire.Store(1)
	sh.floor.Store(1)
	return sh
}

// number is the page number that a handle means, given that it is held. All
// that is held lies less than one window from the floor, and two windows are
// fewer than 2^31 pages, so both ends find the same number.
func (sh *shelf) number(h handle) uint64 {
	floor := sh.floor.Load()
	low := firstNumber(floor - min(floor, uint64(len(sh.ring))))
	return low + (uint64(h)-low)&numberMask
}

// at is segment id, or nil when it is not held.
func (sh *shelf) at(id uint64) *segment {
	g := sh.ring[id%uint64(len(sh.ring))].Load()
	if g == nil || g.id != id {
		return nil
	}
	return g
}

// open makes the next segment of our own shelf, for owner, which has it
// pinned. It returns nil when the window is full of what must be kept.
func (sh *shelf) open(owner any) *segment {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.last > 0 && sh.next >= sh.last {
		sh.full = true
		return nil
	}
	size := uint64(len(sh.ring))
	raise := func(p, part uint64) uint64 {
		return max(p, sh.next+1-min(sh.next, size-max(size/part, 1)))
	}
	sh.retire.Store(raise(sh.retire.Load(), retirePart))
	sh.target = raise(sh.target, floorPart)
	sh.sweep()
	if sh.next-sh.free >= size {
		return nil
	}
	return sh.add(sh.next, owner)
}

// follow makes segment id of the peer's shelf, for the decoder owner, which
// has it pinned.
func (sh *shelf) follow(id uint64, owner any) (*segment, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case id < sh.free:
		return nil, fmt.Errorf("segment %d is below the floor %d", id, sh.free)
	case id >= sh.free+uint64(len(sh.ring)):
		return nil, fmt.Errorf("segment %d: the peer's budget is above ours of %d segments from %d on", id, len(sh.ring), sh.free)
	case sh.at(id) != nil:
		return nil, fmt.Errorf("segment %d is open already", id)
	}
	return sh.add(id, owner), nil
}

func (sh *shelf) add(id uint64, owner any) *segment {
	g := &segment{id: id, birth: sh.birth(), owner: owner}
	g.refs.Store(2) // the shelf and the owner
	sh.memory.take(g)
	sh.ring[id%uint64(len(sh.ring))].Store(g)
	sh.next = max(sh.next, id+1)
	return g
}

// sweep lets floor pass what nobody needs, and frees what the peer has heard
// of.
func (sh *shelf) sweep() {
	floor := sh.floor.Load()
	for floor < sh.target {
		if g := sh.at(floor); g != nil && !g.seal() {
			break
		}
		floor++
	}
	sh.floor.Store(floor)
	keep := min(floor, sh.heard)
	for l := range sh.leases {
		if l.abandoned.Load() {
			delete(sh.leases, l)
			continue
		}
		keep = min(keep, l.floor)
	}
	sh.drop(keep)
}

// drop frees all segments below id.
func (sh *shelf) drop(id uint64) {
	for ; sh.free < min(id, sh.next); sh.free++ {
		if g := sh.at(sh.free); g != nil {
			sh.ring[sh.free%uint64(len(sh.ring))].Store(nil)
			g.unpin(sh.memory)
			sh.gone++
			if sh.disk != nil {
				sh.disk.remove(sh.free)
			}
		}
	}
	sh.free = max(sh.free, id)
	sh.next = max(sh.next, id)
}

// learn is told that the peer has heard of floor.
func (sh *shelf) learn(floor uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.heard = max(sh.heard, floor)
	if sh.free < sh.target {
		sh.sweep()
	}
}

// raise drops what the peer says that it no longer refers to.
func (sh *shelf) raise(floor uint64) {
	if floor <= sh.floor.Load() {
		return
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if floor > sh.floor.Load() {
		sh.floor.Store(floor)
		sh.drop(floor)
	}
}

// lease keeps all that is held now.
func (sh *shelf) lease(l *lease) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l.floor = sh.free
	sh.leases[l] = struct{}{}
}

// suspend ends a lease until it is renewed.
func (sh *shelf) suspend(l *lease) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.leases, l)
}

// renew lets a lease keep only what is from floor on, below which the peer
// promises not to refer. A suspended lease begins again.
func (sh *shelf) renew(l *lease, floor uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if l.ended {
		return
	}
	if _, ok := sh.leases[l]; !ok {
		sh.leases[l] = struct{}{}
		l.floor = sh.free
	}
	l.floor = max(l.floor, floor)
}

// release ends a lease for good.
func (sh *shelf) release(l *lease) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l.ended = true
	delete(sh.leases, l)
}

// forget makes all that is on the shelf now unusable for references.
func (sh *shelf) forget() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.distrust.Store(sh.next)
	sh.retire.Store(sh.next)
	sh.target = sh.next
}

// holding is how much a shelf holds. Pages of a segment that was lost, or dropped as
// damaged, are none, though it has its place until the window has passed it.
type holding struct{ segments, resident, pages, saved int64 }

// held counts what is held.
func (sh *shelf) held() (h holding) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for id := sh.free; id < sh.next; id++ {
		g := sh.at(id)
		if g == nil {
			continue
		}
		h.segments++
		pages := int64(g.saved.Load())
		if g.lost.Load() {
			pages = 0
		}
		h.saved += pages
		if g.mem.Load() != nil {
			h.resident++
			pages = int64(g.written.Load())
		}
		h.pages += pages
	}
	return h
}

// any tells whether there is a segment.
func (sh *shelf) any() bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.next > sh.free
}

// evicted counts the segments that are gone.
func (sh *shelf) evicted() int64 {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.gone
}

// firstNumber is the number of a segment's first page.
func firstNumber(id uint64) uint64 { return id * record.SegmentPages }
