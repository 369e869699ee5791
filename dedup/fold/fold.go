package fold

import (
	"errors"
	"math/bits"
	"sync"
)

// MaxBlock is how long a block may be, in bytes.
const MaxBlock = 1 << 22

// A Fold compresses and expands blocks, one at a time. It has 240 KB of tables.
type Fold struct {
	m    models
	last [3]int // distances of matches, the last one first
	was  int    // the class of the last match

	long  [1 << longBits]uint32  // where eight bytes were last, by their hash
	short [1 << shortBits]uint32 // where five bytes were
}

// Classes of matches are their kinds up to far, which stands for all new distances.
const (
	far     = 3
	classes = 4
)

// models are all that learns.
type models struct {
	bytes     byteModels
	runs      [classes]model // numbers of literals, by the class of the last match
	runDigits model
	plain     model
	kinds     [classes * 4]model // of matches, by their literals and the class of the last match
	lengths   [classes * 8]model // by class, and the place in a word
	lenDigits [classes]model
	lows      [symbols]model // parts of distances: the lowest four bits, by the kind,
	middles   [symbols]model // the next four by the lowest,
	highs     [symbols]model // and the highest by the kind
}

// firstDistances are likely in tables.
var firstDistances = [3]int{8, 16, 64}

// New makes a Fold.
func New() *Fold { return new(Fold) }

// untaught are models that have learned nothing.
var untaught = sync.OnceValue(func() *models {
	m := new(models)
	b := &m.bytes
	for i := range b.trust {
		b.trust[i] = [2]trust{halfTrust, halfTrust}
	}
	for _, all := range [][]model{b.before[:], b.above[:], b.lowBefore[:], b.lowAbove[:], m.runs[:], m.kinds[:], m.lengths[:], m.lenDigits[:], m.lows[:], m.middles[:], m.highs[:]} {
		for i := range all {
			all[i] = even
		}
	}
	m.runDigits, m.plain = even, even
	return m
})

// reset forgets the last block.
func (f *Fold) reset() {
	f.m = *untaught()
	f.last, f.was = firstDistances, far
}

// Append appends the folded form of block, of MaxBlock bytes at most, to dst.
// It only reads block.
func (f *Fold) Append(dst, block []byte) []byte {
	if len(block) > MaxBlock {
		panic("fold: block over MaxBlock")
	}
	f.reset()
	c := coder{out: dst}
	c.begin()
	f.sequences(&c, block)
	c.end()
	return c.out
}

var errForm = errors.New("fold: malformed block")

// Expand fills block with what folded stands for, which takes time in proportion to the
// size of block, whatever folded is. It does not keep folded.
func (f *Fold) Expand(block, folded []byte) error {
	f.reset()
	c := coder{in: folded, decode: true}
	c.begin()
	for i := 0; ; {
		literals := f.literals(&c, block, i, 0)
		i += literals
		if c.bad {
			return errForm
		}
		if i == len(block) {
			break
		}
		n := f.match(&c, i, match{literals: literals})
		d := f.last[0]
		if d == 0 || d > i || n > len(block)-i {
			return errForm
		}
		for range n { // it may reach into what it makes
			block[i] = block[i-d]
			i++
		}
	}
	if !c.end() {
		return errForm
	}
	return nil
}

// A match is what has been there before.
type match struct {
	distance, n int
	literals    int // before it
}

// sequence codes literals from i on, and the match behind them.
func (f *Fold) sequence(c *coder, block []byte, i int, m match) {
	f.literals(c, block, i, m.literals)
	f.match(c, i+m.literals, m)
}

// match codes the match m at i, and returns its length. Its distance is f.last[0] then.
// When it is read, the number of its literals is all of m that counts.
func (f *Fold) match(c *coder, i int, m match) (n int) {
	kind := uint32(0)
	if !c.decode {
		kind = f.kind(m.distance)
	}
	kind = c.one(kind, &f.m.kinds[min(m.literals, 3)*classes+f.was])
	f.was = min(int(kind), far)
	n = f.number(c, m.n-minMatch, &f.m.lengths[f.was*8+i%8], &f.m.lenDigits[f.was]) + minMatch
	if kind >= far {
		copy(f.last[1:], f.last[:])
		f.last[0] = f.distance(c, kind, m.distance)
		return n
	}
	d := f.last[kind]
	copy(f.last[1:kind+1], f.last[:kind])
	f.last[0] = d
	return n
}

// fewDigits is how many binary digits the distances of kind far have, at most.
const fewDigits = 8

// kind is that of a match.
func (f *Fold) kind(distance int) uint32 {
	for i, d := range f.last {
		if d == distance {
			return uint32(i)
		}
	}
	return uint32(far + max(bits.Len(uint(distance)), fewDigits) - fewDigits)
}

// distance codes a distance d of a kind from far on, and returns it.
func (f *Fold) distance(c *coder, kind uint32, d int) int {
	n := int(kind) - far + fewDigits // binary digits
	v := uint32(d)
	low := c.one(v&15, &f.m.lows[kind%symbols])
	low |= c.one(v>>4&15, &f.m.middles[low%symbols]) << 4
	if n == fewDigits {
		return int(low)
	}
	rest := n - 1 - fewDigits // between the first digit and low
	top := min(rest, 4)
	high := uint32(1)
	if top > 0 {
		high = high<<top | c.one(v>>(n-1-top)&(1<<top-1), &f.m.highs[kind%symbols])
	}
	return int(high<<(n-1-top) | c.digits(v>>fewDigits, rest-top)<<fewDigits | low)
}

const (
	escape     = 15 // a number from here on is told by its binary digits:
	mostDigits = 22 // which are told as escape, if they are that many, or:
	halfDigits = 10 // of which so many are coded at once
)

// number codes n, and returns it.
func (f *Fold) number(c *coder, n int, m, digits *model) int {
	s := c.one(uint32(min(n, escape)), m)
	if s < escape {
		return int(s)
	}
	v := uint32(n - escape + 1)
	k := int(c.one(uint32(min(bits.Len32(v)-1, escape)), digits))
	first := uint32(1)
	if k == escape {
		k, first = mostDigits, 0
	}
	low := min(k, halfDigits)
	high := c.digits(v>>halfDigits, k-low)
	return int(first<<k|high<<halfDigits|c.digits(v, low)) + escape - 1
}
