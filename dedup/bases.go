package dedup

import (
	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// near is the number of differing words below which the search for a better
// base is not worth its time (reduction.md, 3).
const near = 64

// bases are the pages that one new page is put together from.
type bases struct {
	n     int
	found [record.MaxBases]found
	same  bool // the first is the page last seen at the address
	dict  [maxBase]byte

	anchors anchors // of the new page; none when it is near its base
	votes   votes
}

// add takes f for a base, unless it is one already.
func (c *bases) add(f found) {
	for i := range c.n {
		if c.found[i].seg == f.seg && c.found[i].slot == f.slot {
			return
		}
	}
	c.found[c.n] = f
	c.n++
}

// base is the content of all bases, one behind the other.
func (c *bases) base() []byte {
	if c.n == 1 {
		return c.found[0].seg.slot(c.found[0].slot)
	}
	for i := range c.n {
		copy(c.dict[i*page.Size:], c.found[i].seg.slot(c.found[i].slot))
	}
	return c.dict[:c.n*page.Size]
}

// choose finds the bases of p: the page last seen at its address, or the one
// after the page that the previous one was like, which finds the old version of
// a changed page when a guest comes again on a new channel; then those pages
// that share most anchors with p.
func (e *Encoder) choose(same found, p []byte) {
	c := &e.bases
	c.n, c.same, c.anchors.n = 0, false, 0
	best, words := found{}, maxDiffering
	if same.seg != nil && !same.retiring {
		if n := differing(same.seg.slot(same.slot), p, words); n < words {
			best, words, c.same = same, n, true
		}
	}
	if words >= near {
		if next := e.next(same); next.seg != nil && !next.retiring {
			if n := differing(next.seg.slot(next.slot), p, words); n < words {
				best, words, c.same = next, n, false
			}
		}
	}
	if best.seg != nil {
		c.add(best)
	}
	if words >= near {
		e.search(p)
	}
}

// next is the page after the one that the previous page was like, unless it is
// same or is not held.
func (e *Encoder) next(same found) found {
	c := &e.course
	f := found{number: c.next[shelfIndex(c.other)], other: c.other}
	if f.number == 0 || f.number == same.number && f.other == same.other {
		return found{}
	}
	return e.usable(f.handle())
}

// search adds the pages that share most anchors with p.
func (e *Encoder) search(p []byte) {
	c := &e.bases
	c.anchors.find(p)
	e.store.anchors.vote(&c.anchors, &c.votes)
	for most := e.batch.set.bases(); c.n < most; {
		h := c.votes.best()
		if h == 0 {
			return
		}
		if f := e.usable(h); f.seg != nil && !f.retiring {
			c.add(f)
		}
	}
}
