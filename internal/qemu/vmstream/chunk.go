package vmstream

import "github.com/longhaul-project/longhaul/internal/page"

// Sizes of chunks in bytes. They are cut as FastCDC cuts (Xia et al., USENIX ATC
// 2016, with normalized chunking of level 1), but are larger than its usual 4 to
// 64 KiB: inside of a chunk dedup finds again by itself what has moved, and at the
// end of one it cannot look further (bench/results has what each size leaves).
const (
	minChunk    = 16 << 10
	normalChunk = 128 << 10 // up to it a cut is rarer, from it on more frequent
	maxChunkLen = page.MaxItem
	chunkWindow = 64 // bytes that decide about a cut; fixed by the width of the hash
)

// A hash below one of these is a cut: of one byte in 256 Ki, and in 64 Ki.
const (
	cutEarly = 1 << (64 - 18)
	cutLate  = 1 << (64 - 16)
)

// chunks cuts a stream that has no structure for us into chunks where its
// content says so, so that what comes again is cut alike, whatever stands before
// it. It waits for the end of a chunk until the caller calls Cut.
type chunks struct {
	gear   *[256]uint64
	rolled int    // bytes of the chunk that were looked at
	hash   uint64 // of the last of them
}

// NewOpaque returns a scanner for a stream of unknown kind.
func NewOpaque() page.Scanner { return &chunks{gear: newGear()} }

// newGear has a random number for each byte: splitmix64 from seed 2.
func newGear() *[256]uint64 {
	var g [256]uint64
	x := uint64(2)
	for i := range g {
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		g[i] = z ^ z>>31
	}
	return &g
}

// Next implements page.Scanner.
func (c *chunks) Next(b []byte) (page.Item, int) {
	n := c.find(b)
	if n == 0 {
		return page.Item{}, 0
	}
	c.rolled = 0
	return page.Item{Kind: page.Chunk, Data: b[:n]}, n
}

// find is the length of the chunk at the start of b, or 0 if its end is not
// there yet.
func (c *chunks) find(b []byte) int {
	b = b[:min(len(b), maxChunkLen)]
	if len(b) < minChunk {
		return 0
	}
	i, h := c.rolled, c.hash
	if i == 0 { // no cut is looked for in the first bytes
		i, h = minChunk-chunkWindow, 0
	}
	for ; i < min(len(b), minChunk); i++ {
		h = h<<1 + c.gear[b[i]]
	}
	for ; i < min(len(b), normalChunk); i++ {
		if h = h<<1 + c.gear[b[i]]; h < cutEarly {
			return i + 1
		}
	}
	for ; i < len(b); i++ {
		if h = h<<1 + c.gear[b[i]]; h < cutLate {
			return i + 1
		}
	}
	if i == maxChunkLen {
		return i
	}
	c.rolled, c.hash = i, h
	return 0
}

// Cut implements page.Scanner. What the source has left is a chunk of its own, if
// it is long enough that its content, and not its length, is likely to be known.
func (c *chunks) Cut(b []byte) page.Item {
	c.rolled = 0
	it := page.Item{Kind: page.Opaque, Mark: page.Flush, Data: b}
	if len(b) >= page.Size {
		it.Kind = page.Chunk
	}
	return it
}

// Facts implements page.Scanner.
func (c *chunks) Facts() page.Facts { return page.Facts{Format: "opaque"} }
