package dedup

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"

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

// is reports whether f is a page of the fingerprint h and the bytes of p.
func (e *Encoder) is(f *found, h uint64, p []byte) bool {
	return f.seg != nil && f.seg.sums[f.slot] == h && bytes.Equal(e.content(f), p)
}

// content is the page; nil when it cannot be read. It is good until the next
// call.
func (e *Encoder) content(f *found) []byte {
	sh := e.store.sent
	if f.other {
		sh = e.store.received
	}
	return f.seg.content(f.slot, sh.files(), &e.scratch)
}

func (f *found) handle() handle { return handleOf(f.number, f.other) }

// page encodes a whole page: the first way that fits is taken.
func (e *Encoder) page(it page.Item) {
	p, stats := it.Data, &e.batch.Stats
	stats.Pages++
	if isZero(p) {
		stats.Zero++
		e.versions.cleared(it.Addr)
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
	if e.is(&same, h, p) && !same.retiring {
		stats.Refs++
		e.course.met(same.number, same.other)
		e.emit(record.Op{Kind: record.Same}, it)
		return
	}
	if f := e.lookup(h, p); f.seg != nil && !f.retiring {
		stats.Refs++
		e.refer(record.Op{Kind: record.Ref}, &f, it)
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
	if g == nil || g.shunned.Load() {
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
	first, second := e.store.index.candidates(h)
	for _, slots := range [2][]atomic.Uint64{first, second} {
		for i := range slots {
			v := slots[i].Load()
			if v>>32 != h>>32 || v == 0 {
				continue
			}
			if f := e.usable(handle(v)); e.is(&f, h, p) {
				return f
			}
		}
	}
	return found{}
}

// refer emits an op of one item that refers to f.
func (e *Encoder) refer(o record.Op, f *found, it page.Item) {
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
	e.refer(record.Op{Kind: record.DeltaRef}, f, it)
	setVersion(at, e.keep(h, it.Data))
}

// fresh encodes a page that the peer does not hold.
func (e *Encoder) fresh(h uint64, at *handle, same found, it page.Item) {
	if !e.room() {
		e.literal(record.Passing, it)
		return
	}
	if e.elsewhere(h, at, it) {
		return
	}
	e.choose(same, it.Data)
	f := e.batch.bufs
	place := len(f.literals)
	whole := !e.changed(it)
	if whole {
		e.literal(record.Literal, it)
	}
	v := e.keep(h, it.Data)
	setVersion(at, v)
	if whole && e.batch.Setting.bases() == 0 {
		f.strays = append(f.strays, stray{v, place})
		return
	}
	e.store.anchors.put(&e.bases.anchors, v)
}

// changed emits a page as a change of the bases that choose has found. It
// fails when there is none, or the page is not worth it.
func (e *Encoder) changed(it page.Item) bool {
	c, f := &e.bases, e.batch.bufs
	if c.n == 0 {
		return false
	}
	base, ok := e.base(), false
	if base != nil {
		f.deltas, f.literals, ok = e.differ.make(f.deltas, f.literals, base, it.Data)
	}
	if !ok {
		return false
	}
	e.batch.Stats.Deltas++
	first := &c.found[0]
	c.n = max((e.differ.used+page.Size-1)/page.Size, 1) // the last ones may not have been of use
	if c.n > c.near {
		e.batch.Stats.Searched++
	}
	switch {
	case c.n > 1:
		o := record.Op{Kind: record.DeltaMany, Same: c.same, Many: c.n - 1}
		if !o.Same {
			e.course.refer(&o, first.number, first.other)
		}
		e.course.met(first.number, first.other)
		for i, b := range c.found[1:c.n] {
			o.More[i] = record.Base{Ref: e.course.away(b.number, b.other), Other: b.other}
		}
		e.emit(o, it)
	case c.same:
		e.course.met(first.number, first.other)
		e.emit(record.Op{Kind: record.DeltaSame}, it)
	default:
		e.refer(record.Op{Kind: record.DeltaRef}, first, it)
	}
	return true
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
	e.store.grow()
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
	if r := &e.run; r.Count > 0 && o.Kind == r.Kind && o.Kind <= record.DeltaRef && o.Head == r.Head && o.Head != record.HeadExplicit &&
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
