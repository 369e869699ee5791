package shaper

import (
	"math/bits"
	"time"
)

// Class says who goes first: the higher. The zero value is Bulk.
type Class uint8

// The classes, lowest first.
const (
	Bulk   Class = iota // pages
	L2                  // frames of stretched segments
	Urgent              // control, membership, return paths

	classes = int(Urgent) + 1
)

// String gives the name as logs and metrics have it.
func (c Class) String() string {
	switch c {
	case Bulk:
		return "bulk"
	case L2:
		return "l2"
	case Urgent:
		return "urgent"
	}
	return "unknown"
}

// What the budgets hold, as time at the rate. See the package comment.
const (
	Credit       = 30 * time.Millisecond
	peakCredit   = 5 * time.Millisecond
	urgentCredit = 10 * time.Millisecond
)

// MaxRate is the highest rate in bytes per second (800 Gbit/s); beyond it
// reckoning in int64 would overflow, so a higher rate counts as this one.
const MaxRate = 100_000_000_000

// maxTake is the most bytes that one request is charged for, and maxDebt the
// deepest that a budget goes, in bytes. They keep the reckoning within int64.
const (
	maxTake = 1 << 30
	maxDebt = 2 << 30
)

// nano is the unit of the budgets: 1e-9 bytes, so that a rate in bytes per
// second times nanoseconds needs no division and loses nothing.
const nano = 1_000_000_000

// Core reckons what may leave and when. It reads no clock: now is the time
// since any fixed point and does not go back. The zero value has no cap. Not
// safe for concurrent use.
type Core struct {
	rate   int64         // bytes per second, 0 for no cap
	at     time.Duration // until when the budgets are reckoned
	long   int64         // nano bytes; negative is debt
	peak   int64         // nano bytes, filled at 1.25 times the rate
	urgent int64         // nano bytes, charged by Urgent alone
	recent recent
}

// Rate is the cap in bytes per second, 0 for none.
func (c *Core) Rate() int64 { return c.rate }

// SetRate changes the cap at once; 0 or less removes it. Credit is cut to what
// the new rate holds. Debt is kept in bytes or in time, whichever is sooner
// paid: neither a slow past nor a large last request holds up the new rate.
func (c *Core) SetRate(now time.Duration, rate int64) {
	rate = min(max(rate, 0), MaxRate)
	c.settle(now)
	old := c.rate
	c.rate, c.at = rate, now
	if old == 0 || rate == 0 {
		c.recent = recent{}
		c.recent.settle(now)
	}
	for _, b := range []*int64{&c.long, &c.peak, &c.urgent} {
		switch {
		case old == 0 || rate == 0:
			*b = 0
		case *b < 0 && rate < old:
			*b = -mulDiv(-*b, rate, old)
		}
	}
	c.long = min(c.long, rate*int64(Credit))
	c.peak = min(c.peak, peakRate(rate)*int64(peakCredit))
	c.urgent = min(c.urgent, rate*int64(urgentCredit))
}

// Take asks to send n bytes. With wait 0 they are charged and may leave now;
// otherwise nothing is charged, and it makes no sense to ask again earlier
// than after wait, unless the rate changes.
func (c *Core) Take(now time.Duration, class Class, n int) (wait time.Duration) {
	if c.rate == 0 {
		return 0
	}
	c.settle(now)
	wait = max(until(c.long, c.rate), until(c.peak, peakRate(c.rate)), c.recent.wait(now, mostRecent(c.rate)))
	if class == Urgent {
		wait = min(wait, until(c.urgent, c.rate))
	}
	if wait > 0 {
		return wait
	}
	cost := int64(min(max(n, 0), maxTake)) * nano
	c.recent.add(cost)
	c.long = max(c.long-cost, -maxDebt*nano)
	c.peak = max(c.peak-cost, -maxDebt*nano)
	if class == Urgent {
		c.urgent = max(c.urgent-cost, -maxDebt*nano)
	}
	return 0
}

// Charge corrects what has been charged for: n more bytes have left than Take
// was told, or fewer when n is negative. It waits for nothing; what is refunded
// beyond the credit is lost.
func (c *Core) Charge(now time.Duration, n int) {
	if c.rate == 0 {
		return
	}
	c.settle(now)
	cost := int64(min(max(n, -maxTake), maxTake)) * nano
	c.recent.correct(cost)
	c.long = min(max(c.long-cost, -maxDebt*nano), c.rate*int64(Credit))
	c.peak = min(max(c.peak-cost, -maxDebt*nano), peakRate(c.rate)*int64(peakCredit))
}

// settle reckons the budgets up to now.
func (c *Core) settle(now time.Duration) {
	past := int64(now - c.at)
	if past <= 0 || c.rate == 0 {
		return
	}
	c.at = now
	c.recent.settle(now)
	c.long = fill(c.long, c.rate, past, Credit)
	c.peak = fill(c.peak, peakRate(c.rate), past, peakCredit)
	c.urgent = fill(c.urgent, c.rate, past, urgentCredit)
}

// fill adds past nanoseconds of rate to a budget that holds depth of it.
func fill(level, rate, past int64, depth time.Duration) int64 {
	full := rate * int64(depth)
	if past >= (full-level)/rate+1 { // also keeps rate*past from overflowing
		return full
	}
	return min(level+rate*past, full)
}

// until is the time that rate needs to bring level out of debt.
func until(level, rate int64) time.Duration {
	if level >= 0 {
		return 0
	}
	return time.Duration((-level + rate - 1) / rate)
}

// peakRate is how fast lost time is made up for: 1.25 times the rate.
func peakRate(rate int64) int64 { return rate + rate/4 }

// mulDiv is a*b/c without overflow between; b <= c and none is negative.
func mulDiv(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(q)
}
