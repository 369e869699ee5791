package dedup

import (
	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// leastShort is the number of bytes below which the rest of a chunk goes as it
// is: a reference and its place in a store would cost as much.
const leastShort = 64

// chunk encodes a chunk of a stream without known structure: as pages of a store
// from its first byte on, and what is left as a short one. A stream that comes
// again is cut alike, so it costs references; so does what is equal in another
// one from the next cut on.
func (e *Encoder) chunk(b []byte) {
	for ; len(b) >= page.Size; b = b[page.Size:] {
		e.page(page.Item{Kind: page.Full, Data: b[:page.Size]})
	}
	if len(b) < leastShort {
		e.bytes(b)
		return
	}
	e.short(b)
}

// short encodes less than a page.
func (e *Encoder) short(b []byte) {
	p := e.patched[:]
	clear(p[copy(p, b):])
	e.batch.Stats.Pages++
	o := record.Op{Kind: record.Short, Len: len(b)}
	h := fingerprint(p)
	if f := e.lookup(h, p); f.seg != nil && !f.retiring {
		e.batch.Stats.Refs++
		o.Known = true
		e.refer(o, &f, page.Item{})
		return
	}
	if !e.room() {
		e.batch.Stats.Pages--
		e.bytes(b)
		return
	}
	e.batch.Stats.Literals++
	e.batch.bufs.literals = append(e.batch.bufs.literals, b...)
	e.course.missed()
	e.emit(o, page.Item{})
	e.keep(h, p)
}

// short rebuilds less than a page.
func (r *rebuild) short(o *record.Op) error {
	d := r.d
	r.stats.Pages++
	if !o.Known {
		r.stats.Literals++
		if err := r.take(&r.literals, o.Len); err != nil {
			return err
		}
		d.course.missed()
		p := d.patched[:]
		clear(p[copy(p, r.out[len(r.out)-o.Len:]):])
		return r.keep(nil, p)
	}
	f, err := r.held(found{number: d.course.number(o, true), other: o.Other})
	if err != nil {
		return err
	}
	r.stats.Refs++
	d.course.met(f.number, f.other)
	if len(r.out)-r.start+o.Len > r.msg.Raw {
		return errTooMuch
	}
	r.out = append(r.out, f.page[:o.Len]...)
	return nil
}
