package dedup

import (
	"encoding/binary"
	"errors"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// headSize is the length of a head that can be predicted, in bytes.
const headSize = 8

// A course predicts where the next page lives, what precedes it in the stream
// and which page the next reference names. Both ends of a channel keep one;
// it changes with every item in the same way. Its zero value is the start.
type course struct {
	space uint32
	page  uint64 // after the last one

	templates [3]uint64 // of heads, by headClass

	next  [2]uint64 // number after the last one referred to, by shelf
	other bool      // the shelf of the last reference
}

// headClass tells pages, zero pages and differences apart, for their heads differ.
func headClass(k record.Kind) int {
	switch k {
	case record.Zero:
		return 1
	case record.XBZRLE:
		return 2
	}
	return 0
}

func shelfIndex(other bool) int {
	if other {
		return 1
	}
	return 0
}

// aim fills in the address of an op of one item, and moves there.
func (c *course) aim(o *record.Op, a page.Addr) {
	if a.Space == 0 {
		o.Addr = record.AddrNone
		return
	}
	n := a.Offset / page.Size
	switch {
	case a.Space != c.space:
		o.Addr, o.Space, o.Page = record.AddrFar, a.Space, n
	case n != c.page:
		o.Addr, o.Jump = record.AddrJump, int64(n-c.page)
	default:
		o.Addr = record.AddrNext
	}
	c.space, c.page = a.Space, n+1
}

var errAddress = errors.New("address out of range")

// addr is the address of the next item of o, the first one or a later one.
func (c *course) addr(o *record.Op, first bool) (a page.Addr, err error) {
	if o.Addr == record.AddrNone {
		return a, nil
	}
	if first {
		switch o.Addr {
		case record.AddrFar:
			c.space, c.page = o.Space, o.Page
		case record.AddrJump:
			c.page += uint64(o.Jump)
		}
	}
	if c.space == 0 || c.page > record.MaxPage {
		return a, errAddress
	}
	a = page.Addr{Space: c.space, Offset: c.page * page.Size}
	c.page++
	return a, nil
}

// head fills in the head of an op of one item, and learns from it.
func (c *course) head(o *record.Op, h []byte, a page.Addr) {
	t := &c.templates[headClass(o.Kind)]
	switch {
	case len(h) == 0:
		o.Head = record.HeadNone
	case len(h) == headSize && binary.BigEndian.Uint64(h) == a.Offset+*t:
		o.Head = record.HeadPredicted
	default:
		o.Head, o.HeadLen = record.HeadExplicit, len(h)
		c.learn(o.Kind, h, a)
	}
}

// predicted is the head that is predicted for an item, as a big endian number.
func (c *course) predicted(k record.Kind, a page.Addr) uint64 {
	return a.Offset + c.templates[headClass(k)]
}

// learn takes the template from an explicit head. Longer heads are left
// alone: QEMU names the block in the head of its first page only, and goes on
// with the heads that it used in other blocks.
func (c *course) learn(k record.Kind, h []byte, a page.Addr) {
	if len(h) == headSize {
		c.templates[headClass(k)] = binary.BigEndian.Uint64(h) - a.Offset
	}
}

// met is told that a page was like page n of a shelf.
func (c *course) met(n uint64, other bool) {
	c.next[shelfIndex(other)] = n + 1
	c.other = other
}

// missed is told that a page was like none: the next one is likely to be like
// the page after the one that this took the place of.
func (c *course) missed() {
	if n := &c.next[shelfIndex(c.other)]; *n != 0 {
		*n++
	}
}

// refer fills in the reference to page n of a shelf.
func (c *course) refer(o *record.Op, n uint64, other bool) {
	o.Ref, o.Other = c.away(n, other), other
}

// away is how far page n of a shelf is from the predicted one.
func (c *course) away(n uint64, other bool) int64 { return int64(n - c.next[shelfIndex(other)]) }

// further is the page that one of the bases after the first refers to.
func (c *course) further(b record.Base) uint64 {
	return c.next[shelfIndex(b.Other)] + uint64(b.Ref)
}

// number is the page that the next item of o refers to.
func (c *course) number(o *record.Op, first bool) uint64 {
	n := c.next[shelfIndex(o.Other)]
	if first {
		n += uint64(o.Ref)
	}
	return n
}
