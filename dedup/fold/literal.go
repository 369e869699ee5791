package fold

// Contexts of the byte at the distance of the last match: whether the bytes before both
// are the same as well, and the first byte behind a match, which is never that byte.
const (
	agreeing = 1 << 8
	first    = 2 << 8
	contexts = 3 << 8
)

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
	f.bytes(c, block, i, n)
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

// bytes codes n bytes of block from i on by what stands around each.
func (f *Fold) bytes(c *coder, block []byte, i, n int) {
	distance := f.last[0]
	for j := i; j < i+n; j++ {
		var before, above int
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
		t := &f.m.trust[min(j-i, len(f.m.trust)-1)]
		a, b := &f.m.before[before], &f.m.above[above]
		v := uint32(block[j])
		high := c.two(v>>4, &a[0], &b[0], &t[0])
		low := c.two(v&15, &a[1+high%symbols], &b[1+high%symbols], &t[1])
		if c.decode {
			block[j] = byte(high<<4 | low)
		}
	}
}
