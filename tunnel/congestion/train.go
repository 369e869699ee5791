package congestion

import (
	"slices"
	"time"
)

// Startup sends trains: what its pace gives in trainShare of a round trip leaves at
// once. The line spreads a train over the time that it needs to carry it, so what
// is acknowledged of one tells how fast the line is, rounds before there is a queue
// (packet-train dispersion: Dovrolis et al., Packet-Dispersion Techniques, 2004).
const (
	trainShare = 1.0 / 8
	// leastTrainRTT: on shorter lines trains are too short to be told from noise.
	leastTrainRTT = 20 * time.Millisecond
	// leastTrain packets make one, and leastSpread of their acknowledgements is
	// measurable: receivers acknowledge each second packet, and processors are late.
	leastTrain  = 8
	leastSpread = 2 * time.Millisecond
	// leastTimes acknowledgements tell how far apart they come; straggle times as late is
	// not the line.
	leastTimes = 3
	straggle   = 4
	// spreadBy at least the line must have slowed a train down to have been its limit.
	spreadBy = 1.5
	// leastTrains that were slowed down are believed, unless one that was not came
	// faster by fasterBy.
	leastTrains = 3
	fasterBy    = 1.1
	// jump is how much faster than what has arrived they may say that the line is to
	// be believed at once: what limits the rate and not single trains shows by then.
	// No gain is more: before that the pace is below what they tell anyway.
	jump = farGain
	// trainFull of what they tell ends startup.
	trainFull = 0.9
)

// A train is packets that left one right after the other, as far as they have been
// acknowledged.
type train struct {
	packets   int
	all       int64         // acknowledged with the first packet or later, but it
	bytes     int64         // and of that later than the first packet
	from, to  time.Duration // when the first and the last of them were sent
	came, end time.Duration // and when they were acknowledged
	times     int           // moments at which some were, after the first
}

// trains is what those of late tell.
type trains struct {
	train
	slowed [8]int64 // rates of the last that the line has slowed down, bytes per second
	n      int      // how many there were ever
	open   [2]int64 // the fastest that came as it was sent, or at once, of this round and the last
	// limit is the line's rate as they tell it, the median of slowed; 0 while they are
	// too few, or another came faster.
	limit int64
}

// acked takes in the acknowledgement of a packet sent at a time. What was sent more
// than gap after the last is of another train.
func (t *trains) acked(now, sent, gap time.Duration, size int64) {
	switch {
	case t.packets == 0 || sent-t.to > gap:
		t.arrived()
		t.train = train{packets: 1, from: sent, to: sent, came: now, end: now}
		return
	case sent < t.from || t.straggles(now, gap):
		return
	case now > t.end:
		t.times++
	}
	t.packets++
	t.all += size
	t.to, t.end = max(t.to, sent), now
	if t.times > 0 {
		t.bytes += size
	}
}

// straggles tells of an acknowledgement that comes so much later than those before it
// that not the line has made it late: a receiver that has no second packet to
// acknowledge with it holds it back (RFC 9000, section 13.2.1), until the next train
// comes; its processor was elsewhere; or what came in between was lost. Those before may
// all have come at once: a receiver takes what is there (UDP_GRO) before it acknowledges
// it. Less than gap is common where processors are busy, and no matter.
func (t *train) straggles(now, gap time.Duration) bool {
	var usual time.Duration // between two of those before
	switch {
	case t.times >= leastTimes:
		usual = (t.end - t.came) / time.Duration(t.times)
	case t.times > 0 || t.packets < leastTrain:
		return false
	}
	return now-t.end > max(straggle*usual, leastSpread, gap)
}

// arrived judges a train that is complete.
func (t *trains) arrived() {
	spread, sent := t.end-t.came, t.to-t.from
	if t.packets < leastTrain {
		return
	}
	rate := func(bytes int64) int64 { return int64(float64(bytes) / max(spread, leastSpread).Seconds()) }
	switch {
	case spread < leastSpread:
		t.open[0] = max(t.open[0], rate(t.all))
	case float64(spread) < spreadBy*float64(sent):
		t.open[0] = max(t.open[0], rate(t.bytes))
	default:
		t.slowed[t.n%len(t.slowed)] = rate(t.bytes)
		t.n++
	}
	t.limit = t.median()
}

// next begins a round.
func (t *trains) next() {
	t.open = [2]int64{0, t.open[0]}
	t.limit = t.median()
}

// median is what limit is to be.
func (t *trains) median() int64 {
	n := min(t.n, len(t.slowed))
	if n < leastTrains {
		return 0
	}
	sorted := t.slowed
	slices.Sort(sorted[:n])
	median := sorted[n/2]
	if float64(t.carried()) > fasterBy*float64(median) {
		return 0
	}
	return median
}

// carried is a rate that the line has carried a train at; it may have more.
func (t *trains) carried() int64 { return max(t.open[0], t.open[1]) }
