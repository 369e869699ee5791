package wanem

import (
	"math/rand/v2"
	"time"
)

// chance draws what happens to packets. The same seed and the same packets
// give the same fate.
type chance struct {
	rng *rand.Rand
	bad bool // the Gilbert model is in its losing state
}

func newChance(seed uint64) chance {
	return chance{rng: rand.New(rand.NewPCG(seed, 0x6c6f6e676861756c))}
}

// hit is true in the given share of calls.
func (c *chance) hit(share float64) bool {
	return share > 0 && c.rng.Float64() < share
}

// upTo is uniform in [0, d).
func (c *chance) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(c.rng.Int64N(int64(d)))
}

// lost draws whether the next packet is lost.
//
// With bursts of mean length L and a share p of all packets, the losing state
// is left with probability 1/L and entered with p/(L(1-p)), which makes p its
// share of the time (Gilbert, BSTJ 39, 1960).
func (c *chance) lost(p Profile) bool {
	if p.Loss >= 1 {
		return true
	}
	if p.Burst <= 1 || p.Loss == 0 {
		c.bad = false
		return c.hit(p.Loss)
	}
	if c.bad {
		c.bad = !c.hit(1 / p.Burst)
	} else {
		c.bad = c.hit(p.Loss / (p.Burst * (1 - p.Loss)))
	}
	return c.bad
}
