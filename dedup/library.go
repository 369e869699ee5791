package dedup

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/dedup/store"
	"github.com/longhaul-project/longhaul/internal/page"
)

// Names of the shelves on disk.
const (
	sentShelf     = "sent"
	receivedShelf = "received"
)

// LibraryConfig says how much a library may keep. The zero value works.
type LibraryConfig struct {
	// Memory bounds the pages in memory in bytes. Zero means DefaultBudget.
	Memory int64
	// Disk bounds the pages on disk in bytes. Zero means DefaultDisk.
	Disk int64
	// Key is the fleet's, for claims; Elsewhere finds the pages that the peer
	// claims we have. Nil: none.
	Key       Key
	Elsewhere Elsewhere
	// Logger may be nil, which discards.
	Logger *slog.Logger
}

// DefaultDisk is the disk of a library in bytes, unless configured.
const DefaultDisk = 16 << 30

// A Library is what is on disk of the content that a peer and we both held. It
// becomes a Store once the two have exchanged catalogs and know what both hold
// still: Catalog, then Agree.
type Library struct {
	cfg            LibraryConfig
	dir            *store.Dir
	id             uint64 // of the store that Agree makes
	sent, received []store.Header

	sentName, receivedName string // of the shelves

	damaged int64 // segments that were removed
	agreed  bool  // the store is made
	catalog Catalog
}

// OpenLibrary reads what dir holds. Segments that a crash or the disk has
// damaged are removed. dir stays the caller's; it serves one library at a time.
// Without a dir the library is empty, and its store is in memory only.
func OpenLibrary(dir *store.Dir, c LibraryConfig) (*Library, error) {
	c.Memory = cmp.Or(c.Memory, DefaultBudget)
	c.Disk = cmp.Or(c.Disk, DefaultDisk)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Library{cfg: c, dir: dir, sentName: sentShelf, receivedName: receivedShelf}
	if dir == nil {
		l.cfg.Disk = c.Memory
	}
	for l.id == 0 {
		l.id = rand.Uint64()
	}
	l.catalog = Catalog{Store: l.id, Budget: l.cfg.Disk}
	if dir == nil {
		return l, nil
	}
	var err error
	if l.sent, err = l.list(sentShelf); err != nil {
		return nil, err
	}
	if l.received, err = l.list(receivedShelf); err != nil {
		return nil, err
	}
	l.catalog.Sent, l.catalog.Received = entries(l.sent), entries(l.received)
	return l, nil
}

func (l *Library) list(name string) ([]store.Header, error) {
	all, removed, err := l.dir.Shelf(name).List()
	if err != nil {
		return nil, err
	}
	if removed > 0 {
		l.cfg.Logger.Info("content store: damaged segments removed", "shelf", name, "segments", removed)
		l.damaged += int64(removed)
	}
	ok := all[:0]
	for _, h := range all {
		if h.ID <= record.MaxSegment/2 { // numbers go on from here
			ok = append(ok, h)
		}
	}
	return ok, nil
}

// Resting is what is on disk in common with a peer that was not heard of yet, so that
// there is no Store: pages and segments, and their bytes.
func Resting(dir *store.Dir) (st Stats, err error) {
	for name, pages := range map[string]*int64{sentShelf: &st.Sent, receivedShelf: &st.Received} {
		n, of, e := dir.Shelf(name).Held()
		err = errors.Join(err, e)
		st.Segments += n
		*pages = of
	}
	st.Bytes, st.Disk = st.Segments*slabSize, st.Pages()*page.Size
	return st, err
}

func entries(all []store.Header) []Entry {
	es := make([]Entry, len(all))
	for i, h := range all {
		es[i] = Entry{ID: h.ID, Birth: h.Birth, Pages: len(h.Sums)}
	}
	return es
}

// Catalog is what the library holds, for the peer.
func (l *Library) Catalog() Catalog { return l.catalog }

// errAgreed: one library makes one store.
var errAgreed = errors.New("dedup: the library has a store already")

// Agree makes the store of what both ends hold, given the peer's catalog. What
// only one of the two holds is removed: nobody can refer to it.
func (l *Library) Agree(peer Catalog) (*Store, error) {
	if l.agreed {
		return nil, errAgreed
	}
	if peer.Store == 0 || peer.Budget <= 0 {
		return nil, fmt.Errorf("catalog of the peer: store %016x with a budget of %d bytes", peer.Store, peer.Budget)
	}
	l.agreed = true
	c := Config{Budget: l.cfg.Disk, PeerBudget: peer.Budget, ID: l.id, Elsewhere: l.cfg.Elsewhere}
	slabs := 0
	if l.dir != nil {
		slabs = int(max(l.cfg.Memory/slabSize, minShelf))
	}
	s := newStore(c, slabs)
	s.damaged.Store(l.damaged) // a page each, at least
	s.peer.Store(peer.Store)
	s.key = l.cfg.Key.between(l.id, peer.Store)
	if l.dir == nil {
		return s, nil
	}
	s.writer = newWriter(l.cfg.Logger)
	view := l.dir.View()
	s.sent.disk = &saver{l.dir.Shelf(l.sentName), s.writer, view}
	s.received.disk = &saver{l.dir.Shelf(l.receivedName), s.writer, view}
	s.sent.adopt(l.sent, peer.Received)
	s.received.adopt(l.received, peer.Sent)
	n := s.recount() + record.SegmentPages
	s.index.table.Store(newIndexTable(n))
	s.anchors.grow(n) // Warm fills it
	s.sent.index(&s.index, 0)
	s.received.index(&s.index, otherShelf)
	l.sent, l.received = nil, nil
	return s, nil
}

// adopt takes the segments on disk that the peer holds as well, and removes the
// others. Numbers go on above all that either end has ever used.
func (sh *shelf) adopt(ours []store.Header, theirs []Entry) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	next := uint64(1)
	for _, e := range theirs {
		next = max(next, e.ID+1)
	}
	if n := len(ours); n > 0 {
		next = max(next, ours[n-1].ID+1)
	}
	first := next // of those that are kept
	oldest := next - min(next, uint64(len(sh.ring))-1)
	at := 0
	for i := range ours {
		h := &ours[i]
		for at < len(theirs) && theirs[at].ID < h.ID {
			at++
		}
		if h.ID < oldest || at == len(theirs) || theirs[at].ID != h.ID || theirs[at].Birth != h.Birth {
			sh.disk.remove(h.ID)
			continue
		}
		first = min(first, h.ID)
		sh.shelve(h, uint32(min(len(h.Sums), theirs[at].Pages)))
	}
	sh.next, sh.free, sh.target, sh.heard = next, first, first, first
	sh.floor.Store(first)
	sh.retire.Store(first)
}

// shelve puts a segment that is on disk on the shelf, with the pages that both
// ends hold.
func (sh *shelf) shelve(h *store.Header, pages uint32) {
	g := &segment{id: h.ID, birth: h.Birth, filled: pages}
	copy(g.sums[:], h.Sums)
	g.refs.Store(1)
	g.written.Store(pages)
	g.acked.Store(pages)
	g.saved.Store(uint32(len(h.Sums)))
	g.idle.Store(true)
	g.queued.Store(true)
	sh.ring[h.ID%uint64(len(sh.ring))].Store(g)
}

// Warm indexes the anchors of what was on disk when the store was made, the
// newest last, until stop returns true: without it near copies of that content
// are found by their address only. It reads all pages once.
func (s *Store) Warm(stop func() bool) {
	var a anchors
	mem := new(slab)
	for _, w := range []struct {
		sh    *shelf
		shelf handle
	}{{s.received, otherShelf}, {s.sent, 0}} {
		w.sh.mu.Lock()
		from, to := w.sh.free, w.sh.next
		w.sh.mu.Unlock()
		if room := uint64(s.anchors.most / fullAnchors / record.SegmentPages); to-from > room { // more than the table holds
			from = to - room
		}
		for id := from; id < to && !stop(); id++ {
			if g := w.sh.at(id); g != nil && g.owner == nil && g.pin(false) {
				s.warm(w.sh, w.shelf, g, mem, &a)
				g.unpin(&s.memory)
			}
		}
	}
}

func (s *Store) warm(sh *shelf, shelf handle, g *segment, mem *slab, a *anchors) {
	if sh.disk == nil || sh.disk.disk.Load(g.header(g.saved.Load()), mem[:]) != nil {
		return
	}
	for i := range g.written.Load() {
		a.find(mem[i*store.PageSize:(i+1)*store.PageSize], anchorMark)
		s.anchors.put(a, shelf|handle((firstNumber(g.id)+uint64(i))&numberMask))
	}
}
