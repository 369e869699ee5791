package shaper

import "time"

// The busiest 10 ms: no request may leave while the last peakOver have seen
// peakMost times the rate. Lost time is made up for at less than that (see
// peakRate), so this only spreads what a stall would let leave at once.
const (
	slotLen  = time.Millisecond
	slots    = 11 // any peakOver lie in so many
	peakOver = 10 * time.Millisecond
)

// mostRecent is how many nano bytes of a rate may have left in all slots for
// another request to leave: 1.3 times what peakOver carry.
func mostRecent(rate int64) int64 { return max(rate*int64(peakOver)/10*13, 1) }

// recent is what has left of late, by milliseconds. The zero value is nothing.
type recent struct {
	left [slots]int64 // nano bytes, by the number of the slot modulo slots
	sum  int64        // of left
	at   int64        // number of the last slot
}

// settle forgets what is too old.
func (r *recent) settle(now time.Duration) {
	n := int64(now / slotLen)
	for i := max(r.at+1, n-slots+1); i <= n; i++ {
		r.sum -= r.left[i%slots]
		r.left[i%slots] = 0
	}
	r.at = max(r.at, n)
}

func (r *recent) add(n int64) {
	r.left[r.at%slots] += n
	r.sum += n
}

// correct adds what has left besides, or takes back what has not, n < 0. That is taken
// from the oldest slots: they are forgotten first, so whichever it was charged in, no
// slot that still counts is left with less than what has left in it.
func (r *recent) correct(n int64) {
	if n >= 0 {
		r.add(n)
		return
	}
	for i := max(r.at-slots+1, 0); n < 0 && i <= r.at; i++ {
		back := min(-n, r.left[i%slots])
		r.left[i%slots] -= back
		r.sum -= back
		n += back
	}
}

// wait is the time until less than most is left in the slots.
func (r *recent) wait(now time.Duration, most int64) time.Duration {
	rest := r.sum
	for i := r.at - slots + 1; rest >= most && i <= r.at; i++ {
		if i >= 0 {
			rest -= r.left[i%slots]
		}
		if rest < most {
			return max(time.Duration(i+slots)*slotLen-now, 0)
		}
	}
	return 0
}
