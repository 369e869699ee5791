package fold

import (
	"encoding/binary"
	"math/bits"
)

const (
	longBits  = 14      // binary digits of the places in the tables: two more leave
	shortBits = 14      // 0.3 per cent less, for up to a fifth more of the time
	minMatch  = 4       // bytes
	reach     = 1 << 20 // distances are shorter: kinds end there

	// patience is how many binary digits the bytes without a match have until one more
	// is skipped at each step.
	patience = 5
)

func load32(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[i:]) }
func load64(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i:]) }

const spread = 0x9e3779b97f4a7c15

func longHash(x uint64) uint64  { return x * spread >> (64 - longBits) }
func shortHash(x uint64) uint64 { return x << 24 * spread >> (64 - shortBits) }

// sequences codes all of block.
func (f *Fold) sequences(c *coder, block []byte) {
	clear(f.long[:])
	clear(f.short[:])
	end := len(block) - 9 // words may be read at the next byte as well
	begin := 0            // of the literals
	for i := 0; i < end; {
		at, from, n := f.find(block, i)
		if n == 0 {
			i += 1 + (i-begin)>>patience
			continue
		}
		for at > begin && from > 0 && block[at-1] == block[from-1] {
			at, from, n = at-1, from-1, n+1
		}
		f.sequence(c, block, begin, match{at - from, n, at - begin})
		i = at + n
		for _, j := range [...]int{at + 1, at + 2, i - 2, i - 1} {
			if j < end {
				f.note(load64(block, j), j)
			}
		}
		for i < end { // what was there before it may go on right behind it
			d := f.again(block, i)
			if d == 0 {
				break
			}
			n := common(block, i-d, i)
			f.sequence(c, block, i, match{d, n, 0})
			i += n
		}
		begin = i
	}
	f.literals(c, block, begin, len(block)-begin)
}

// note remembers where x is.
func (f *Fold) note(x uint64, i int) {
	f.long[longHash(x)], f.short[shortHash(x)] = uint32(i), uint32(i)
}

// find looks for a match at i of block, or at the next byte: at the distance of the last
// one, or where eight or five bytes have been. n is 0 if there is none that is worth its
// distance.
func (f *Fold) find(block []byte, i int) (at, from, n int) {
	x := load64(block, i)
	last := f.last[0]
	if i >= last && load32(block, i-last) == uint32(x) {
		return i, i - last, common(block, i-last, i)
	}
	long, short := &f.long[longHash(x)], &f.short[shortHash(x)]
	l, s := int(*long), int(*short)
	*long, *short = uint32(i), uint32(i)
	switch {
	case within(l, i) && load64(block, l) == x:
		return i, l, common(block, l, i)
	case i+1 >= last && load32(block, i+1-last) == uint32(x>>8):
		return i + 1, i + 1 - last, common(block, i+1-last, i+1)
	case !within(s, i) || load32(block, s) != uint32(x):
		return 0, 0, 0
	}
	at, from, n = i, s, common(block, s, i)
	x = load64(block, i+1)
	long = &f.long[longHash(x)]
	l = int(*long)
	*long = uint32(i + 1)
	if within(l, i+1) && load64(block, l) == x {
		if more := common(block, l, i+1); more > n {
			at, from, n = i+1, l, more
		}
	}
	if d := at - from; n < 6 && d > 1<<10 || n < 7 && d > 1<<14 || n < 8 && d > 1<<17 {
		return 0, 0, 0 // its literals cost less
	}
	return at, from, n
}

// within tells whether a match may begin at from.
func within(from, i int) bool { return from < i && i-from < reach }

// again is one of the last distances at which what was there goes on at i, but that of the
// match before, which has ended; 0 if there is none.
func (f *Fold) again(block []byte, i int) int {
	x := load32(block, i)
	for _, d := range f.last[1:] {
		if i >= d && load32(block, i-d) == x {
			return d
		}
	}
	return 0
}

// common is the number of bytes that are the same from a and from b on, which is behind a.
func common(block []byte, a, b int) int {
	n := 0
	for ; b+n+8 <= len(block); n += 8 {
		if x := load64(block, a+n) ^ load64(block, b+n); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for b+n < len(block) && block[a+n] == block[b+n] {
		n++
	}
	return n
}
