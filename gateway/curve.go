package gateway

import "time"

// curveSlot is how finely a test of a link looks at time: two round trips of the
// shortest WANs, and a fifth of what t90 is measured over.
const curveSlot = 50 * time.Millisecond

// A curve is how many bytes had arrived by when, in slots of curveSlot. It is
// pure: told the time, and bounded by the length that it is made with.
type curve struct {
	until []int64 // by the end of each slot, all bytes until then
	total int64
	seen  time.Duration // the last add
}

func newCurve(long time.Duration) *curve {
	return &curve{until: make([]int64, max(int(long/curveSlot), 2))}
}

// add notes that total bytes have arrived by at. What is late, or less than
// before, changes nothing.
func (c *curve) add(at time.Duration, total int64) {
	i := int(at / curveSlot)
	if at < c.seen || i >= len(c.until) || total < c.total {
		return
	}
	c.fill(int(c.seen/curveSlot), i)
	c.seen, c.total = at, total
	c.until[i] = total
}

// fill says of the slots after from, up to to, that nothing came.
func (c *curve) fill(from, to int) {
	for ; from < to && from+1 < len(c.until); from++ {
		c.until[from+1] = c.until[from]
	}
}

// at is the bytes until the end of slot i; -1 is the beginning.
func (c *curve) at(i int) int64 {
	if i < 0 {
		return 0
	}
	return c.until[i]
}

// per is the bytes per second between the ends of two slots.
func (c *curve) per(from, to int) float64 {
	return float64(c.at(to)-c.at(from)) / (time.Duration(to-from) * curveSlot).Seconds()
}

// summary is the bytes per second over all, and over the second half, and after
// how long 0.2 s first brought 90 % of the latter; -1 if they never did.
func (c *curve) summary() (mean, steady float64, t90 time.Duration) {
	last := len(c.until) - 1
	c.fill(int(c.seen/curveSlot), last)
	mean, steady = c.per(-1, last), c.per(last/2, last)
	const over = int(200 * time.Millisecond / curveSlot)
	for i := over - 1; i <= last; i++ {
		if steady > 0 && c.per(i-over, i) >= 0.9*steady {
			return mean, steady, time.Duration(i+1) * curveSlot
		}
	}
	return mean, steady, -1
}
