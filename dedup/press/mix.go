package press

// Chances are mixed in the domain of their logarithms, ln(p/(1-p)), in which
// evidence adds up: 256 is one, and 2047 the most that is believed.
const (
	logOne = 256
	logMax = 2047
)

// logistic is 65536/(1+e^-x) for x from -8 to 8 in steps of a half.
var logistic = [33]int32{
	22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768,
	40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
}

// squashed is the chance, in 65536ths, of each logarithm plus 2048.
var squashed = func() (t [4096]uint16) {
	const step = logOne / 2
	for i := range t {
		a, b := logistic[i/step], logistic[i/step+1]
		t[i] = uint16(a + (b-a)*int32(i%step)/step)
	}
	return t
}()

// stretched is the logarithm of each chance in 4096ths: the least that squashed
// leads there.
var stretched = func() (t [4096]int16) {
	p := 0
	for d := -logMax; d <= logMax; d++ {
		for v := int(squashed[d+2048] >> 4); p <= v; p++ {
			t[p] = int16(d)
		}
	}
	for ; p < len(t); p++ {
		t[p] = logMax
	}
	return t
}()

func (s chance) stretch() int64 { return int64(stretched[s>>4]) }

func squash(d int64) uint32 { return uint32(squashed[min(max(d, -logMax), logMax)+2048]) }

// weights are those of the five logarithms, of which 65536 is one. The other places
// are empty: eight are found faster.
type weights [8]int32

const firstWeight = 65536 * 3 / 10

// nibble codes the half byte bits, whose bits are foretold by s and g and mixed with the
// weights of w, and returns it.
func (c *coder) nibble(bits uint32, s *choice, g guess, w *[16]weights) uint32 {
	j := uint32(1) // the bits so far, behind a 1
	for b := 3; b >= 0; b-- {
		s0, s1, s2, s3 := &s[0][j&15], &s[1][j&15], &s[2][j&15], &s[3][j&15]
		t0, t1, t2, t3 := s0.stretch(), s1.stretch(), s2.stretch(), s3.stretch()
		expected, t4 := g.bits>>b&1, int64(0)
		if g.made {
			if t4 = g.trust.stretch(); expected == 0 {
				t4 = -t4
			}
		}
		v := &w[j&15]
		p := squash((int64(v[0])*t0 + int64(v[1])*t1 + int64(v[2])*t2 + int64(v[3])*t3 + int64(v[4])*t4) >> 16)
		bit := c.bit(bits>>b&1, p)
		err := (int64(bit)<<16 - int64(p)) * pace
		v[0] += lesson(t0, err)
		v[1] += lesson(t1, err)
		v[2] += lesson(t2, err)
		v[3] += lesson(t3, err)
		*s0, *s1, *s2, *s3 = s0.seen(bit), s1.seen(bit), s2.seen(bit), s3.seen(bit)
		if g.made {
			v[4] += lesson(t4, err)
			right := expected ^ bit ^ 1
			*g.trust = g.trust.seen(right)
			g.made = right == 1
		}
		j = j<<1 | bit
	}
	return j & 15
}

// pace is how much a weight learns from an error.
const pace = 9

// lesson is how much a weight changes: in the direction in which its logarithm
// would have made the error, in 65536ths times pace, smaller.
func lesson(t, err int64) int32 { return int32((t*err + 1<<17) >> 18) }
