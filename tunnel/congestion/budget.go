package congestion

import (
	"math"
	"time"
)

// What the budget holds, as time at the pace. A stall of the scheduler or of who
// supplies bulk of up to credit is made up for afterwards, at 1.25 times the pace
// (see package shaper). On a line that has no more than the pace, what makes up
// for it stands in the queue: once a queue is seen there is only shortCredit, after
// idleFor without bulk, and for opening after that while nothing waits: who begins
// may send a little and then has to wait for the peer's answer, which is no stall.
const (
	credit       = 30 * time.Millisecond
	shortCredit  = 5 * time.Millisecond
	peakCredit   = 3 * time.Millisecond
	peakFactor   = 1.25
	urgentCredit = 10 * time.Millisecond
	// burst is what bulk waits for once the budget is used up: one write of many
	// packets (UDP_SEGMENT) costs both ends not much more than one of a single
	// packet, and most of what a packet costs is waking for it. The kernel's TCP
	// does the same (sk_pacing_shift). A short line has a short queue: no more
	// than burstShare of its RTT. More than mostBurst does not fit into a write.
	burst      = 500 * time.Microsecond
	burstShare = 1.0 / 32
	mostBurst  = 64 << 10
	// mostDebt is how deep what need not wait may push it.
	mostDebt = 20 * time.Millisecond
	// idleFor without anybody who used the pace: the sender has too little.
	idleFor = 40 * time.Millisecond
	// opening is longer than the answer takes where that is sooner than idleFor.
	opening = 250 * time.Millisecond
)

// A budget is what may leave now, in bytes on the wire. Path.mu guards it. A
// level below zero is a debt that those who pay attention to it wait for; a
// packet may leave at zero, so that its size is of no matter.
type budget struct {
	rate   float64       // bytes per second
	at     time.Duration // until when the levels are reckoned
	long   float64       // filled at the rate
	peak   float64       // filled at peakFactor times the rate
	urgent float64       // filled at the rate, used by Priority alone
	full   time.Duration // when long was last not full
	short  bool          // there is shortCredit only
	burst  float64       // bulk waits for so much once it has found nothing
	spent  bool          // bulk has found nothing and waits for a burst
	bulk   time.Duration // when some was sent last
	began  time.Duration // and when the first after idleFor without any
}

// setRate changes the rate at once. Debts keep their time, so that a slow past
// does not hold up a faster present.
func (b *budget) setRate(now time.Duration, rate int64) {
	b.fill(now)
	was := b.rate
	b.rate = float64(max(rate, 1))
	for _, level := range []*float64{&b.long, &b.peak, &b.urgent} {
		if *level < 0 && b.rate < was {
			*level *= b.rate / was
		}
	}
	b.fill(now)
}

// most is the time that may gather.
func (b *budget) most() time.Duration {
	if b.short || !b.spent && b.at-b.began < opening {
		return shortCredit
	}
	return credit
}

// fill reckons the levels up to now. What gathered while bulk waited is kept when it
// waits no more, but not once a queue is seen.
func (b *budget) fill(now time.Duration) {
	past := max(now-b.at, 0).Seconds()
	b.at = max(now, b.at)
	most := max(b.rate*b.most().Seconds(), b.burst)
	if b.long+past*b.rate < most {
		b.full = now
	}
	kept := min(b.long, b.rate*credit.Seconds())
	if b.short {
		kept = min(kept, most)
	}
	b.long = max(kept, min(b.long+past*b.rate, most))
	b.peak = min(b.peak+past*b.rate*peakFactor, max(b.rate*peakCredit.Seconds(), b.burst))
	b.urgent = min(b.urgent+past*b.rate, b.rate*urgentCredit.Seconds())
}

// wait is how long a class has to wait until its next packet may leave.
func (b *budget) wait(now time.Duration, c Class) time.Duration {
	b.fill(now)
	w := b.reach(0)
	if c == Priority {
		w = min(w, max(-b.urgent/b.rate, 0))
		return time.Duration(w * float64(time.Second))
	}
	if b.spent = b.spent || w > 0; b.spent {
		w = b.reach(b.burst)
	}
	b.spent = w > 0
	return time.Duration(math.Ceil(w * float64(time.Second)))
}

// setBurst changes what bulk waits for. More than mostBurst does not fit into a
// write; a train is of several.
func (b *budget) setBurst(d time.Duration) {
	b.burst = b.rate * d.Seconds()
	if d <= burst {
		b.burst = min(b.burst, mostBurst)
	}
}

// reach is the time in seconds until both levels are at n bytes.
func (b *budget) reach(n float64) float64 {
	return max((n-b.long)/b.rate, (n-b.peak)/(peakFactor*b.rate), 0)
}

// charge takes n bytes, whether they are there or not.
func (b *budget) charge(now time.Duration, c Class, n int64) {
	b.fill(now)
	if c == Bulk {
		if now-b.bulk > b.idleness() { // what has gathered makes up for no stall
			b.long = min(b.long, b.rate*shortCredit.Seconds())
			b.began = now
		}
		b.bulk = now
	}
	deepest := -b.rate * mostDebt.Seconds()
	b.long = max(b.long-float64(n), min(b.long, deepest))
	b.peak = max(b.peak-float64(n), min(b.peak, deepest))
	if c == Priority {
		b.urgent -= float64(n)
	}
}

// idle tells whether nobody has used the pace for a while.
func (b *budget) idle(now time.Duration) bool {
	b.fill(now)
	return now-b.full > b.idleness()-b.most()
}

// idleness is how long without bulk nobody waits for the pace. Who waits for a train is
// not idle; idle counts his wait twice, as the time in which the budget has filled too.
func (b *budget) idleness() time.Duration {
	return max(idleFor, 3*time.Duration(b.burst/b.rate*float64(time.Second)))
}
