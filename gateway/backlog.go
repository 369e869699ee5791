package gateway

import "time"

// backlog is the rule for how many encoded bytes may be on their way. Bytes
// that we took from the source and the destination has not taken are pure
// downtime, and they fool the hypervisor's estimate of the switchover.
//
// The limit is a full pipe (goodput times round trip) and some slack. The
// goodput is the best of the last seconds, because a line that was idle for a
// moment has not become slower.
type backlog struct{ best float64 } // bytes per second

const (
	// firstBacklog lets a line of unknown rate show what it can carry.
	firstBacklog = 2 << 20
	// minBacklog is two compressed batches: less would leave the line idle
	// between them.
	minBacklog = 256 << 10
	// maxBacklog is what a peer grants (wan-transport.md, section 7).
	maxBacklog = 128 << 20
	// bestFades is what is left of the best goodput after a tick of 100 ms:
	// half of it after 3.4 s.
	bestFades = 0.98
)

// limit is asked every 100 ms. goodput is in bytes per second; rounds counts
// the passes over memory, of which the first has no switchover to fear.
func (b *backlog) limit(goodput int64, rtt time.Duration, rounds int) int64 {
	b.best = max(float64(goodput), b.best*bestFades)
	if b.best == 0 {
		return firstBacklog
	}
	slack := 100 * time.Millisecond
	if rounds > 1 {
		slack = 40 * time.Millisecond
	}
	return min(max(int64(b.best*(rtt+slack).Seconds()), minBacklog), maxBacklog)
}
