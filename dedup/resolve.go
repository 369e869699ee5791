package dedup

import (
	"errors"
	"fmt"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// A step rebuilds one item: what is left of an op once it is known where its
// pages are.
type step struct {
	kind    record.Kind
	mode    record.HeadMode
	sources uint8 // how many of the batch's sources it needs
	keeps   bool  // the page goes to the next slot that the batch fills
	headLen int   // of an explicit head, in bytes
	n       int   // bytes of the kinds Bytes, XBZRLE and Short
	head    uint64
}

// A source is a page that a batch refers to.
type source struct {
	seg    *segment // pinned; nil when the page is not held
	number uint64
	after  int32 // 1 + index in Resolved.needs of the batch that fills it; 0: it is there
	other  bool  // numbered by us
}

// A resolver is one batch being resolved: what is left of its columns, and the
// batches before it that may still be rebuilt.
type resolver struct {
	d           *Decoder
	r           *Resolved
	ops, opaque []byte
	wholePages  int // bytes of stream in whole pages
	before      []*Resolved
}

var (
	errColumn    = errors.New("a column is too short")
	errTooMuch   = errors.New("more items or bytes than the batch states")
	errNoVersion = fmt.Errorf("%w: nothing has come for this address yet", ErrMismatch)
)

// Resolve is the ordered part of decoding the next batch: it finds out which
// pages it is made of and keeps them, and gives its own pages their slots. It
// reads no page and makes no hash. It takes x. After an error the channel is lost.
//
// Rebuild has to be called for what it returns, in a goroutine of its own or not,
// and never later than for the batch after it; then Take, in order.
func (d *Decoder) Resolve(x *Expanded) (*Resolved, error) {
	if err := d.failed(); err != nil {
		x.release()
		return nil, err
	}
	if x.bufs == nil {
		panic("dedup: batch decoded twice")
	}
	r := &Resolved{Raw: x.Raw, d: d, msg: x.msg, wire: x.wire, bufs: x.bufs, settled: make(chan struct{})}
	x.bufs, r.added = nil, r.spans[:0]
	p := resolver{d: d, r: r, ops: r.bufs.ops, opaque: r.bufs.opaque}
	err := d.accept(&r.msg)
	if err == nil {
		d.mu.Lock()
		p.before = append(p.before, d.flying...)
		d.mu.Unlock()
		err = p.run()
	}
	r.received, r.sent = d.received.hand(r.few[:0]), d.sent.hand(nil)
	if err != nil {
		err = d.fail(r.msg.Seq, err)
		r.drop()
		r.Release()
		return nil, err
	}
	d.seq = r.msg.Seq
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flying = append(d.flying, r)
	return r, nil
}

// run resolves all ops.
func (p *resolver) run() error {
	for len(p.ops) > 0 {
		o, n, err := record.ParseOp(p.ops)
		if err != nil {
			return fmt.Errorf("item %d: %w", p.items(), err)
		}
		p.ops = p.ops[n:]
		if err := p.op(&o); err != nil {
			return fmt.Errorf("item %d: %s: %w", p.items(), o.Kind, err)
		}
	}
	return nil
}

func (p *resolver) items() int { return len(p.r.bufs.steps) }

// op resolves one op.
func (p *resolver) op(o *record.Op) error {
	switch o.Kind {
	case record.Segment:
		return p.open(o.Segment)
	case record.Bytes, record.Table:
		return p.bytes(o)
	}
	if p.items()+o.Count > p.r.msg.Items {
		return errTooMuch
	}
	for i := range o.Count {
		if err := p.item(o, i == 0); err != nil {
			return err
		}
	}
	return nil
}

// take cuts n bytes off the column of opaque bytes.
func (p *resolver) take(n int) ([]byte, error) {
	if n > len(p.opaque) {
		return nil, errColumn
	}
	b := p.opaque[:n]
	p.opaque = p.opaque[n:]
	return b, nil
}

// bytes resolves bytes without structure.
func (p *resolver) bytes(o *record.Op) (err error) {
	if p.items() >= p.r.msg.Items {
		return errTooMuch
	}
	p.r.stats.Opaque += int64(o.Count)
	if o.Kind == record.Table {
		err = p.table(o.Count)
	} else {
		_, err = p.take(o.Count)
	}
	if err == nil {
		p.r.bufs.steps = append(p.r.bufs.steps, step{kind: record.Bytes, n: o.Count})
	}
	return err
}

// item resolves one page or zero page with its head.
func (p *resolver) item(o *record.Op, first bool) error {
	c := &p.d.course
	a, err := c.addr(o, first)
	if err != nil {
		return err
	}
	s := step{kind: o.Kind, mode: o.Head, n: o.Len}
	switch o.Head {
	case record.HeadPredicted, record.HeadOne:
		s.head = c.predicted(o.Kind, a)
	case record.HeadExplicit:
		h, err := p.take(o.HeadLen)
		if err != nil {
			return err
		}
		c.learn(o.Kind, h, a)
		s.headLen = o.HeadLen
	}
	p.r.stats.Pages++
	switch o.Kind {
	case record.Short:
		err = p.short(o, &s)
	case record.XBZRLE:
		err = p.difference(o, a, &s)
	case record.Zero, record.Blank:
		p.r.stats.Zero++
		p.d.versions.cleared(a)
	default:
		err = p.page(o, first, a, &s)
	}
	p.r.bufs.steps = append(p.r.bufs.steps, s)
	return err
}

// page resolves one page that is not blank.
func (p *resolver) page(o *record.Op, first bool, a page.Addr, s *step) error {
	d, stats := p.d, &p.r.stats
	if p.wholePages += page.Size; p.wholePages > p.r.msg.Raw {
		return errTooMuch
	}
	at := d.versions.at(a)
	switch o.Kind {
	case record.Passing:
		stats.Literals++
		d.course.missed()
		return nil
	case record.Literal:
		stats.Literals++
		d.course.missed()
		return p.keep(at, s)
	case record.Elsewhere:
		stats.Claims++
		if _, err := p.take(record.ClaimSize); err != nil {
			return err
		}
		d.course.missed()
		return p.keep(at, s)
	}
	number, other, err := p.known(o, first, at)
	if err != nil {
		return err
	}
	p.refer(number, other, s)
	d.course.met(number, other)
	switch o.Kind {
	case record.Same, record.Ref:
		stats.Refs++
		setVersion(at, handleOf(number, other))
		return nil
	case record.DeltaMany:
		for _, b := range o.More[:o.Many] {
			p.refer(d.course.further(b), b.Other, s)
		}
	}
	stats.Deltas++
	return p.keep(at, s)
}

// known is the page that an item refers to, or its first base.
func (p *resolver) known(o *record.Op, first bool, at *handle) (number uint64, other bool, err error) {
	if o.Kind == record.Ref || o.Kind == record.DeltaRef || o.Kind == record.DeltaMany && !o.Same {
		return p.d.course.number(o, first), o.Other, nil
	}
	if at == nil || *at == 0 {
		return 0, false, errNoVersion
	}
	number, other = p.d.version(*at)
	return number, other, nil
}

// version is the page that a handle means.
func (d *Decoder) version(h handle) (number uint64, other bool) {
	if h&otherShelf != 0 {
		return d.store.sent.number(h), true
	}
	return d.store.received.number(h), false
}

// refer notes that an item needs a page, and keeps it until it is rebuilt.
func (p *resolver) refer(number uint64, other bool, s *step) {
	d := p.d
	ps := &d.received
	if other {
		ps = &d.sent
	}
	l := source{number: number, other: other}
	if g, slot := ps.page(number); g != nil && slot < d.filled(g) {
		l.seg = g
		if slot >= int(g.written.Load()) {
			l.after = p.maker(g, uint32(slot))
		}
	}
	s.sources++
	p.r.bufs.sources = append(p.r.bufs.sources, l)
}

// maker is the batch that fills a slot of ours and may not have done so yet, as
// source.after.
func (p *resolver) maker(g *segment, slot uint32) int32 {
	for i, b := range p.r.needs {
		if b.fills(g, slot) {
			return int32(i + 1)
		}
	}
	for _, b := range p.before {
		if b.fills(g, slot) {
			p.r.needs = append(p.r.needs, b)
			return int32(len(p.r.needs))
		}
	}
	return 0 // this batch, one step after the other; or it has just been taken
}

// filled is the number of slots of a segment that this channel may refer to.
func (d *Decoder) filled(g *segment) int {
	if g.owner == d {
		return int(g.filled)
	}
	return int(g.written.Load())
}

// open begins to fill a segment.
func (p *resolver) open(id uint64) error {
	d := p.d
	g, err := d.store.received.follow(id, d)
	if err != nil {
		return err
	}
	d.store.grow()
	d.received.took(g)
	d.seg = g
	d.open.Store(g)
	p.r.added = append(p.r.added, span{seg: g})
	return nil
}

var errSegment = errors.New("no segment is open for a page to keep")

// keep gives a page the next slot and makes it the version of its address.
func (p *resolver) keep(at *handle, s *step) error {
	d, r := p.d, p.r
	g := d.seg
	if g == nil || g.filled >= record.SegmentPages {
		return errSegment
	}
	if n := len(r.added); n == 0 || r.added[n-1].seg != g {
		if d.received.get(g.id) != g {
			return fmt.Errorf("%w: segment %d is below the floor", errSegment, g.id)
		}
		r.added = append(r.added, span{seg: g, first: g.filled, end: g.filled})
	}
	if g.mem.Load() == nil {
		return fmt.Errorf("%w: segment %d was closed", errSegment, g.id)
	}
	setVersion(at, handleOf(firstNumber(g.id)+uint64(g.filled), false))
	g.filled++
	r.added[len(r.added)-1].end = g.filled
	s.keeps = true
	return nil
}
