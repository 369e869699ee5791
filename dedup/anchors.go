package dedup

import (
	"math/bits"
	"slices"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// Anchors are places in a page that are chosen by the 64 bytes before them,
// about one in 128, so that two pages with a stretch in common share an anchor
// wherever the stretch lies in each. They find the pages that a new page can
// be put together from. That is what long-range matching of compressors does
// (zstd --long), over all that the store holds; reduction.md, 4-5.
const (
	anchorWindow = 64                   // bytes; fixed by the width of the rolling hash
	anchorSpan   = (page.Size - 64) / 4 // places that one of four lanes rolls over
	anchorMark   = 0xfe << 56           // a hash at least this high is an anchor: 1 of 128
	rareMark     = 0xff << 56           // and those of a crowded table, or of a setting with few: 1 of 256
	sparseMark   = 0xff80 << 48         // and those of a setting with the fewest: 1 of 512
	maxAnchors   = 80                   // of one page; 32 is the mean
	maxVotes     = maxAnchors           // different pages that the anchors of one page lead to
	anchorMix    = 0x9e3779b97f4a7c15   // spreads hashes over the table
)

// Slots of 8 bytes per page in an anchor table. A page has 32 anchors, of which most
// are never met again; no more than keptAnchors of them are kept. When the table may not
// have that many slots for the pages that there are, it is crowded, and keeps half as
// many of a page: what a VM has changed since it was here last then costs 4 per cent more
// (bench/results/back-with-disk-2026-11-27.txt).
const (
	roomyAnchors = 52 // when it has just grown to twice of what it was,
	leastAnchors = 26 // and at least, unless it is crowded
	fullAnchors  = 15 // when the store is full
	keptAnchors  = 30
	rareAnchors  = 14 // that are kept in a crowded one
)

// gear has a random number for each byte: splitmix64 from seed 1. Only the
// sender rolls, so the peer need not have the same.
var gear = func() (g [256]uint64) {
	x := uint64(1)
	for i := range g {
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		g[i] = z ^ z>>31
	}
	return g
}()

// anchors are the hashes of one page's anchors.
type anchors struct {
	n    int
	hash [maxAnchors]uint64
}

// find rolls over p, a page, for anchors whose hash is at least least. Four lanes side
// by side, since one alone would wait for its own last step at every byte.
func (a *anchors) find(p []byte, least uint64) {
	a.n = 0
	p = p[:page.Size]
	var h0, h1, h2, h3 uint64
	for i := range anchorWindow {
		h0 = h0<<1 + gear[p[i]]
		h1 = h1<<1 + gear[p[i+anchorSpan]]
		h2 = h2<<1 + gear[p[i+2*anchorSpan]]
		h3 = h3<<1 + gear[p[i+3*anchorSpan]]
	}
	l0, l1 := (*[anchorSpan]byte)(p[64:]), (*[anchorSpan]byte)(p[64+anchorSpan:])
	l2, l3 := (*[anchorSpan]byte)(p[64+2*anchorSpan:]), (*[anchorSpan]byte)(p[64+3*anchorSpan:])
	for i := range l0 {
		h0 = h0<<1 + gear[l0[i]]
		h1 = h1<<1 + gear[l1[i]]
		h2 = h2<<1 + gear[l2[i]]
		h3 = h3<<1 + gear[l3[i]]
		if max(h0, h1, h2, h3) >= least {
			a.add(h0, least)
			a.add(h1, least)
			a.add(h2, least)
			a.add(h3, least)
		}
	}
}

// add keeps h if it is an anchor and not the one before: a stretch of the same
// byte would be nothing but anchors.
func (a *anchors) add(h, least uint64) {
	if h < least || a.n == maxAnchors || a.n > 0 && a.hash[a.n-1] == h {
		return
	}
	a.hash[a.n] = h
	a.n++
}

// An anchorTable tells which page last had an anchor. Each anchor may sit in
// either of two slots, and takes the place of the older page of the two. Like
// the index it is a cache of hints without locks.
type anchorTable struct {
	slots atomic.Pointer[[]atomic.Uint64] // upper 32 bits: mark; lower: handle; an even number
	most  int                             // slots that it may have

	// crowded: it has less than leastAnchors slots for each page, and does not grow.
	crowded atomic.Bool
}

// newAnchorTable makes the table of a store that will hold n pages: 120 bytes for each
// of these at most, and up to 416 for each page that has come.
func newAnchorTable(n int) *anchorTable {
	t := &anchorTable{most: fullAnchors * n &^ 1}
	slots := make([]atomic.Uint64, min(t.most, roomyAnchors*record.SegmentPages))
	t.slots.Store(&slots)
	return t
}

// bytes is the memory of the table.
func (t *anchorTable) bytes() int64 { return 8 * int64(len(*t.slots.Load())) }

// tight tells whether the table should grow before it is for n pages, if it may. If it may
// not it is crowded.
func (t *anchorTable) tight(n int) bool {
	m := len(*t.slots.Load())
	short := m < leastAnchors*n
	if crowded := short && m == t.most; crowded != t.crowded.Load() {
		t.crowded.Store(crowded)
	}
	return short && m < t.most
}

// grow makes the table large enough for n pages, if it may be.
func (t *anchorTable) grow(n int) {
	if !t.tight(n) {
		return
	}
	old := *t.slots.Load()
	slots := make([]atomic.Uint64, min(roomyAnchors*n&^1, t.most))
	huge(slots)
	for i := range old {
		if v := old[i].Load(); v != 0 {
			putAnchor(slots, v>>32, handle(v))
		}
	}
	t.slots.Store(&slots)
	t.tight(n)
}

// mark is what a slot says of an anchor. Its place follows from it, so that a
// table can grow: of 32 bits those that did not choose the slot are left to tell
// anchors apart, and one in some thousand is mistaken for another, which costs
// a base that is of no use.
func mark(h uint64) uint64 { return h * anchorMix >> 32 }

// place is the slot of a mark in a table of n.
func place(mark uint64, n int) uint64 { return mark * uint64(n) >> 32 }

// put remembers that page p has the anchors a. Of a page with many it keeps those
// that are lowest, by the half of the mark that does not say where they go: pages
// that are alike then keep the same ones, and the anchors of others stay.
func (t *anchorTable) put(a *anchors, p handle) {
	slots := *t.slots.Load()
	least, most := t.bounds()
	var all [maxAnchors]uint32
	kept := all[:0]
	for _, h := range a.hash[:a.n] {
		if h >= least {
			kept = append(kept, bits.RotateLeft32(uint32(mark(h)), 16))
		}
	}
	if len(kept) > most {
		slices.Sort(kept)
		kept = slices.Compact(kept)
		kept = kept[:min(len(kept), most)]
	}
	for _, m := range kept {
		putAnchor(slots, uint64(bits.RotateLeft32(m, 16)), p)
	}
}

// bounds are the least hash of an anchor that the table keeps and looks for, and how many
// of a page it keeps.
func (t *anchorTable) bounds() (least uint64, most int) {
	if t.crowded.Load() {
		return rareMark, rareAnchors
	}
	return anchorMark, keptAnchors
}

func putAnchor(slots []atomic.Uint64, m uint64, p handle) {
	i := place(m, len(slots))
	x, y := slots[i].Load(), slots[i^1].Load()
	older := (p-handle(x))&numberMask < (p-handle(y))&numberMask // y is
	if x>>32 != m && x != 0 && (y>>32 == m || y == 0 || older) {
		i ^= 1
	}
	slots[i].Store(m<<32 | uint64(p))
}

// votes are the pages that share anchors with a page, and how many.
type votes struct {
	n      int
	pages  [maxVotes]handle
	counts [maxVotes]uint8
}

// vote collects the pages that share anchors with a.
func (t *anchorTable) vote(a *anchors, v *votes) {
	v.n = 0
	slots := *t.slots.Load()
	least, _ := t.bounds()
	for _, h := range a.hash[:a.n] {
		if h < least {
			continue
		}
		m := mark(h)
		i := place(m, len(slots))
		if x := slots[i].Load(); x>>32 == m && x != 0 {
			v.add(handle(x))
		} else if x := slots[i^1].Load(); x>>32 == m && x != 0 {
			v.add(handle(x))
		}
	}
}

func (v *votes) add(p handle) {
	for i := range v.n {
		if v.pages[i] == p {
			v.counts[i]++
			return
		}
	}
	v.pages[v.n], v.counts[v.n] = p, 1
	v.n++
}

// best takes the page with the most votes out, or 0 when none is left. Among
// equals the one that was found first wins.
func (v *votes) best() handle {
	at := -1
	for i := range v.n {
		if v.counts[i] > 0 && (at < 0 || v.counts[i] > v.counts[at]) {
			at = i
		}
	}
	if at < 0 {
		return 0
	}
	v.counts[at] = 0
	return v.pages[at]
}
