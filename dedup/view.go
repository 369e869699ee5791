package dedup

import (
	"fmt"
	"log/slog"
	"math/rand/v2"

	"github.com/longhaul-project/longhaul/dedup/store"
)

// A View is the content that a gateway and a peer both hold, as it lies on the
// gateway's disk. Nothing there is changed or locked, so the gateway may go on: what
// it writes later is not seen, and what it removes is lost to who looks.
type View struct {
	dir            *store.Dir
	sent, received []store.Header
}

// OpenView looks at the directory of a Library.
func OpenView(path string) (*View, error) {
	dir, err := store.View(path)
	if err != nil {
		return nil, err
	}
	l, err := OpenLibrary(dir, LibraryConfig{})
	if err != nil {
		return nil, err
	}
	return &View{dir: dir, sent: l.sent, received: l.received}, nil
}

// Pages is the number of pages on disk, both ways, and Segments of the segments that
// they lie in.
func (v *View) Pages() (n int64) {
	v.Sums(func(sums []uint64) { n += int64(len(sums)) })
	return n
}

// Segments is the number of segments on disk, both ways.
func (v *View) Segments() int { return len(v.sent) + len(v.received) }

// Sums calls tell with the fingerprints of each segment.
func (v *View) Sums(tell func(sums []uint64)) {
	for _, list := range [][]store.Header{v.sent, v.received} {
		for i := range list {
			tell(list[i].Sums)
		}
	}
}

// Pair makes the stores of both ends, as if the two gateways had just agreed on all that
// is on this disk. Each takes memory bytes for pages. What near sends stays there, up to
// a half of it; after that pages are sent without being kept. The caller closes both.
func (v *View) Pair(memory int64) (near, far *Store, err error) {
	added := uint64(max(memory/slabSize/2, minShelf))
	cfg := LibraryConfig{Memory: memory, Disk: v.window(added) * 2 * slabSize}
	a := v.library(cfg)
	b := v.library(cfg)
	b.sent, b.received, b.sentName, b.receivedName = a.received, a.sent, receivedShelf, sentShelf
	for _, l := range []*Library{a, b} {
		l.catalog = Catalog{Store: l.id, Budget: cfg.Disk, Sent: entries(l.sent), Received: entries(l.received)}
	}
	if near, err = a.Agree(b.catalog); err != nil {
		return nil, nil, fmt.Errorf("looking at a content store: %w", err)
	}
	if far, err = b.Agree(a.catalog); err != nil {
		near.Close()
		return nil, nil, fmt.Errorf("looking at a content store: %w", err)
	}
	near.sent.last = near.sent.next + added
	return near, far, nil
}

func (v *View) library(c LibraryConfig) *Library {
	c.Logger = slog.New(slog.DiscardHandler)
	return &Library{
		cfg: c, dir: v.dir, id: rand.Uint64() | 1, sent: v.sent, received: v.received,
		sentName: sentShelf, receivedName: receivedShelf,
	}
}

// window is a number of segments in which all that is on disk and as many as added fit
// without any of it having to go: the oldest quarter of a window is on its way out.
func (v *View) window(added uint64) int64 {
	span := uint64(0)
	for _, list := range [][]store.Header{v.sent, v.received} {
		if n := len(list); n > 0 {
			span = max(span, list[n-1].ID-list[0].ID+1)
		}
	}
	return int64(min((span+added+1)*retirePart/(retirePart-1)+1, maxShelf))
}

// Full tells whether a store of View.Pair sends pages that it does not keep.
func (s *Store) Full() bool {
	s.sent.mu.Lock()
	defer s.sent.mu.Unlock()
	return s.sent.full
}
