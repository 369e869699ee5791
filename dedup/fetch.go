package dedup

import (
	"errors"
	"fmt"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// Wanted is pages that a decoder has been referred to and does not hold any
// more, since memory or a disk has rotten or a file is gone.
type Wanted struct {
	Store  uint64 `json:"store"`  // of the end that is asked
	Theirs bool   `json:"theirs"` // they are numbered by the end that is asked, not by the one that asks
	Number uint64 `json:"number"` // of the first page
	Count  int    `json:"count"`  // pages with consecutive numbers, 1 to MaxWanted; fewer may come

	// Claimed pages were never held: they came as claims, and the one who asks
	// does not have them from elsewhere.
	Claimed bool `json:"claimed,omitempty"`
}

// MaxWanted is the most pages that are asked for at a time: a segment.
const MaxWanted = record.SegmentPages

// A Fetch asks the peer for pages and returns their bytes, one page or more. It
// may take a round trip; the channel waits, others do not.
type Fetch func(Wanted) ([]byte, error)

// Pages returns the pages that the peer wants and that are whole here, from the
// first on. From now on nothing refers to their segments: the peer has lost
// more of them, maybe; but for those that it gets now for the first time.
func (s *Store) Pages(w Wanted) ([]byte, error) {
	if w.Store != s.id {
		return nil, fmt.Errorf("%w: wanted of store %016x, this is %016x", ErrStore, w.Store, s.id)
	}
	if w.Count < 1 || w.Count > MaxWanted || w.Number > record.MaxSegment*record.SegmentPages {
		return nil, fmt.Errorf("pages %d and %d more: no such pages", w.Number, w.Count)
	}
	sh := s.received
	if w.Theirs { // in the words of who asks
		sh = s.sent
	}
	g := sh.at(w.Number / record.SegmentPages)
	if g == nil || !g.pin(false) {
		return nil, fmt.Errorf("page %d is not held", w.Number)
	}
	defer g.unpin(&s.memory)
	if w.Claimed {
		s.hints.failed()
	} else {
		g.shunned.Store(true)
	}
	var b []byte
	var scratch [page.Size]byte
	first := int(w.Number % record.SegmentPages)
	for i := first; i < min(first+w.Count, int(g.written.Load())); i++ {
		p := g.content(i, sh.files(), &scratch)
		if p == nil || fingerprint(p) != g.sums[i] {
			break
		}
		b = append(b, p...)
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("page %d is not whole here either", w.Number)
	}
	return b, nil
}

// fetched is pages that were asked for, by number; those numbered by the peer
// have the lowest bit set. It is emptied when it is full.
type fetched map[uint64][]byte

// maxFetched bounds the pages that are kept of what was fetched: 8 MiB. The pages of
// a batch are of many segments, in turns.
const maxFetched = 8 * MaxWanted

// maxBad bounds the segments that are known to have lost pages.
const maxBad = 64

// errNobody: there is nobody to ask for pages.
var errNobody = errors.New("the peer cannot be asked for it")

// fetch asks the peer for page f, and as many behind it as w wants; if it is
// the second of its segment, for all behind it. Any goroutine may call it; one at
// a time asks.
func (d *Decoder) fetch(f *source, w Wanted) ([]byte, error) {
	d.asking <- struct{}{}
	defer func() { <-d.asking }()
	key := f.number << 1
	if !f.other {
		key |= 1
	}
	if p := d.fetched[key]; p != nil {
		return p, nil
	}
	if d.cfg.Fetch == nil {
		return nil, errNobody
	}
	segment := f.number/record.SegmentPages<<1 | key&1
	if d.bad[segment] {
		w.Count = MaxWanted
	} else {
		if d.bad == nil || len(d.bad) >= maxBad {
			d.bad = make(map[uint64]bool)
		}
		d.bad[segment] = true
	}
	w.Store, w.Theirs, w.Number = d.store.peer.Load(), !f.other, f.number
	w.Count = min(w.Count, MaxWanted-int(f.number%record.SegmentPages))
	b, err := d.cfg.Fetch(w)
	if err != nil {
		return nil, fmt.Errorf("asking the peer for page %d: %w", f.number, err)
	}
	if len(b) < page.Size || len(b) > w.Count*page.Size {
		return nil, fmt.Errorf("asking the peer for page %d: %d bytes came", f.number, len(b))
	}
	if d.fetched == nil || len(d.fetched) >= maxFetched {
		d.fetched = make(fetched)
	}
	for i := 0; len(b) >= page.Size; i++ {
		d.fetched[key+uint64(2*i)] = b[:page.Size:page.Size]
		b = b[page.Size:]
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Fetched++
	return d.fetched[key], nil
}
