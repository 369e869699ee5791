package gateway

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// cores are the machine's, which the sessions of a gateway share.
type cores struct {
	sharers atomic.Int32 // sessions that have something to send
	turns   turnstile    // of their batches

	mu        sync.Mutex // guards what follows
	at        time.Time  // of the last look
	idled     uint64     // ticks of all cores until then
	all       uint64
	own       time.Duration // what this process has used until then,
	since     time.Time     // which was at
	free      float64       // cores that were idle lately, and this process may use
	looked    bool          // idled and all are known
	freeKnown bool
}

const (
	// lookEvery is how often the machine is asked: it counts in ticks of
	// 10 ms, and takes 20 us to answer, a millisecond with a hundred cores.
	lookEvery = 200 * time.Millisecond
	// leastTicks of all cores say something.
	leastTicks = 10
)

// idle is how many cores of the machine have been idle in about the last half
// second, and no more than this process might have used: a container may have few of
// many (GOMAXPROCS). It is negative if that is not known.
func (c *cores) idle(now time.Time) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.at) >= lookEvery {
		c.at = now
		c.look(now)
	}
	if !c.freeKnown {
		return -1
	}
	return c.free
}

func (c *cores) look(now time.Time) {
	idled, all, ok := machineTime()
	own := processTime()
	if !ok || c.looked && all < c.all+leastTicks {
		return
	}
	if c.looked {
		free := float64(idled-c.idled) / float64(all-c.all) * float64(runtime.NumCPU())
		room := float64(runtime.GOMAXPROCS(0)) - (own-c.own).Seconds()/now.Sub(c.since).Seconds()
		free = max(min(free, room), 0)
		if !c.freeKnown {
			c.free = free
		}
		c.free += (free - c.free) / 2
		c.freeKnown = true
	}
	c.idled, c.all, c.own, c.since, c.looked = idled, all, own, now, true
}
