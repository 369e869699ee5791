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
	free      float64 // cores that were idle lately
	looked    bool    // idled and all are known
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
// second; negative if that is not known.
func (c *cores) idle(now time.Time) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.at) >= lookEvery {
		c.at = now
		c.look()
	}
	if !c.freeKnown {
		return -1
	}
	return c.free
}

func (c *cores) look() {
	idled, all, ok := machineTime()
	if !ok || c.looked && all < c.all+leastTicks {
		return
	}
	if c.looked {
		free := float64(idled-c.idled) / float64(all-c.all) * float64(runtime.NumCPU())
		if !c.freeKnown {
			c.free = free
		}
		c.free += (free - c.free) / 2
		c.freeKnown = true
	}
	c.idled, c.all, c.looked = idled, all, true
}
