package fold

// Contexts of the byte at the distance of the last match: whether the bytes before both
// are the same as well, and the first byte behind a match, which is never that byte.
const (
	agreeing = 1 << 8
	first    = 2 << 8
	contexts = 3 << 8
)

// byteModels are those of literals, by halves of a byte: of the upper half by the byte
// before and by that above, which is the one at the distance of the last match; of the
// lower half by the upper one and parts of these. By all of them there would be 16 times as
// many, 600 KB, which leave 0.6 per cent less and are waited for: each is in no cache by the
// time it is met again (bench/results/fold-2026-11-27b.txt).
type byteModels struct {
	before    [256]model
	above     [contexts]model
	lowBefore [16 * 64]model
	lowAbove  [contexts + 16*16]model
	trust     [4][2]trust // by how many literals came before, and the half of a byte
}

// low are the models of the lower half of a byte, by its upper half and what is around: of the
// byte above the lower half, or all if the upper halves are the same.
func (m *byteModels) low(high, before, above int) (a, b *model) {
	i := contexts + high<<4 + above&15
	if high == above>>4&15 {
		i = above
	}
	return &m.lowBefore[high<<6+before>>2], &m.lowAbove[i]
}

// Bytes without a match may be noise, which models only make larger.
const (
	plainLeast  = 512 // bytes of which it is told
	noiseSample = 256 // of which noise has 162 different ones,
	noiseLeast  = 145 // and all else fewer than these
)

// literals codes n bytes of block from i on, and n. It returns n.
func (f *Fold) literals(c *coder, block []byte, i, n int) int {
	n = f.number(c, n, &f.m.runs[f.was], &f.m.runDigits)
	if c.decode && n > len(block)-i {
		c.bad = true
		return 0
	}
	if n >= plainLeast {
		plain := uint32(0)
		if !c.decode && noise(block[i:i+n]) {
			plain = 1
		}
		if c.one(plain, &f.m.plain) != 0 {
			for j := i; j < i+n; j++ {
				v := c.digits(uint32(block[j]), 8)
				if c.decode { // others may be reading what is folded
					block[j] = byte(v)
				}
			}
			return n
		}
	}
	if c.decode {
		f.read(c, block, i, n)
	} else {
		f.write(c, block, i, n)
	}
	return n
}

// noise tells whether b, of noiseSample bytes or more, looks like noise.
func noise(b []byte) bool {
	var seen [256]bool
	n := 0
	for i := range noiseSample {
		if v := b[i*(len(b)/noiseSample)]; !seen[v] {
			seen[v] = true
			n++
		}
	}
	return n >= noiseLeast
}

// around is what a byte at j is predicted by, which is behind a match or bytes that begin at
// i: the byte before, and that at a distance with its context.
func around(block []byte, i, j, distance int) (before, above int) {
	if j > 0 {
		before = int(block[j-1])
	}
	if j >= distance {
		above = int(block[j-distance])
		if j == i {
			above |= first
		} else if j > distance && block[j-distance-1] == block[j-1] {
			above |= agreeing
		}
	}
	return before, above
}

// read reads n bytes from i on. Like write it keeps the interval in registers from one symbol
// to the next: in memory it would be waited for twice for each of them.
func (f *Fold) read(c *coder, block []byte, i, n int) {
	m, distance := &f.m.bytes, f.last[0]
	in := c.interval
	for j := i; j < i+n; j++ {
		before, above := around(block, i, j, distance)
		t := &m.trust[min(j-i, len(m.trust)-1)]
		a, b := &m.before[before], &m.above[above]
		high := twoAt(in.at(), a, b, &t[0])
		if in = in.rest(two(high, a, b, &t[0])); in.size < 1<<32 {
			in = c.more(in)
		}
		a, b = m.low(int(high), before, above)
		low := twoAt(in.at(), a, b, &t[1])
		if in = in.rest(two(low, a, b, &t[1])); in.size < 1<<32 {
			in = c.more(in)
		}
		block[j] = byte(high<<4 | low)
	}
	c.interval = in
}

// write writes n bytes from i on.
func (f *Fold) write(c *coder, block []byte, i, n int) {
	m, distance := &f.m.bytes, f.last[0]
	in, over := c.interval, false
	for j := i; j < i+n; j++ {
		v := uint32(block[j])
		before, above := around(block, i, j, distance)
		t := &m.trust[min(j-i, len(m.trust)-1)]
		if in, over = in.part(two(v>>4, &m.before[before], &m.above[above], &t[0])); over || in.size < 1<<32 {
			in = c.settle(in, over)
		}
		a, b := m.low(int(v>>4), before, above)
		if in, over = in.part(two(v&15, a, b, &t[1])); over || in.size < 1<<32 {
			in = c.settle(in, over)
		}
	}
	c.interval = in
}
