package fold

import (
	"encoding/binary"
	"math/bits"
)

// A model has the chances of 16 symbols: before which of 8192 places each begins, 16 bits
// each and little endian, and 8192; then how many symbols it was learned from, of which
// many stands for many. So a symbol's chance is two numbers side by side, and four words
// hold what changes with each symbol.
type model [2*symbols + 2 + 2]byte

const (
	symbols = 16
	places  = total / trusts
	counted = 2*symbols + 2 // where the count is in a model
	many    = 63

	lanes = 0x0001_0001_0001_0001 // ones in four lanes of 16 bits
	signs = 0x8000_8000_8000_8000
)

// even is a model that has learned nothing.
var even = func() (m model) {
	for i := range symbols + 1 {
		binary.LittleEndian.PutUint16(m[2*i:], uint16(i*places/symbols))
	}
	return m
}()

// goals are what a model goes towards with each symbol, in lanes with their signs set:
// all symbols but that one have one place.
var goals = func() (g [symbols][4]uint64) {
	for s := range symbols {
		for i := range symbols {
			v := uint64(i)
			if i > s {
				v += places - symbols
			}
			g[s][i/4] |= (v | 0x8000) << (i % 4 * 16)
		}
	}
	return g
}()

// A lesson is how far a model goes: 2^-shift of the way. mask and less take out of four
// lanes what a shift has moved into them from their neighbours and their signs.
type lesson struct {
	shift, mask, less uint64
	next              byte // the count after it
}

// lessons by how many symbols a model was learned from: nearly to the mean of them, and
// then of the last 64 or so.
var lessons = func() (l [many + 1]lesson) {
	for n := range l {
		shift := uint64(6)
		for i, until := range [...]int{0, 1, 3, 7, 18, 42} {
			if n < until {
				shift = uint64(i)
				break
			}
		}
		l[n] = lesson{shift, 0xffff >> shift * lanes, 0x8000 >> shift * lanes, byte(min(n+1, many))}
	}
	return l
}()

func (m *model) words() (a, b, c, d uint64) {
	return binary.LittleEndian.Uint64(m[:]), binary.LittleEndian.Uint64(m[8:]), binary.LittleEndian.Uint64(m[16:]), binary.LittleEndian.Uint64(m[24:])
}

// learn moves m towards a goal. Each lane is c+(goal-c)>>shift, rounded down, by which
// lanes that differ by one or more go on to do so: no symbol ever loses its last place.
func (m *model) learn(goal *[4]uint64) {
	l := &lessons[m[counted]&many]
	shift := l.shift & 63
	a, b, c, d := m.words()
	binary.LittleEndian.PutUint64(m[:], a+((goal[0]-a)>>shift&l.mask-l.less))
	binary.LittleEndian.PutUint64(m[8:], b+((goal[1]-b)>>shift&l.mask-l.less))
	binary.LittleEndian.PutUint64(m[16:], c+((goal[2]-c)>>shift&l.mask-l.less))
	binary.LittleEndian.PutUint64(m[24:], d+((goal[3]-d)>>shift&l.mask-l.less))
	m[counted] = l.next
}

// span is where a symbol begins in m, and how many places it has.
func (m *model) span(s uint32) (start, n uint64) {
	v := uint64(binary.LittleEndian.Uint32(m[s%symbols*2:]))
	return v & 0xffff, v>>16 - v&0xffff
}

// symbolAt is the last symbol that begins, by the lanes of a to d, at v or before.
func symbolAt(a, b, c, d, v uint64) uint32 {
	x := v*lanes | signs
	return uint32(bits.OnesCount64((x-a)&signs)+bits.OnesCount64((x-b)&signs)+
		bits.OnesCount64((x-c)&signs)+bits.OnesCount64((x-d)&signs)) - 1
}

// one codes the symbol s by m, and returns it. A coder that reads does not look at it.
func (c *coder) one(s uint32, m *model) uint32 {
	if c.decode {
		x, y, z, w := m.words()
		s = symbolAt(x*trusts, y*trusts, z*trusts, w*trusts, c.at())
	}
	start, n := m.span(s)
	c.take(start*trusts, n*trusts)
	m.learn(&goals[s%symbols])
	return s
}

// A trust is how much the first of two models is trusted and not the second, in 4096ths.
type trust uint16

const (
	trusts    = 4 // parts in which it is split between them
	trustBits = 12
	halfTrust = trust(1) << (trustBits - 1)
)

// parts are how many parts of trusts the first of two models has.
func (t trust) parts() uint64 { return (uint64(t) + 1<<(trustBits-3)) >> (trustBits - 2) }

// two is where the symbol s begins in what a and b make of it together, and how many places
// it has. Both learn from it.
func two(s uint32, a, b *model, t *trust) (start, n uint64) {
	p := t.parts()
	q := trusts - p
	sa, na := a.span(s)
	sb, nb := b.span(s)
	better := int64(nb-na) >> 63 & (1<<trustBits - 1) // all of it if a was, without a branch
	*t += trust((better - int64(*t)) >> 4)
	goal := &goals[s%symbols]
	a.learn(goal)
	b.learn(goal)
	return sa*p + sb*q, na*p + nb*q
}

// twoAt is the symbol that a and b together have at v.
func twoAt(v uint64, a, b *model, t *trust) uint32 {
	p := t.parts()
	q := trusts - p
	a0, a1, a2, a3 := a.words()
	b0, b1, b2, b3 := b.words()
	return symbolAt(a0*p+b0*q, a1*p+b1*q, a2*p+b2*q, a3*p+b3*q, v)
}
