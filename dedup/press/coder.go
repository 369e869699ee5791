package press

import "math"

// A coder writes bits into a binary fraction, or reads them out of one: from is
// the lower bound of the interval that stands for what has been coded, to the
// upper one, both included.
type coder struct {
	from, to uint32
	decode   bool
	out      []byte // when it writes
	in       []byte // when it reads: what is left
	value    uint32 // when it reads: the fraction's bytes at the place of from
	short    bool   // in has ended too early, or says what cannot be
}

// begin reads the first bytes.
func (c *coder) begin() {
	c.to = math.MaxUint32
	if c.decode {
		for range 4 {
			c.value = c.value<<8 | c.next()
		}
	}
}

// end writes the last bytes, or tells whether what was read ended there.
func (c *coder) end() bool {
	if c.decode {
		return !c.short && len(c.in) == 0 && c.value == c.from
	}
	c.out = append(c.out, byte(c.from>>24), byte(c.from>>16), byte(c.from>>8), byte(c.from))
	return true
}

func (c *coder) next() uint32 {
	if len(c.in) == 0 {
		c.short = true
		return 0
	}
	b := c.in[0]
	c.in = c.in[1:]
	return uint32(b)
}

// bit codes bit, which is 1 with a chance of p in 65536, and returns it. A coder
// that reads does not look at it. p is neither 0 nor 65536.
func (c *coder) bit(bit, p uint32) uint32 {
	middle := c.from + uint32(uint64(c.to-c.from)*uint64(p)>>16)
	if c.decode {
		bit = 0
		if c.value <= middle {
			bit = 1
		}
	}
	if bit != 0 {
		c.to = middle
	} else {
		c.from = middle + 1
	}
	for (c.from^c.to)>>24 == 0 {
		if c.decode {
			c.value = c.value<<8 | c.next()
		} else {
			c.out = append(c.out, byte(c.to>>24))
		}
		c.from <<= 8
		c.to = c.to<<8 | 255
	}
	return bit
}

// counted codes a bit by a chance of its own.
func (c *coder) counted(bit uint32, s *chance) uint32 {
	bit = c.bit(bit, min(max(uint32(*s)&^15, 32), 65504))
	*s = s.seen(bit)
	return bit
}

// maxDigits bounds a gamma code: no column has more than 2^22 bytes.
const maxDigits = 24

// gamma codes n, from 1 on, with chances for the number of its digits.
func (c *coder) gamma(n uint32, digits *[maxDigits + 1]chance) uint32 {
	k := 0
	for k < maxDigits {
		more := uint32(0)
		if n>>(k+1) != 0 {
			more = 1
		}
		if c.counted(more, &digits[k]) == 0 {
			break
		}
		k++
	}
	v := uint32(1)
	for i := k - 1; i >= 0; i-- {
		v = v<<1 | c.bit(n>>i&1, 1<<15)
	}
	return v
}

// A chance is how likely a bit is 1, in 4096ths, in its upper 12 bits, and how
// many bits it has been learned from in its lower 4, of which the highest value
// stands for many.
type chance uint16

// even is the chance of a bit of which nothing is known.
const even chance = 2048 << 4

// paces is how far a chance goes towards a bit, in 65536ths, by the number of bits
// that it was learned from: nearly to the mean of them, and then of the last 17 or so.
var paces = [16]int32{40960, 25206, 18204, 14247, 11703, 9930, 8623, 7620, 6827, 6183, 5650, 5201, 4819, 4200, 4000, 3900}

// seen is s after one more bit.
func (s chance) seen(bit uint32) chance {
	n := s & 15
	p := int32(s >> 4)
	p += (int32(bit)*4095 - p) * paces[n] >> 16
	if n < 15 {
		n++
	}
	return chance(p)<<4 | n
}
