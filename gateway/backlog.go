package gateway

import (
	"context"
	"sync"
	"time"
)

// What we took from the source and the destination has not taken is pure
// downtime, and it fools the hypervisor's estimate of the switchover. It is
// bounded twice: encoded bytes by what the line carries, and bytes of stream by
// what the destination loads, because a batch of known pages is a few hundred
// bytes on the line and two million at the destination. Which of the two is reached
// depends on the stream as well, so what holds a move up is told by where the bytes
// are: limit.go.
//
// Each bound is what passes in one round trip and 100 ms more; 40 ms from the
// third round over memory on. In the first round, which has no switchover to
// fear, it is two round trips and 200 ms, so that a lost packet (which holds
// back all that follows it for a round trip) does not look like a slow line.

// backlog is the rule for one of the bounds. What the line or the destination
// can do is known only from moments in which the bound was reached: a source
// that pauses, or a late round with little to send, says nothing.
type backlog struct {
	first, least, most int64 // bytes: before anything is known, and at any time

	pace  float64 // bytes per second
	last  int64   // limit that was given last
	ticks int     // times that the rule was asked
}

const (
	// paceFades is what is left of the estimate after a tick of 100 ms at the
	// limit, if the rate is lower: half of it after 3.4 s.
	paceFades = 0.98
	// beginning is two seconds, in ticks.
	beginning = 20
	// maxBacklog of encoded bytes is what a peer grants (wan-transport.md,
	// section 7).
	maxBacklog = 128 << 20
)

// lineBacklog bounds encoded bytes. It begins with what lets a line of unknown
// rate show what it can carry; two compressed batches are the least, as less
// would leave the line idle between them.
func lineBacklog() backlog { return backlog{first: 4 << 20, least: 512 << 10, most: maxBacklog} }

// loadBacklog bounds bytes of stream. Two batches of known pages on each of two
// cores are the least.
func loadBacklog() backlog { return backlog{first: 16 << 20, least: 8 << 20, most: 1 << 30} }

// now is what the rule looks at.
type now struct {
	rate    int64 // bytes per second that pass
	most    int64 // bytes per second that may pass, 0 if it is not known
	unacked int64 // bytes on their way
	rtt     time.Duration
	rounds  int // passes over memory
}

// limit is asked every 100 ms. In the first two seconds, while connections
// find out what the line carries, the line gets the benefit of the doubt.
func (b *backlog) limit(n now) int64 {
	if b.ticks++; n.unacked >= b.last*3/4 {
		b.pace = max(float64(n.rate), b.pace*paceFades)
	}
	pace, floor := b.pace, b.least
	if b.ticks <= beginning {
		pace = max(pace, float64(n.most))
		if n.most == 0 {
			floor = b.first
		}
	}
	ahead := n.rtt + 100*time.Millisecond
	switch {
	case n.rounds <= 1:
		ahead *= 2
	case n.rounds >= 3:
		ahead = n.rtt + 40*time.Millisecond
	}
	b.last = min(max(int64(pace*ahead.Seconds()), floor), b.most)
	return b.last
}

// drain is how long bytes on their way take, by what is known.
func (b *backlog) drain(unacked int64) time.Duration {
	if b.pace == 0 {
		return 0
	}
	return time.Duration(float64(unacked) / b.pace * float64(time.Second))
}

// window holds a leg's stream back when too much of it is on its way. Each leg
// has its own: a bound that legs share would stop a multifd migration for good,
// whose channels wait for each other (hypervisor-wire.md, trap 9).
type window struct {
	mu    sync.Mutex    // guards what follows
	limit int64         // bytes; 0 before the first tick, and then there is none
	used  int64         // bytes
	freed chan struct{} // closed and replaced when there may be room
}

func newWindow() *window { return &window{freed: make(chan struct{})} }

// take waits until less than the limit is on its way, and adds n.
func (w *window) take(ctx context.Context, n int64) error {
	for {
		w.mu.Lock()
		if w.limit == 0 || w.used < w.limit {
			w.used += n
			w.mu.Unlock()
			return nil
		}
		freed := w.freed
		w.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// release says that n bytes have arrived.
func (w *window) release(n int64) { w.change(func() { w.used -= n }) }

// set changes the limit.
func (w *window) set(limit int64) { w.change(func() { w.limit = limit }) }

func (w *window) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.freed)
	w.freed = make(chan struct{})
}

func (w *window) onTheWay() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.used
}
