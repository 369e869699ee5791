package gateway

import "time"

// backlog is the rule for how many encoded bytes may be on their way. Bytes
// that we took from the source and the destination has not taken are pure
// downtime, and they fool the hypervisor's estimate of the switchover.
//
// The limit is what the line carries in one round trip and 100 ms more; 40 ms
// from the third round on. In the first round, which has no switchover to fear,
// it is two round trips and 200 ms, so that a lost packet (which holds back all
// that follows it for a round trip) does not look like a slow line.
//
// What the line carries is known only from moments in which the limit was
// reached: a source that pauses, or a late round with little to send, says
// nothing about the line.
type backlog struct {
	line float64 // bytes per second
	last int64   // limit that was given last
}

const (
	// firstBacklog lets a line of unknown rate show what it can carry.
	firstBacklog = 4 << 20
	// minBacklog is two compressed batches: less would leave the line idle
	// between them.
	minBacklog = 512 << 10
	// maxBacklog is what a peer grants (wan-transport.md, section 7).
	maxBacklog = 128 << 20
	// lineFades is what is left of the estimate after a tick of 100 ms at the
	// limit, if the goodput is lower: half of it after 3.4 s.
	lineFades = 0.98
)

// limit is asked every 100 ms. goodput is in bytes per second, unacked the
// bytes on their way now; rounds counts the passes over memory.
func (b *backlog) limit(goodput, unacked int64, rtt time.Duration, rounds int) int64 {
	full := unacked >= b.last*3/4
	switch {
	case b.line == 0 && !full:
		b.last = firstBacklog
		return b.last
	case full:
		b.line = max(float64(goodput), b.line*lineFades)
	}
	ahead := rtt + 100*time.Millisecond
	switch {
	case rounds <= 1:
		ahead *= 2
	case rounds >= 3:
		ahead = rtt + 40*time.Millisecond
	}
	b.last = min(max(int64(b.line*ahead.Seconds()), minBacklog), maxBacklog)
	if rounds <= 1 {
		b.last = max(b.last, firstBacklog)
	}
	return b.last
}
