package dedup

import (
	"bytes"
	"encoding/binary"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// A found page is one that both ends hold.
type found struct {
	seg    *segment // nil: none
	slot   int
	number uint64
	other  bool // numbered by the peer
	// retiring pages are met for the last time: what is like them is kept
	// anew, so that their segment can go.
	retiring bool
}

// is reports whether the page has the fingerprint h and the bytes of p.
func (f *found) is(h uint64, p []byte) bool {
	return f.seg != nil && f.seg.sums[f.slot] == h && bytes.Equal(f.seg.slot(f.slot), p)
}

func (f *found) handle() handle {
	h := handle(f.number & numberMask)
	if f.other {
		h |= otherShelf
	}
	return h
}

// page encodes a whole page: the first way that fits is taken.
func (e *Encoder) page(it page.Item) {
	p, stats := it.Data, &e.batch.Stats
	stats.Pages++
	if isZero(p) {
		stats.Zero++
		e.emit(record.Op{Kind: record.Blank}, it)
		return
	}
	if !e.wants && e.batch.msg.Peer != 0 {
		e.wants, e.hurry = true, true
	}
	h := fingerprint(p)
	at := e.versions.at(it.Addr)
	var same found
	if at != nil && *at != 0 {
		same = e.usable(*at)
	}
	if same.is(h, p) && !same.retiring {
		stats.Refs++
		e.course.met(same.number, same.other)
		e.emit(record.Op{Kind: record.Same}, it)
		return
	}
	if f := e.lookup(h, p); f.seg != nil && !f.retiring {
		stats.Refs++
		e.refer(record.Ref, &f, it)
		setVersion(at, f.handle())
		return
	} else if f.seg != nil {
		e.again(&f, h, at, it)
		return
	}
	e.fresh(h, at, same, it)
}

func setVersion(at *handle, h handle) {
	if at != nil {
		*at = h
	}
}

// usable finds the page that a handle means if the peer surely holds it.
func (e *Encoder) usable(h handle) (f found) {
	f.other = h&otherShelf != 0
	sh, ps := e.store.sent, &e.sent
	floor := sh.distrust.Load()
	if f.other {
		if !e.using {
			return found{}
		}
		sh, ps = e.store.received, &e.received
		floor = max(sh.distrust.Load(), e.batch.msg.PeerFloor)
	}
	f.number = sh.number(h)
	id := f.number / record.SegmentPages
	if id < floor {
		return found{}
	}
	g, i := ps.page(f.number)
	if g == nil {
		return found{}
	}
	var filled uint32
	switch {
	case f.other:
		filled = g.written.Load()
	case g.owner == e:
		filled = g.filled // decoded before what we encode now
	default:
		filled = g.acked.Load()
	}
	if i >= int(filled) {
		return found{}
	}
	f.seg, f.slot = g, i
	f.retiring = !f.other && id < sh.retire.Load()
	return f
}

// lookup finds a page equal to p, of fingerprint h.
func (e *Encoder) lookup(h uint64, p []byte) found {
	slots := e.store.index.candidates(h)
	for i := range slots {
		v := slots[i].Load()
		if v>>32 != h>>32 || v == 0 {
			continue
		}
		if f := e.usable(handle(v)); f.is(h, p) {
			return f
		}
	}
	return found{}
}

// refer emits an op of one item that refers to f.
func (e *Encoder) refer(k record.Kind, f *found, it page.Item) {
	o := record.Op{Kind: k}
	e.course.refer(&o, f.number, f.other)
	e.course.met(f.number, f.other)
	e.emit(o, it)
}

// again keeps a page anew that both ends hold, but not for long.
func (e *Encoder) again(f *found, h uint64, at *handle, it page.Item) {
	if !e.room() {
		e.literal(record.Passing, it)
		return
	}
	e.batch.Stats.Refs++
	d := binary.AppendUvarint(e.batch.bufs.deltas, 0)
	e.batch.bufs.deltas = binary.AppendUvarint(d, page.Size<<1)
	e.refer(record.DeltaRef, f, it)
	setVersion(at, e.keep(h, it.Data))
}

// fresh encodes a page that the peer does not hold.
func (e *Encoder) fresh(h uint64, at *handle, same found, it page.Item) {
	if !e.room() {
		e.literal(record.Passing, it)
		return
	}
	base, kind := e.base(same, it.Data)
	f := e.batch.bufs
	var ok bool
	if base.seg != nil {
		f.deltas, f.literals, ok = e.differ.make(f.deltas, f.literals, base.seg.slot(base.slot), it.Data)
	}
	switch {
	case !ok:
		e.literal(record.Literal, it)
	case kind == record.DeltaSame:
		e.batch.Stats.Deltas++
		e.course.met(base.number, base.other)
		e.emit(record.Op{Kind: kind}, it)
	default:
		e.batch.Stats.Deltas++
		e.refer(kind, &base, it)
	}
	setVersion(at, e.keep(h, it.Data))
}

// near is the number of differing words below which the search for a better
// base is not worth its time (reduction.md, 3).
const near = 64

// base chooses the page that p is a version of: the one last seen at its
// address, or the one after the page that the previous one was like. That
// finds the old version of a changed page when a guest comes again on a new
// channel. A base without a segment is none.
func (e *Encoder) base(same found, p []byte) (best found, kind record.Kind) {
	kind, words := record.DeltaSame, maxDiffering
	if same.seg != nil && !same.retiring {
		if n := differing(same.seg.slot(same.slot), p, words); n < words {
			best, words = same, n
		}
	}
	if words < near {
		return best, kind
	}
	c := &e.course
	next := found{number: c.next[shelfIndex(c.other)], other: c.other}
	if next.number == 0 || next.number == same.number && next.other == same.other {
		return best, kind
	}
	next = e.usable(next.handle())
	if next.seg != nil && !next.retiring {
		if n := differing(next.seg.slot(next.slot), p, words); n < words {
			best, kind = next, record.DeltaRef
		}
	}
	return best, kind
}

// literal emits a page in full.
func (e *Encoder) literal(k record.Kind, it page.Item) {
	e.batch.Stats.Literals++
	e.batch.bufs.literals = append(e.batch.bufs.literals, it.Data...)
	e.course.missed()
	e.emit(record.Op{Kind: k}, it)
}

// room makes sure that keep has a slot, and tells the peer when a new segment
// begins. It is false when the store is full of what is in flight.
func (e *Encoder) room() bool {
	sh := e.store.sent
	if e.seg != nil && !e.segSure {
		// While nothing was in flight the segment may have been retired.
		if e.seg.id < sh.retire.Load() || e.sent.get(e.seg.id) == nil {
			e.seg = nil
		}
		e.segSure = true
	}
	if e.seg != nil && e.seg.filled < record.SegmentPages {
		return true
	}
	if e.shelfFull {
		return false
	}
	e.seg = sh.open(e)
	if e.seg == nil {
		e.shelfFull = true
		return false
	}
	e.segSure = true
	e.sent.took(e.seg)
	e.flush()
	e.write(record.Op{Kind: record.Segment, Segment: e.seg.id})
	return true
}

// keep stores p, of fingerprint h, in the slot that room has found.
func (e *Encoder) keep(h uint64, p []byte) handle {
	g := e.seg
	i := g.filled
	copy(g.slot(int(i)), p)
	g.sums[i] = h
	g.filled++
	n := handle((firstNumber(g.id) + uint64(i)) & numberMask)
	e.store.index.put(h, n)
	return n
}

// bytes encodes bytes without structure.
func (e *Encoder) bytes(b []byte) {
	if len(b) == 0 {
		return
	}
	e.batch.Stats.Opaque += int64(len(b))
	e.batch.bufs.opaque = append(e.batch.bufs.opaque, b...)
	if e.run.Kind == record.Bytes && e.run.Count > 0 {
		e.run.Count += len(b)
		return
	}
	e.flush()
	e.run = record.Op{Kind: record.Bytes, Count: len(b)}
	e.batch.msg.Items++
}

// emit adds an op of one item: to the run, if it goes on with it.
func (e *Encoder) emit(o record.Op, it page.Item) {
	o.Count = 1
	e.course.head(&o, it.Head, it.Addr)
	e.course.aim(&o, it.Addr)
	if o.Head == record.HeadExplicit {
		e.batch.bufs.opaque = append(e.batch.bufs.opaque, it.Head...)
	}
	e.batch.msg.Items++
	if r := &e.run; r.Count > 0 && o.Kind == r.Kind && o.Head == r.Head && o.Head != record.HeadExplicit &&
		o.Addr <= record.AddrNext && (o.Addr == record.AddrNone) == (r.Addr == record.AddrNone) &&
		o.Ref == 0 && o.Other == r.Other {
		r.Count++
		return
	}
	e.flush()
	e.run = o
}

// flush writes the run.
func (e *Encoder) flush() {
	if e.run.Count > 0 {
		e.write(e.run)
		e.run.Count = 0
	}
}

func (e *Encoder) write(o record.Op) {
	e.batch.bufs.ops = o.Append(e.batch.bufs.ops)
}
