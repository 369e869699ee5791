package dedup

import (
	"bytes"
	"encoding/binary"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/page/xbzrle"
)

const (
	// xbzrleHead is what stands before a difference in the stream, in bytes.
	xbzrleHead = 3

	// shortDiff is the length of a difference, in bytes, from which on it pays
	// to look for the page elsewhere: a reference has up to five.
	shortDiff = 8
)

// difference encodes a page that the stream has as its difference to the one
// before. Both ends apply it to the version that they hold, so that the page is
// known when it comes again. It travels as it is, for it is short already; if the
// page is known from elsewhere, a reference does, and the far end makes the
// difference itself.
func (e *Encoder) difference(it page.Item) {
	base, p := e.apply(it)
	if p == nil || !e.room() {
		e.bytes(it.Head)
		e.bytes(it.Data)
		return
	}
	e.batch.Stats.Pages++
	diff := it.Data[xbzrleHead:]
	at := e.versions.at(it.Addr)
	o := record.Op{Kind: record.XBZRLE, Len: len(diff)}
	h := fingerprint(p)
	if len(diff) > shortDiff {
		if f := e.lookup(h, p); f.seg != nil && !f.retiring && e.makes(&base, p, diff) {
			e.batch.Stats.Refs++
			o.Len = 0
			e.refer(o, &f, it)
			setVersion(at, f.handle())
			return
		}
	}
	e.batch.Stats.Deltas++
	e.batch.bufs.literals = append(e.batch.bufs.literals, diff...)
	if base.seg != nil { // the next page is likely to be like the next one
		e.course.met(base.number, base.other)
	}
	e.emit(o, it)
	setVersion(at, e.keep(h, p))
}

// apply makes the new page p of the one before, which is base; base.seg is nil if
// that is blank. p is nil when the version is not at hand, or the item is not what
// it says.
func (e *Encoder) apply(it page.Item) (base found, p []byte) {
	at, n := e.versions.at(it.Addr), len(it.Data)-xbzrleHead
	if at == nil || *at == 0 || len(it.Head) == 0 || n <= 0 || n > page.Size ||
		it.Data[0] != 1 || int(binary.BigEndian.Uint16(it.Data[1:])) != n {
		return base, nil
	}
	if *at != blank {
		if base = e.usable(*at); base.seg == nil {
			return base, nil
		}
	}
	old := e.before(&base)
	if old == nil || xbzrle.Apply(e.patched[:], old, it.Data[xbzrleHead:]) != nil {
		return base, nil
	}
	return base, e.patched[:]
}

// before is the content of what apply has found; nil if it cannot be read.
func (e *Encoder) before(base *found) []byte {
	if base.seg == nil {
		return zeroPage[:]
	}
	return e.content(base)
}

// makes tells whether the difference of p to the page before it is diff.
func (e *Encoder) makes(base *found, p, diff []byte) bool {
	old := e.before(base)
	if old == nil {
		return false
	}
	e.diff = xbzrle.Append(e.diff[:0], old, p)
	return bytes.Equal(e.diff, diff)
}

// difference resolves a page of the kind XBZRLE: the page that last came for its
// address, if that is not blank, and what it has become, if that is known.
func (p *resolver) difference(o *record.Op, a page.Addr, s *step) error {
	d := p.d
	at := d.versions.at(a)
	if at == nil || *at == 0 {
		return errNoVersion
	}
	if *at != blank {
		number, other := d.version(*at)
		p.refer(number, other, s)
		if o.Len > 0 {
			d.course.met(number, other)
		}
	}
	if o.Len > 0 {
		p.r.stats.Deltas++
		return p.keep(at, s)
	}
	p.r.stats.Refs++
	n := d.course.number(o, true)
	p.refer(n, o.Other, s)
	d.course.met(n, o.Other)
	setVersion(at, handleOf(n, o.Other))
	return nil
}

// difference rebuilds a page of the kind XBZRLE, and what the stream has of it.
func (w *work) difference(s *step) error {
	base := zeroPage[:]
	if s.sources > 1 || s.sources == 1 && s.n > 0 {
		var err error
		if base, err = w.page(); err != nil {
			return err
		}
	}
	if s.n == 0 {
		return w.made(base)
	}
	start := len(w.out)
	if !w.fits(xbzrleHead + s.n) {
		return errTooMuch
	}
	w.out = binary.BigEndian.AppendUint16(append(w.out, 1), uint16(s.n))
	if err := w.take(&w.literals, s.n); err != nil {
		return err
	}
	if err := xbzrle.Apply(w.desk.patched[:], base, w.out[start+xbzrleHead:]); err != nil {
		return err
	}
	w.keep(w.desk.patched[:])
	return nil
}

// made makes the difference of a page that is known.
func (w *work) made(base []byte) error {
	t := w.desk
	copy(t.patched[:], base) // a page of the store lasts until the next one
	p, err := w.page()
	if err != nil {
		return err
	}
	t.diff = xbzrle.Append(t.diff[:0], t.patched[:], p)
	if !w.fits(xbzrleHead + len(t.diff)) {
		return errTooMuch
	}
	w.out = binary.BigEndian.AppendUint16(append(w.out, 1), uint16(len(t.diff)))
	w.out = append(w.out, t.diff...)
	return nil
}
