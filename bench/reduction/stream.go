package reduction

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream"
)

// Content is what a stream holds. Pages are counted once, in the first of
// Zero, Same, Changed and Duplicates that fits.
type Content struct {
	Name       string `json:"name"`
	Bytes      int64  `json:"bytes"`
	Pages      int64  `json:"pages"`
	Zero       int64  `json:"zero_pages"`
	Same       int64  `json:"resent_same_pages"`      // as it was sent for the same address before
	Changed    int64  `json:"resent_changed_pages"`   // sent before with another content
	Sparse     int64  `json:"sparsely_changed_pages"` // of Changed: in less than 64 of 512 words
	Duplicates int64  `json:"duplicate_pages"`        // equal to a page of another address before
	Rounds     int    `json:"rounds"`                 // as the scanner counts them
	Lost       string `json:"lost,omitempty"`         // why the scanner gave up on structure
}

// items hands the items of a stream to f, in order.
func items(b []byte, f func(page.Item)) page.Facts {
	s, _ := vmstream.Recognise(b[:min(len(b), 64)])
	for len(b) > 0 {
		window := b[:min(len(b), page.MaxItem)]
		it, n := s.Next(window)
		if n == 0 {
			it, n = s.Cut(window), len(window)
		}
		f(it)
		b = b[n:]
	}
	return s.Facts()
}

// census keeps what was seen of a stream.
type census struct {
	Content
	seed maphash.Seed
	at   map[page.Addr][]byte // the last content for an address; nil for zero
	seen map[uint64]struct{}  // hashes of all contents; 2^20 pages collide once in 2^24 runs
}

// Count tells what a stream holds.
func Count(name string, b []byte) Content {
	c := census{Content: Content{Name: name, Bytes: int64(len(b))},
		seed: maphash.MakeSeed(), at: make(map[page.Addr][]byte), seen: make(map[uint64]struct{})}
	facts := items(b, c.item)
	c.Rounds, c.Lost = facts.Rounds, facts.Lost
	return c.Content
}

func (c *census) item(it page.Item) {
	if it.Kind != page.Full && it.Kind != page.Zero {
		return
	}
	c.Pages++
	before, known := c.at[it.Addr]
	if it.Kind == page.Zero {
		c.Zero++
		c.at[it.Addr] = nil
		return
	}
	c.at[it.Addr] = it.Data
	sum := maphash.Bytes(c.seed, it.Data)
	_, seen := c.seen[sum]
	c.seen[sum] = struct{}{}
	switch words := differing(before, it.Data); {
	case known && words == 0:
		c.Same++
	case known:
		c.Changed++
		if words < 64 {
			c.Sparse++
		}
	case seen:
		c.Duplicates++
	}
}

// differing counts the words of b that are not as in a. A nil a is zero.
func differing(a, b []byte) (n int) {
	for i := 0; i < len(b); i += 8 {
		var was uint64
		if a != nil {
			was = binary.LittleEndian.Uint64(a[i:])
		}
		if binary.LittleEndian.Uint64(b[i:]) != was {
			n++
		}
	}
	return n
}
