package gateway

import (
	"math"

	"github.com/longhaul-project/longhaul/dedup"
)

// What follows foretells what any setting would cost and save, from what was
// measured under the one in use. It has a table of how settings compare, and a
// few numbers of the stream and of the machine by which the table is corrected:
// whatever was measured is compared with what was foretold for it.

// A codecRung is one way to compress.
type codecRung struct {
	codec dedup.Codec
	level int
	cost  float64 // CPU nanoseconds per byte that is compressed
	left  float64 // share of these bytes that is left
	cores float64 // that can be used at once
}

// A searchRung is one way to look for pages that a new page resembles.
type searchRung struct {
	bases, anchors int
	cost           float64 // CPU nanoseconds per byte of pages that are new to the peer
	later          float64 // the same, of what any core can do
	finds          float64 // share of what the last of them finds, by the bytes that it saves
}

const manyCores = 1e9

// The table, in the order of strength: a Debian server that the peer has never
// seen (bench/results/settings-2026-11-26.txt). Levels in between are no others: the
// library has four, and fold leaves less than the last of them, 11 (57 ns and 0.322),
// for less than a third of its time. Fold and press were not measured with the others:
// fold has of the cost of zstd 7, and of what it leaves, what it has of a cold guest in
// fold-2026-11-27c.txt in the same directory, and press of zstd 11 in press-2026-11-27.txt.
// Searches were measured again, with the density of anchors, in anchors-2026-11-28.txt:
// that is what their time follows, and hardly the number of bases.
var codecRungs = [...]codecRung{
	{dedup.Raw, 0, 0.5, 1, manyCores},
	{dedup.LZ4, 0, 2.7, 0.472, manyCores},
	{dedup.Zstd, 1, 4.0, 0.358, manyCores},
	{dedup.Zstd, 3, 7.4, 0.345, manyCores},
	{dedup.Zstd, 7, 14.2, 0.339, manyCores},
	{dedup.Fold, 0, 17.9, 0.311, manyCores},
	{dedup.Press, 0, 290, 0.276, manyCores},
}

var searchRungs = [...]searchRung{
	{dedup.NoSearch, 0, 0, 0.7, 0},
	{1, 512, 1.6, 0, 0.66},
	{2, 256, 2, 0, 0.92},
	{4, 256, 2.1, 0, 0.98},
	{4, 128, 2.7, 0, 1},
}

// mostSearch is the strongest of them.
const mostSearch = len(searchRungs) - 1

const (
	// CPU nanoseconds to parse a byte of stream, look it up and digest it, and
	// to keep a byte of a page that is new to the peer.
	streamCost = 1.0
	freshCost  = 1.5

	lineCost = 2e-9 // CPU seconds per byte on the line: encryption and packets (bench/results/tunnel)

	// A page that is found by a search leaves foundLeaves of its bytes. What
	// it would have left without compresses better than other pages do, by
	// foundYields times as many bits: it has much in common with itself, too.
	// (0.71 to 0.9, and 1.45 to 2.3 in the same measurements.)
	foundLeaves = 0.2
	foundYields = 1.9

	forgets = 0.1 // of what is not measured any more, in the time in which the rest is forgotten

	// memory is how many bytes of stream the numbers are the mean of, about:
	// a few seconds on a line of 100 Mbit/s.
	memory = 32 << 20
)

// An effort is a setting by its rungs.
type effort struct{ codec, search int }

// firstEffort is that of a line that is not known yet.
var firstEffort = effort{codec: 2, search: mostSearch}

func (e effort) setting() dedup.Setting {
	c := codecRungs[e.codec]
	s := searchRungs[e.search]
	return dedup.Setting{Codec: c.codec, Level: c.level, Bases: s.bases, Anchors: s.anchors}
}

// efforts goes through all of them, those that take least first.
func efforts(yield func(effort) bool) {
	for c := range codecRungs {
		for s := range searchRungs {
			if !yield(effort{c, s}) {
				return
			}
		}
	}
}

// effortOf is the inverse of setting.
func effortOf(s dedup.Setting) effort {
	for e := range efforts {
		if e.setting() == s {
			return e
		}
	}
	return firstEffort
}

// coresFor is how many cores can compress with a setting at once.
func coresFor(s dedup.Setting) int { return int(codecRungs[effortOf(s).codec].cores) }

// A price is what a byte of stream takes under an effort.
type price struct {
	serial   float64 // CPU seconds of the one core that encodes a channel
	parallel float64 // CPU seconds of any core
	wire     float64 // bytes on the line
}

// cpu is all the CPU time that a byte of stream takes.
func (p price) cpu() float64 { return p.serial + p.parallel + lineCost*p.wire }

// content is what is known of a stream, and of the machine that works on it,
// whatever the effort was under which it was measured.
type content struct {
	seen, coded float64 // bytes of stream, and of those compressed, that the numbers are the mean of

	// Shares of the bytes of stream.
	fresh float64 // in pages that are new to the peer
	found float64 // in pages for which the strongest search finds bases
	plain float64 // left to be compressed, with that search

	// yields tells how the stream compresses: a codec leaves left^yields. 0 is
	// noise, 1 as in the table, with 2 each byte of the table's takes half.
	yields float64

	// How many times the table's CPU time it takes to encode, and to compress
	// with each codec. Codecs change together when the machine or the stream
	// does.
	slow  float64
	slows [len(codecRungs)]float64
}

// newContent is what is taken for granted before anything was measured: the
// table's stream, as if some of it had been seen.
func newContent() content {
	c := content{seen: memory / 16, coded: memory / 32, fresh: 0.9, found: 0.29, plain: 0.68, yields: 1, slow: 1}
	for i := range c.slows {
		c.slows[i] = 1
	}
	return c
}

// renew is called when a stream of another kind begins: what is known of the one before is
// worth no more than what is taken for granted of any.
func (c *content) renew() {
	fresh := newContent()
	c.seen, c.coded = min(c.seen, fresh.seen), min(c.coded, fresh.coded)
}

// price is what e would take.
func (c *content) price(e effort) price {
	codec, search := codecRungs[e.codec], searchRungs[e.search]
	missed := (1 - foundLeaves) * c.found * (1 - search.finds)
	return price{
		serial:   1e-9 * c.slow * (streamCost + (freshCost+search.cost)*c.fresh),
		parallel: 1e-9 * c.slows[e.codec] * (codec.cost*(c.plain+missed) + search.later*c.fresh),
		wire:     c.plain*math.Pow(codec.left, c.yields) + missed*math.Pow(codec.left, foundYields*c.yields),
	}
}

// learn takes in what was measured under e. With settled false the machine has
// just come to e: if it is slower than foretold, it is so under this codec;
// else it is so under all.
func (c *content) learn(e effort, w work, settled bool) {
	if w.raw == 0 {
		return
	}
	codec, search := codecRungs[e.codec], searchRungs[e.search]
	raw, plain := float64(w.raw), float64(w.plain)
	c.seen, c.coded = min(c.seen+raw, memory), min(c.coded+plain, memory/2)
	weight, coded := min(raw/c.seen, 1), min(plain/c.coded, 1)

	c.fresh += weight * (float64(w.fresh)/raw - c.fresh)
	if search.finds > 0 {
		c.found += weight * (float64(w.searched)/raw/search.finds - c.found)
	}
	missed := (1 - foundLeaves) * c.found * (1 - search.finds)
	c.plain = max(c.plain+weight*(plain/raw-c.plain-missed), 0)
	told := c.price(e)
	if w.serial > 0 {
		c.slow = slower(c.slow, math.Pow(w.serial.Seconds()/raw/told.serial, weight))
	}
	if w.parallel > 0 && told.parallel > 0 {
		by := math.Pow(w.parallel.Seconds()/raw/told.parallel, coded)
		for i := range c.slows {
			if i == e.codec || settled && codec.left < 1 && i > 0 { // raw is but a copy: it tells nothing of the others
				c.slows[i] = slower(c.slows[i], by)
			}
		}
	}
	switch {
	case codec.left == 1: // what was known of noise is forgotten, so that it is tried again
		c.yields += (1 - c.yields) * weight * forgets
	case w.wire > 0 && told.wire > 0:
		c.yields += coded * math.Log(float64(w.wire)/raw/told.wire) / math.Log(codec.left)
		c.yields = min(max(c.yields, 0), 4)
	}
}

// slower keeps one strange measurement from spoiling what is known.
func slower(slow, by float64) float64 { return min(max(slow*by, 0.02), 50) }
