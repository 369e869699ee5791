package dedup

import (
	"errors"
	"fmt"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// A rebuild is one batch being decoded: what is left of its columns, and the
// stream made of it so far.
type rebuild struct {
	d                             *Decoder
	msg                           *record.Message
	ops, deltas, literals, opaque []byte
	out                           []byte
	start                         int // where the batch begins in out
	items                         int
	stats                         Counts
}

var (
	errColumn  = errors.New("a column is too short")
	errTooMuch = errors.New("more items or bytes than the batch states")
)

// zeroPage is what a blank page holds.
var zeroPage [page.Size]byte

// run carries out all ops.
func (r *rebuild) run() error {
	for len(r.ops) > 0 {
		o, n, err := record.ParseOp(r.ops)
		if err != nil {
			return fmt.Errorf("item %d: %w", r.items, err)
		}
		r.ops = r.ops[n:]
		if err := r.op(&o); err != nil {
			return fmt.Errorf("item %d: %s: %w", r.items, o.Kind, err)
		}
	}
	return nil
}

// op carries out one op.
func (r *rebuild) op(o *record.Op) error {
	switch o.Kind {
	case record.Segment:
		return r.open(o.Segment)
	case record.Bytes:
		if r.items++; r.items > r.msg.Items {
			return errTooMuch
		}
		r.stats.Opaque += int64(o.Count)
		return r.take(&r.opaque, o.Count)
	}
	if o.Kind == record.Table {
		return r.table(o.Count)
	}
	if r.items+o.Count > r.msg.Items {
		return errTooMuch
	}
	for i := range o.Count {
		if err := r.item(o, i == 0); err != nil {
			return err
		}
		r.items++
	}
	return nil
}

// take moves n bytes of a column to the output.
func (r *rebuild) take(col *[]byte, n int) error {
	if n > len(*col) {
		return errColumn
	}
	if len(r.out)-r.start+n > r.msg.Raw {
		return errTooMuch
	}
	r.out = append(r.out, (*col)[:n]...)
	*col = (*col)[n:]
	return nil
}

// item rebuilds one page or zero page with its head.
func (r *rebuild) item(o *record.Op, first bool) error {
	c := &r.d.course
	a, err := c.addr(o, first)
	if err != nil {
		return err
	}
	switch o.Head {
	case record.HeadPredicted, record.HeadOne:
		r.out = c.predicted(r.out, o.Kind, a)
	case record.HeadExplicit:
		if err := r.take(&r.opaque, o.HeadLen); err != nil {
			return err
		}
		c.learn(o.Kind, r.out[len(r.out)-o.HeadLen:], a)
	}
	switch o.Kind {
	case record.Short:
		return r.short(o)
	case record.XBZRLE:
		r.stats.Pages++
		return r.difference(o, a)
	}
	r.stats.Pages++
	size := page.Size
	if o.Kind == record.Zero {
		size = 1
	}
	if len(r.out)-r.start+size > r.msg.Raw {
		return errTooMuch
	}
	if o.Kind == record.Zero || o.Kind == record.Blank {
		r.stats.Zero++
		r.d.versions.cleared(a)
		r.out = append(r.out, zeroPage[:size]...)
		return nil
	}
	return r.page(o, first, a)
}

// page rebuilds one page that is not blank.
func (r *rebuild) page(o *record.Op, first bool, a page.Addr) error {
	d := r.d
	at := d.versions.at(a)
	switch o.Kind {
	case record.Passing, record.Literal:
		r.stats.Literals++
		if err := r.take(&r.literals, page.Size); err != nil {
			return err
		}
		d.course.missed()
		if o.Kind == record.Passing {
			return nil
		}
		return r.keep(at, r.out[len(r.out)-page.Size:])
	case record.Elsewhere:
		r.stats.Claims++
		if err := r.claimed(); err != nil {
			return err
		}
		d.course.missed()
		return r.keep(at, r.out[len(r.out)-page.Size:])
	}
	base, err := r.known(o, first, at)
	if err != nil {
		return err
	}
	d.course.met(base.number, base.other)
	p := base.page
	switch o.Kind {
	case record.DeltaMany:
		if p, err = r.join(o, p); err != nil {
			return err
		}
	case record.Same, record.Ref:
		r.stats.Refs++
		r.out = append(r.out, p...)
		setVersion(at, base.handle())
		return nil
	}
	r.stats.Deltas++
	if r.out, r.deltas, r.literals, err = patch(r.out, r.deltas, r.literals, p); err != nil {
		return fmt.Errorf("page %d: %w", base.number, err)
	}
	return r.keep(at, r.out[len(r.out)-page.Size:])
}

// join puts all bases of a page behind the first.
func (r *rebuild) join(o *record.Op, first []byte) ([]byte, error) {
	d := r.d
	dict := append(d.dict[:0], first...)
	for _, b := range o.More[:o.Many] {
		f, err := r.held(found{number: d.course.further(b), other: b.Other})
		if err != nil {
			return nil, err
		}
		dict = append(dict, f.page...)
	}
	return dict, nil
}

// known finds the page that an item refers to and checks that it is still
// what it was.
func (r *rebuild) known(o *record.Op, first bool, at *handle) (f found, err error) {
	if o.Kind == record.Ref || o.Kind == record.DeltaRef || o.Kind == record.DeltaMany && !o.Same {
		f.number, f.other = r.d.course.number(o, first), o.Other
		return r.held(f)
	}
	if at == nil || *at == 0 {
		return f, fmt.Errorf("%w: nothing has come for this address yet", ErrMismatch)
	}
	return r.last(at)
}

// last is the page that a version means.
func (r *rebuild) last(at *handle) (f found, err error) {
	f.other = *at&otherShelf != 0
	sh := r.d.store.received
	if f.other {
		sh = r.d.store.sent
	}
	f.number = sh.number(*at)
	return r.held(f)
}

// held finds page f.number and checks that it is still what it was.
func (r *rebuild) held(f found) (found, error) {
	d := r.d
	ps, sh := &d.received, d.store.received
	if f.other {
		ps, sh = &d.sent, d.store.sent
	}
	f.seg, f.slot = ps.page(f.number)
	var what string // is wrong
	if f.seg == nil || f.slot >= d.filled(f.seg) {
		what = "is not held"
	} else if f.page = f.seg.content(f.slot, sh.files(), &d.scratch); f.page == nil {
		what = "cannot be read"
	} else if fingerprint(f.page) != f.seg.sums[f.slot] {
		what = "has changed in our memory"
	} else {
		return f, nil
	}
	// The digest of the batch will tell whether what comes is right.
	w := Wanted{Count: 1}
	if f.page == nil { // all of its segment may be lost
		w.Count = MaxWanted
	}
	p, err := d.fetch(f, w)
	if err != nil {
		return f, fmt.Errorf("%w: page %d of %s %s: %w", ErrMismatch, f.number, whose(f.other), what, err)
	}
	d.store.damaged.Add(1)
	f.page = p
	return f, nil
}

// filled is the number of slots of a segment that this channel may refer to.
func (d *Decoder) filled(g *segment) int {
	if g.owner == d {
		return int(g.filled)
	}
	return int(g.written.Load())
}

func whose(other bool) string {
	if other {
		return "ours"
	}
	return "the peer's"
}

// open begins to fill a segment.
func (r *rebuild) open(id uint64) error {
	g, err := r.d.store.received.follow(id, r.d)
	if err != nil {
		return err
	}
	r.d.store.grow()
	r.d.received.took(g)
	r.d.seg = g
	r.d.open.Store(g)
	r.d.added = append(r.d.added, span{seg: g})
	return nil
}

var errSegment = errors.New("no segment is open for a page to keep")

// keep stores a page and makes it the version of its address.
func (r *rebuild) keep(at *handle, p []byte) error {
	d := r.d
	g := d.seg
	if g == nil || g.filled >= record.SegmentPages {
		return errSegment
	}
	if n := len(d.added); n == 0 || d.added[n-1].seg != g {
		if d.received.get(g.id) != g {
			return fmt.Errorf("%w: segment %d is below the floor", errSegment, g.id)
		}
		d.added = append(d.added, span{seg: g, first: g.filled})
	}
	if g.mem.Load() == nil {
		return fmt.Errorf("%w: segment %d was closed", errSegment, g.id)
	}
	i := g.filled
	copy(g.slot(int(i)), p)
	g.sums[i] = fingerprint(p)
	g.filled++
	setVersion(at, handle((firstNumber(g.id)+uint64(i))&numberMask))
	return nil
}

// verify checks that the batch was used up and made what its digest is of.
func (r *rebuild) verify() error {
	if len(r.deltas)+len(r.literals)+len(r.opaque) > 0 {
		return fmt.Errorf("%w: bytes of a column are left over", ErrMismatch)
	}
	if n := len(r.out) - r.start; n != r.msg.Raw || r.items != r.msg.Items {
		return fmt.Errorf("%w: %d items of %d bytes rebuilt, not %d of %d", ErrMismatch, r.items, n, r.msg.Items, r.msg.Raw)
	}
	if digestOf(r.out[r.start:], r.msg) != r.msg.Digest {
		return fmt.Errorf("%w: the digest of the rebuilt bytes is not the sender's", ErrMismatch)
	}
	return nil
}
