package dedup

import (
	"bytes"
	"encoding/binary"
	"fmt"

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

// difference rebuilds a page of the kind XBZRLE, and what the stream has of it.
func (r *rebuild) difference(o *record.Op, a page.Addr) error {
	d := r.d
	at := d.versions.at(a)
	base, err := r.older(o, at)
	if err != nil {
		return err
	}
	if o.Len == 0 {
		return r.made(o, at, base)
	}
	r.stats.Deltas++
	start := len(r.out)
	if start-r.start+xbzrleHead+o.Len > r.msg.Raw {
		return errTooMuch
	}
	r.out = binary.BigEndian.AppendUint16(append(r.out, 1), uint16(o.Len))
	if err := r.take(&r.literals, o.Len); err != nil {
		return err
	}
	if err := xbzrle.Apply(d.patched[:], base, r.out[start+xbzrleHead:]); err != nil {
		return err
	}
	return r.keep(at, d.patched[:])
}

// made makes the difference of a page that is known.
func (r *rebuild) made(o *record.Op, at *handle, base []byte) error {
	d := r.d
	r.stats.Refs++
	copy(d.patched[:], base) // a page of the store lasts until the next one
	f, err := r.held(found{number: d.course.number(o, true), other: o.Other})
	if err != nil {
		return err
	}
	d.course.met(f.number, f.other)
	d.diff = xbzrle.Append(d.diff[:0], d.patched[:], f.page)
	if len(r.out)-r.start+xbzrleHead+len(d.diff) > r.msg.Raw {
		return errTooMuch
	}
	r.out = binary.BigEndian.AppendUint16(append(r.out, 1), uint16(len(d.diff)))
	r.out = append(r.out, d.diff...)
	setVersion(at, f.handle())
	return nil
}

// older is the page that last came for the address of o.
func (r *rebuild) older(o *record.Op, at *handle) ([]byte, error) {
	if at == nil || *at == 0 {
		return nil, fmt.Errorf("%w: nothing has come for this address yet", ErrMismatch)
	}
	if *at == blank {
		return zeroPage[:], nil
	}
	f, err := r.last(at)
	if err != nil {
		return nil, err
	}
	if o.Len > 0 {
		r.d.course.met(f.number, f.other)
	}
	return f.page, nil
}
