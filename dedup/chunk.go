package dedup

import (
	"bytes"

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
	for len(b) >= page.Size {
		if n := e.ahead(b); n > 0 {
			e.short(b[:n])
			b = b[n:]
		}
		e.page(page.Item{Kind: page.Full, Data: b[:page.Size]})
		b = b[page.Size:]
	}
	e.short(b)
}

// ahead is how many bytes, less than a page, stand before a page that both ends
// hold; 0 if there is none, or one begins right here. So the pages of a guest are
// found in a stream of whatever hypervisor, wherever they lie in it.
func (e *Encoder) ahead(b []byte) int {
	if f := e.lookup(fingerprint(b[:page.Size]), b[:page.Size]); f.seg != nil {
		return 0
	}
	if q := b[min(e.gap, len(b)):]; len(q) >= page.Size { // as before: the head of each page, say
		if f := e.lookup(fingerprint(q[:page.Size]), q[:page.Size]); f.seg != nil {
			return e.gap
		}
	}
	if f := e.next(found{}); f.seg != nil {
		if n := begins(b, e.content(&f)); n > 0 {
			e.gap = n
			return n
		}
	}
	c := &e.bases
	c.anchors.find(b, anchorMark)
	e.store.anchors.vote(&c.anchors, &c.votes)
	for range record.MaxBases {
		h := c.votes.best()
		if h == 0 {
			return 0
		}
		f := e.usable(h)
		if f.seg == nil {
			continue
		}
		if n := begins(b, e.content(&f)); n > 0 {
			e.gap = n
			return n
		}
	}
	return 0
}

const (
	headLook  = 32 // bytes of a page's start that are looked for
	headTries = 4  // places that begin alike: zeros do
)

// begins is where, in the first page of b but not at its start, the page q
// begins; 0 if it does not.
func begins(b, q []byte) int {
	if len(q) < page.Size {
		return 0
	}
	at := 1
	for range headTries {
		i := bytes.Index(b[at:min(page.Size-1+headLook, len(b))], q[:headLook])
		if i < 0 || at+i+page.Size > len(b) {
			return 0
		}
		at += i
		if bytes.Equal(b[at:at+page.Size], q) {
			return at
		}
		at++
	}
	return 0
}

// short encodes less than a page.
func (e *Encoder) short(b []byte) {
	if len(b) < leastShort {
		e.bytes(b)
		return
	}
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

// short resolves less than a page.
func (p *resolver) short(o *record.Op, s *step) error {
	d := p.d
	if !o.Known {
		p.r.stats.Literals++
		d.course.missed()
		return p.keep(nil, s)
	}
	p.r.stats.Refs++
	n := d.course.number(o, true)
	p.refer(n, o.Other, s)
	d.course.met(n, o.Other)
	return nil
}

// short rebuilds less than a page.
func (w *work) short(s *step) error {
	if s.sources == 0 {
		if err := w.take(&w.literals, s.n); err != nil {
			return err
		}
		p := w.desk.patched[:]
		clear(p[copy(p, w.out[len(w.out)-s.n:]):])
		w.keep(p)
		return nil
	}
	p, err := w.page()
	if err != nil {
		return err
	}
	if !w.fits(s.n) {
		return errTooMuch
	}
	w.out = append(w.out, p[:s.n]...)
	return nil
}
