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
	near  int // of these, found without a search
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

// base is the content of all bases, one behind the other; nil when one cannot
// be read.
func (e *Encoder) base() []byte {
	c := &e.bases
	if c.n == 1 {
		return e.content(&c.found[0])
	}
	for i := range c.n {
		p := e.content(&c.found[i])
		if p == nil {
			return nil
		}
		copy(c.dict[i*page.Size:], p)
	}
	return c.dict[:c.n*page.Size]
}

// differs counts the words in which f and p differ, limit at most.
func (e *Encoder) differs(f *found, p []byte, limit int) int {
	if f.seg == nil || f.retiring {
		return limit
	}
	q := e.content(f)
	if q == nil {
		return limit
	}
	return differing(q, p, limit)
}

// choose finds the bases of p: the page last seen at its address, or the one
// after the page that the previous one was like, which finds the old version of
// a changed page when a guest comes again on a new channel; then those pages
// that share most anchors with p.
func (e *Encoder) choose(same found, p []byte) {
	c := &e.bases
	c.n, c.same, c.anchors.n = 0, false, 0
	best, words := found{}, maxDiffering
	if n := e.differs(&same, p, words); n < words {
		best, words, c.same = same, n, true
	}
	if words >= near {
		next := e.next(same)
		if n := e.differs(&next, p, words); n < words {
			best, words, c.same = next, n, false
		}
	}
	if best.seg != nil {
		c.add(best)
	}
	c.near = c.n
	if words >= near && e.batch.Setting.bases() > 0 {
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
	c.anchors.find(p, e.batch.Setting.leastAnchor())
	e.store.anchors.vote(&c.anchors, &c.votes)
	for most := e.batch.Setting.bases(); c.n < most; {
		h := c.votes.best()
		if h == 0 {
			return
		}
		if f := e.usable(h); f.seg != nil && !f.retiring {
			c.add(f)
		}
	}
}
