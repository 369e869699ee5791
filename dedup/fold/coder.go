package fold

import "encoding/binary"

// Chances are in 32768ths.
const (
	totalBits = 15
	total     = 1 << totalBits
)

// An interval of binary fractions begins at low and is size wide.
type interval struct{ low, size uint64 }

// part is the n 32768ths of v from start on. over tells that low has gone over its digits.
func (v interval) part(start, n uint64) (in interval, over bool) {
	r := v.size >> totalBits
	in = interval{v.low + start*r, n * r}
	return in, in.low < v.low
}

// rest is what part leaves of v for a coder that reads.
func (v interval) rest(start, n uint64) interval {
	r := v.size >> totalBits
	return interval{v.low - start*r, n * r}
}

// at is where in v the fraction is, in 32768ths, for a coder that reads.
func (v interval) at() uint64 { return min(v.low/(v.size>>totalBits), total-1) }

// A coder writes symbols into a binary fraction, or reads them out of one. Its interval
// stands for what has been coded; when it reads, low is how far from there the fraction
// is. size has more than 32 binary digits between two symbols.
type coder struct {
	interval
	decode bool
	out    []byte // when it writes
	in     []byte // when it reads: what is left
	behind int    // words that were read behind its end
	bad    bool   // in has ended too early, or says what cannot be
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
	if !c.decode {
		in, over := c.part(start, n)
		if over || in.size < 1<<32 {
			in = c.settle(in, over)
		}
		c.interval = in
		return
	}
	c.interval = c.rest(start, n)
	if c.size < 1<<32 {
		c.interval = c.more(c.interval)
	}
}

// more reads a word into an interval that has become too small.
func (c *coder) more(in interval) interval {
	return interval{in.low<<32 | c.next(), in.size << 32}
}

// settle writes what has become certain of an interval, and returns what is left of it. over
// tells that low has gone over its digits.
func (c *coder) settle(in interval, over bool) interval {
	if over {
		c.carry()
	}
	if in.size < 1<<32 {
		c.out = binary.BigEndian.AppendUint32(c.out, uint32(in.low>>32))
		in.low <<= 32
		in.size <<= 32
	}
	return in
}

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
