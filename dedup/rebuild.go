package dedup

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// work is one batch being rebuilt: what is left of its steps and columns, and
// the stream made of it so far.
type work struct {
	r                        *Resolved
	deltas, literals, opaque []byte
	sources                  []source
	out                      []byte
	start                    int // where the batch begins in out
	span                     int // of r.added, where the next page is kept
	slot                     uint32
	desk                     *desk
}

// A desk is what one goroutine needs to put pages together.
type desk struct {
	scratch [page.Size]byte // of a page that is on disk
	patched [page.Size]byte // a page that the stream has in part
	dict    [maxBase]byte   // of a page with several bases
	diff    []byte          // that is made here
	anchors anchors         // of a page that was added
}

// desks recycles desks, about 30 KiB each, between batches.
var desks = sync.Pool{New: func() any { return new(desk) }}

// zeroPage is what a blank page holds.
var zeroPage [page.Size]byte

// run carries out all steps.
func (w *work) run() error {
	w.load()
	for i := range w.r.bufs.steps {
		s := &w.r.bufs.steps[i]
		if err := w.step(s); err != nil {
			return fmt.Errorf("item %d: %s: %w", i, s.kind, err)
		}
	}
	return nil
}

// load brings the segments of the batch into memory, if the budget allows.
func (w *work) load() {
	s := w.r.d.store
	for _, g := range w.r.received {
		s.received.fetch(g)
	}
	for _, g := range w.r.sent {
		s.sent.fetch(g)
	}
}

// fits tells whether n bytes more are within what the batch states.
func (w *work) fits(n int) bool { return len(w.out)-w.start+n <= w.r.msg.Raw }

// take moves n bytes of a column to the output.
func (w *work) take(col *[]byte, n int) error {
	if n > len(*col) {
		return errColumn
	}
	if !w.fits(n) {
		return errTooMuch
	}
	w.out = append(w.out, (*col)[:n]...)
	*col = (*col)[n:]
	return nil
}

// step rebuilds one item with its head.
func (w *work) step(s *step) error {
	switch s.mode {
	case record.HeadPredicted, record.HeadOne:
		if !w.fits(headSize) {
			return errTooMuch
		}
		w.out = binary.BigEndian.AppendUint64(w.out, s.head)
	case record.HeadExplicit:
		if err := w.take(&w.opaque, s.headLen); err != nil {
			return err
		}
	}
	switch s.kind {
	case record.Bytes:
		return w.take(&w.opaque, s.n)
	case record.Short:
		return w.short(s)
	case record.XBZRLE:
		return w.difference(s)
	case record.Zero:
		return w.blank(1)
	case record.Blank:
		return w.blank(page.Size)
	}
	return w.whole(s)
}

func (w *work) blank(n int) error {
	if !w.fits(n) {
		return errTooMuch
	}
	w.out = append(w.out, zeroPage[:n]...)
	return nil
}

// whole rebuilds one page that is not blank.
func (w *work) whole(s *step) (err error) {
	switch s.kind {
	case record.Passing, record.Literal:
		err = w.take(&w.literals, page.Size)
	case record.Elsewhere:
		err = w.claimed()
	default:
		err = w.known(s)
	}
	if err == nil && s.keeps {
		w.keep(w.out[len(w.out)-page.Size:])
	}
	return err
}

// known rebuilds a page of what both ends hold.
func (w *work) known(s *step) error {
	if !w.fits(page.Size) {
		return errTooMuch
	}
	number := w.sources[0].number
	p, err := w.page()
	if err != nil {
		return err
	}
	if s.sources > 1 {
		if p, err = w.join(s, p); err != nil {
			return err
		}
	}
	if s.kind == record.Same || s.kind == record.Ref {
		w.out = append(w.out, p...)
		return nil
	}
	if w.out, w.deltas, w.literals, err = patch(w.out, w.deltas, w.literals, p); err != nil {
		return fmt.Errorf("page %d: %w", number, err)
	}
	return nil
}

// join puts all bases of a page behind the first.
func (w *work) join(s *step, first []byte) ([]byte, error) {
	dict := append(w.desk.dict[:0], first...)
	for range s.sources - 1 {
		p, err := w.page()
		if err != nil {
			return nil, err
		}
		dict = append(dict, p...)
	}
	return dict, nil
}

// page is the next page that the batch refers to, once it is checked that it is
// still what it was. It is good until the next call.
func (w *work) page() ([]byte, error) {
	l := &w.sources[0]
	w.sources = w.sources[1:]
	if l.after > 0 {
		if err := w.r.needs[l.after-1].wait(); err != nil {
			return nil, err
		}
	}
	d := w.r.d
	sh := d.store.received
	if l.other {
		sh = d.store.sent
	}
	var p []byte
	var what string // is wrong
	slot := int(l.number % record.SegmentPages)
	if l.seg == nil {
		what = "is not held"
	} else if p = l.seg.content(slot, sh.files(), &w.desk.scratch); p == nil {
		what = "cannot be read"
	} else if fingerprint(p) != l.seg.sums[slot] {
		what = "has changed in our memory"
	} else {
		return p, nil
	}
	return w.lost(l, p == nil, what)
}

// lost asks the peer for a page; for all of its segment if that seems to be gone.
// The digest of the batch will tell whether what comes is right.
func (w *work) lost(l *source, all bool, what string) ([]byte, error) {
	d, want := w.r.d, Wanted{Count: 1}
	if all {
		want.Count = MaxWanted
	}
	p, err := d.fetch(l, want)
	if err != nil {
		return nil, fmt.Errorf("%w: page %d of %s %s: %w", ErrMismatch, l.number, whose(l.other), what, err)
	}
	d.store.damaged.Add(1)
	return p, nil
}

func whose(other bool) string {
	if other {
		return "ours"
	}
	return "the peer's"
}

// next is the slot that the next page that is kept gets.
func (w *work) next() (*segment, int) {
	for {
		a := &w.r.added[w.span]
		w.slot = max(w.slot, a.first)
		if w.slot < a.end {
			return a.seg, int(w.slot)
		}
		w.span, w.slot = w.span+1, 0
	}
}

// keep stores a page.
func (w *work) keep(p []byte) {
	g, i := w.next()
	copy(g.slot(i), p)
	g.sums[i] = fingerprint(p)
	w.slot++
}

// verify checks that the batch was used up and made what its digest is of.
func (w *work) verify() error {
	m := &w.r.msg
	if len(w.deltas)+len(w.literals)+len(w.opaque) > 0 {
		return fmt.Errorf("%w: bytes of a column are left over", ErrMismatch)
	}
	if n, items := len(w.out)-w.start, len(w.r.bufs.steps); n != m.Raw || items != m.Items {
		return fmt.Errorf("%w: %d items of %d bytes rebuilt, not %d of %d", ErrMismatch, items, n, m.Items, m.Raw)
	}
	if digestOf(w.out[w.start:], m) != m.Digest {
		return fmt.Errorf("%w: the digest of the rebuilt bytes is not the sender's", ErrMismatch)
	}
	return nil
}

// hint lets the pages that the batch has added be found: for the trip home.
// Nothing refers to them before they are published.
func (w *work) hint() {
	s := w.r.d.store
	for _, a := range w.r.added {
		for i := a.first; i < a.end; i++ {
			h := handleOf(firstNumber(a.seg.id)+uint64(i), true)
			s.index.put(a.seg.sums[i], h)
			w.desk.anchors.find(a.seg.slot(int(i)), anchorMark)
			s.anchors.put(&w.desk.anchors, h)
		}
	}
}

// begin sets a batch up to be rebuilt behind dst.
func (r *Resolved) begin(dst []byte) work {
	f := r.bufs
	return work{r: r, deltas: f.deltas, literals: f.literals, opaque: f.opaque, sources: f.sources,
		out: slices.Grow(dst, r.Raw), start: len(dst), desk: desks.Get().(*desk)}
}
