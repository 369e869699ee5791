package gateway

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// cores are the machine's, which the sessions of a gateway share, and with them what they
// know of its lines.
type cores struct {
	sharers atomic.Int32 // sessions that have something to send
	turns   turnstile    // of their batches
	works   tally        // what all of them did to batches so far

	mu     sync.Mutex // guards what follows
	at     time.Time  // of the last look
	idled  uint64     // ticks of all cores until then
	all    uint64
	own    time.Duration // what this process has used until then,
	since  time.Time     // which was at
	lately load
	looked bool               // idled and all are known
	known  bool               // lately is
	lines  map[string]float64 // what moves knew last of those to other sites, bytes per second
}

// A load of the machine, in cores.
type load struct {
	idle float64 // that this process might have used: a container may have few of many (GOMAXPROCS)
	busy float64 // with whatever it is
	own  float64 // with this process
	all  float64 // that there are
}

// unknown is the load of a machine that does not tell, or has not been asked twice.
var unknown = load{idle: -1}

const (
	// lookEvery is how often the machine is asked: it counts in ticks of
	// 10 ms, and takes 20 us to answer, a millisecond with a hundred cores.
	lookEvery = 200 * time.Millisecond
	// leastTicks of all cores say something.
	leastTicks = 10
	// forgotten is what the machine did so long ago.
	forgotten = 2 * time.Second
)

// load is that of about the last half second.
func (c *cores) load(now time.Time) load {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.at) >= forgotten {
		c.looked, c.known = false, false
	}
	if now.Sub(c.at) >= lookEvery {
		c.at = now
		c.look(now)
	}
	if !c.known {
		return unknown
	}
	return c.lately
}

func (c *cores) look(now time.Time) {
	idled, all, ok := machineTime()
	own := processTime()
	if !ok || c.looked && all < c.all+leastTicks {
		return
	}
	if c.looked {
		free := float64(idled-min(c.idled, idled)) / float64(all-c.all) * float64(runtime.NumCPU()) // iowait may fall (proc(5))
		l := load{all: float64(runtime.NumCPU()), own: (own - c.own).Seconds() / now.Sub(c.since).Seconds()}
		l.busy, l.idle = l.all-free, max(min(free, float64(runtime.GOMAXPROCS(0))-l.own), 0)
		if !c.known {
			c.lately = l
		}
		c.lately.idle += (l.idle - c.lately.idle) / 2
		c.lately.busy += (l.busy - c.lately.busy) / 2
		c.lately.own += (l.own - c.lately.own) / 2
		c.known = true
	}
	c.idled, c.all, c.own, c.since, c.looked = idled, all, own, now, true
}

// noteLine keeps what a move knows of the line to a site, in bytes per second.
func (c *cores) noteLine(site string, line float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines == nil {
		c.lines = make(map[string]float64)
	}
	c.lines[site] = line
}

// line is what a move knew last of the line to a site; 0 if none did.
func (c *cores) line(site string) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[site]
}
