package dedup

import (
	"cmp"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// DefaultBudget is the page memory of a store in bytes, unless configured.
const DefaultBudget = 512 << 20

// Bounds of one shelf in segments. Below four nothing can be evicted while
// something else is in flight; above, handles would not be unique.
const (
	minShelf = 4
	maxShelf = 1 << 21
)

// Config of a store. The zero value works.
type Config struct {
	// Budget is the page memory in bytes: half of it for pages sent to the
	// peer, half for pages received. Zero means DefaultBudget; at least
	// 8 MiB are used. Memory is taken when pages come. Bookkeeping costs
	// about 1 per cent on top.
	Budget int64

	// PeerBudget is the Budget of the peer's store, as the gateways tell
	// each other. What we send stays within it, for the peer refuses a
	// sender that expects more of it than its own budget. Zero means that
	// it is the same as ours.
	PeerBudget int64

	// ID names the store to the peer. Zero means a random one.
	ID uint64

	// Elsewhere finds the pages that the peer claims we have. Nil: none.
	Elsewhere Elsewhere
}

// shelfSize is the number of segments of a direction that budget allows.
func shelfSize(budget int64) int {
	return int(min(max(budget/2/slabSize, minShelf), maxShelf))
}

// A Store is what this gateway and one peer both hold: pages that went there
// and pages that came from there. All channels between the two share it, in
// both directions, and may use it at once. When the peer's process or ours
// starts anew both begin with new stores.
//
// It is freed by the garbage collector.
type Store struct {
	id       uint64
	budget   int64
	memory   tier
	writer   *writer // nil without a disk
	index    index
	growing  sync.Mutex   // held while index and anchors grow
	segments atomic.Int64 // on both shelves, about
	anchors  *anchorTable
	sent     *shelf        // pages that we number
	received *shelf        // pages that the peer numbers
	peer     atomic.Uint64 // name of the peer's store; 0 before it has sent anything

	key       Key // of this store and the peer's
	elsewhere Elsewhere
	hints     hints        // what the peer has from elsewhere
	damaged   atomic.Int64 // pages found lost or rotten
	refs      atomic.Int64 // pages that were referred to, either way
	claims    atomic.Int64 // pages that crossed as hashes, either way

	compressors compressors
	closed      atomic.Bool
}

// NewStore makes an empty store, in memory.
func NewStore(c Config) *Store { return newStore(c, 0) }

// newStore makes a store that has slabs in memory at a time, or all if that is
// zero.
func newStore(c Config, slabs int) *Store {
	c.Budget = cmp.Or(c.Budget, DefaultBudget)
	c.PeerBudget = cmp.Or(c.PeerBudget, c.Budget)
	for c.ID == 0 {
		c.ID = rand.Uint64()
	}
	received := shelfSize(c.Budget)
	sent := min(received, shelfSize(c.PeerBudget))
	s := &Store{id: c.ID, budget: int64(2*received) * slabSize, elsewhere: c.Elsewhere}
	s.memory.max = slabs
	pages := (sent + received) * record.SegmentPages
	s.index.table.Store(newIndexTable(record.SegmentPages))
	s.anchors = newAnchorTable(pages)
	if slabs > 0 { // what is in memory counts for what may be spent on finding it
		s.anchors = newAnchorTable(min(pages, maxAnchored(slabs)))
	}
	s.sent = newShelf(sent, &s.memory, s.ID)
	s.received = newShelf(received, &s.memory, s.peer.Load)
	return s
}

// maxAnchored is how many pages the anchor table of a store with so many slabs
// of memory is for: it may take an eighth of what they take.
func maxAnchored(slabs int) int { return slabs * slabSize / 8 / (8 * fullAnchors) }

// Close writes what is not on disk yet, and lets go of the disk. Encoders and
// decoders that are in use after it keep nothing on disk. A store without a
// disk needs no Close.
func (s *Store) Close() {
	if !s.closed.Swap(true) && s.writer != nil {
		s.writer.close()
	}
}

// Closed tells whether Close was called.
func (s *Store) Closed() bool { return s.closed.Load() }

// ID names the store in the messages that its encoders make.
func (s *Store) ID() uint64 { return s.id }

// Peer names the peer's store; 0 while that is not known.
func (s *Store) Peer() uint64 { return s.peer.Load() }

// Keep keeps all pages that we have sent and still hold, until release is
// called: the peer may refer to them before we have a decoder for its channel.
// It is for the time between the promise to take a move and its channels.
func (s *Store) Keep() (release func()) {
	l := new(lease)
	s.sent.lease(l)
	return func() { s.sent.release(l) }
}

// Forget makes encoders refer to nothing that the peer holds by now. It is
// for the end that hears that its peer could not rebuild what it was sent:
// something that one of the two holds has rotten, and sending it again costs
// less than finding out which. Memory is freed as the peer hears of it.
func (s *Store) Forget() {
	s.sent.forget()
	s.received.forget()
}

// Room is how many bytes of pages that we send the store can hold at most.
func (s *Store) Room() int64 { return int64(len(s.sent.ring)) * slabSize }

// Stats is what a store holds.
type Stats struct {
	Budget   int64 // bytes of pages that may be held
	Resident int64 // bytes of pages that may be in memory; the Budget without a disk
	Bytes    int64 // bytes of pages that are held, rounded up to segments
	Memory   int64 // of these, bytes in memory
	Disk     int64 // of these, bytes on disk
	Segments int64 // held
	Sent     int64 // pages held that this end sent
	Received int64 // pages held that the peer sent
	Index    int64 // bytes of memory of the index and the fingerprints
	Anchors  int64 // bytes of memory of the anchors
	Hints    int64 // pages that the peer has told to have from elsewhere
	Refs     int64 // pages that were referred to so far, either way
	Claims   int64 // pages that crossed as hashes so far, either way
	Evicted  int64 // segments that made room for others so far, on both shelves
	Damaged  int64 // pages that were found to be lost or rotten so far
}

// count counts what a batch has used.
func (s *Store) count(c Counts) {
	s.refs.Add(c.Refs)
	s.claims.Add(c.Claims)
}

// Pages is the number of pages held.
func (s Stats) Pages() int64 { return s.Sent + s.Received }

// Stats tells what the store holds.
func (s *Store) Stats() Stats {
	sent, received := s.sent.held(), s.received.held()
	segments, resident := sent.segments+received.segments, s.budget
	if s.memory.max > 0 {
		resident = int64(s.memory.max) * slabSize
	}
	return Stats{
		Budget:   s.budget,
		Resident: resident,
		Segments: segments,
		Index:    8 * (int64(len(s.index.table.Load().slots)) + segments*record.SegmentPages),
		Anchors:  s.anchors.bytes(),
		Hints:    int64(s.hints.len()),
		Refs:     s.refs.Load(),
		Claims:   s.claims.Load(),
		Damaged:  s.damaged.Load(),
		Bytes:    segments * slabSize,
		Memory:   (sent.resident + received.resident) * slabSize,
		Disk:     (sent.saved + received.saved) * page.Size,
		Sent:     sent.pages,
		Received: received.pages,
		Evicted:  s.sent.evicted() + s.received.evicted(),
	}
}
