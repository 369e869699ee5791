package fold

import "encoding/binary"

// Chances are in 32768ths.
const (
	totalBits = 15
	total     = 1 << totalBits
)

// A coder writes symbols into a binary fraction, or reads them out of one. The interval
// that stands for what has been coded begins at low and is size wide; when it reads, low
// is how far from there the fraction is. size has more than 32 binary digits between two
// symbols.
type coder struct {
	low, size uint64
	decode    bool
	out       []byte // when it writes
	in        []byte // when it reads: what is left
	behind    int    // words that were read behind its end
	bad       bool   // in has ended too early, or says what cannot be
}

// begin reads the first words.
func (c *coder) begin() {
	c.size = 1<<64 - 1
	if c.decode {
		c.low = c.next() << 32
		c.low |= c.next()
	}
}

// end writes the last word, behind which zeros may follow, or tells whether what was
// read ended there.
func (c *coder) end() bool {
	if c.decode {
		return !c.bad && len(c.in) == 0 && c.behind == 1
	}
	v := c.low + 1<<32 - 1
	if v < c.low {
		c.carry()
	}
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(v>>32))
	return true
}

// next reads a word.
func (c *coder) next() uint64 {
	if len(c.in) < 4 {
		c.behind++
		if len(c.in) > 0 || c.behind > 1 {
			c.bad = true
		}
		return 0
	}
	v := binary.BigEndian.Uint32(c.in)
	c.in = c.in[4:]
	return uint64(v)
}

// carry adds one to what was written. It never reaches what was there before: the
// fraction is below one.
func (c *coder) carry() {
	for i := len(c.out) - 1; ; i-- {
		c.out[i]++
		if c.out[i] != 0 {
			return
		}
	}
}

// take narrows the interval to the n 32768ths of it from start on. n is not 0.
func (c *coder) take(start, n uint64) {
	r := c.size >> totalBits
	start *= r
	c.size = r * n
	if c.decode {
		c.low -= start
		if c.size < 1<<32 {
			c.low = c.low<<32 | c.next()
			c.size <<= 32
		}
		return
	}
	c.low += start
	if c.low < start || c.size < 1<<32 {
		c.settle(c.low < start)
	}
}

// settle writes what has become certain. over tells that low has gone over its digits.
func (c *coder) settle(over bool) {
	if over {
		c.carry()
	}
	if c.size < 1<<32 {
		c.out = binary.BigEndian.AppendUint32(c.out, uint32(c.low>>32))
		c.low <<= 32
		c.size <<= 32
	}
}

// at is where in the interval the fraction is, in 32768ths.
func (c *coder) at() uint64 { return min(c.low/(c.size>>totalBits), total-1) }

// digits codes the lower n bits of v, 15 at most, of which nothing is known.
func (c *coder) digits(v uint32, n int) uint32 {
	v &= 1<<n - 1
	if n == 0 {
		return 0
	}
	each := uint64(1) << (totalBits - n)
	if c.decode {
		v = uint32(c.at() / each)
	}
	c.take(uint64(v)*each, each)
	return v
}
