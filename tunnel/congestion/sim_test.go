package congestion

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// A sim is one bottleneck and those who send over it, in pretended time. The
// same seed gives the same result, to the packet.
type sim struct {
	now    time.Duration
	events events
	serial int
	rng    *rand.Rand
	line   line
	free   time.Duration // when the bottleneck has sent what is in its queue
	bad    bool          // the Gilbert model is in its losing state

	tokens        float64       // of the policer, as of policed
	policed       time.Duration //
	dropped, lost int           // packets, by the queue or the policer, and by the line
	mostQueue     time.Duration
	queueSum      time.Duration
	queued        int
}

// line is what the bottleneck is like.
type line struct {
	rate  int64         // bytes per second
	delay time.Duration // one way
	queue int64         // bytes
	loss  float64
	stall time.Duration
	poll  time.Duration // the receiver looks so often: what has come then is acknowledged at once; 0: each packet
	burst float64       // mean length of bursts of losses; up to 1 for none
	// police drops what exceeds so many bytes per second, but for bursts of depth; 0: nothing.
	police, depth int64
}

type event struct {
	at time.Duration
	n  int
	do func()
}

type events []event

func (h events) Len() int { return len(h) }
func (h events) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].n < h[j].n
}
func (h events) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *events) Push(x any)   { *h = append(*h, x.(event)) }
func (h *events) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

func newSim(l line, seed uint64) *sim {
	return &sim{rng: rand.New(rand.NewPCG(seed, 1)), line: l}
}

func (s *sim) after(d time.Duration, do func()) {
	s.serial++
	heap.Push(&s.events, event{s.now + d, s.serial, do})
}

// run goes on for d.
func (s *sim) run(d time.Duration) {
	end := s.now + d
	for len(s.events) > 0 && s.events[0].at <= end {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	s.now = end
}

// send puts a packet on the line; arrived is called when its acknowledgement
// is back, unless it is lost.
func (s *sim) send(size int64, arrived func()) {
	s.free = max(s.free, s.now)
	wait := s.free - s.now
	s.mostQueue = max(s.mostQueue, wait)
	s.queueSum += wait
	s.queued++
	if s.police(size) {
		s.dropped++
		return
	}
	if int64(wait.Seconds()*float64(s.line.rate))+size > max(s.line.queue, 3000) {
		s.dropped++
		return
	}
	s.free += time.Duration(float64(size) / float64(s.line.rate) * 1e9)
	if s.loses() {
		s.lost++
		return
	}
	at := s.free + 2*s.line.delay
	if s.line.poll > 0 {
		at += s.line.poll - at%s.line.poll
	}
	s.after(s.stall(at)-s.now, arrived)
}

// police tells whether the policer drops a packet.
func (s *sim) police(size int64) bool {
	if s.line.police == 0 {
		return false
	}
	s.tokens = min(s.tokens+(s.now-s.policed).Seconds()*float64(s.line.police), float64(s.line.depth))
	s.policed = s.now
	if s.tokens < float64(size) {
		return true
	}
	s.tokens -= float64(size)
	return false
}

// stall delays what would arrive while the receiver's processor is elsewhere:
// once in each 50 ms, for up to line.stall.
func (s *sim) stall(at time.Duration) time.Duration {
	if s.line.stall == 0 {
		return at
	}
	const slot = 50 * time.Millisecond
	r := rand.New(rand.NewPCG(uint64(at/slot), 2))
	begin := at/slot*slot + time.Duration(r.Int64N(int64(slot-s.line.stall)))
	end := begin + time.Duration(r.Int64N(int64(s.line.stall)))
	if begin <= at && at < end {
		return end
	}
	return at
}

// loses draws the fate of a packet (Gilbert, as bench/wanem).
func (s *sim) loses() bool {
	p, l := s.line.loss, s.line.burst
	switch {
	case p == 0:
		return false
	case l <= 1:
		return s.rng.Float64() < p
	case s.bad:
		s.bad = s.rng.Float64() >= 1/l
	default:
		s.bad = s.rng.Float64() < p/(l*(1-p))
	}
	return s.bad
}

const simPacket, simOverhead = 1452, 42

// A flight is packets under way with QUIC's loss detection by reordering.
type flight struct {
	next  int64
	first int64          // all before it are settled
	under map[int64]bool // packets under way
}

// ack settles a packet, and tells of those that are now known to be lost.
func (f *flight) ack(n int64, lost func(int64)) bool {
	if !f.under[n] {
		return false
	}
	delete(f.under, n)
	for ; f.first <= n-3; f.first++ {
		if f.under[f.first] {
			delete(f.under, f.first)
			lost(f.first)
		}
	}
	return true
}

// A conn is a QUIC connection with a Member, as quic-go drives one.
type conn struct {
	sim       *sim
	m         *Member
	flight    flight
	wake      int   // number of the timer that counts
	left      int64 // packets that it has to send; -1 for no end
	delivered int64 // bytes on the wire
	lost      int64
	latest    time.Duration // RTT of the last packet
	ackDelay  time.Duration // the receiver waits so long for a second packet to acknowledge (RFC 9000, section 13.2.2)
	unacked   func()        // acknowledges the one that waits
	done      time.Duration // when the last of left was acknowledged
}

func newConn(s *sim, p *Path, c Class) *conn {
	x := &conn{sim: s, m: NewMember(), left: -1, flight: flight{under: map[int64]bool{}}}
	x.m.Join(p, c, 1280, simOverhead)
	x.m.SetPacketSize(simPacket)
	return x
}

func (c *conn) inFlight() int64 { return int64(len(c.flight.under)) * simPacket }

// try sends what may leave now, and sets the timer for more.
func (c *conn) try() {
	for c.left != 0 && c.m.CanSend(c.inFlight()) {
		if !c.m.HasBudget(c.sim.now) {
			c.wake++
			mine := c.wake
			c.sim.after(max(c.m.NextSend()-c.sim.now, 0), func() {
				if mine == c.wake {
					c.try()
				}
			})
			return
		}
		c.send()
	}
}

func (c *conn) send() {
	n := c.flight.next
	c.flight.next++
	if c.left > 0 {
		c.left--
	}
	c.flight.under[n] = true
	c.m.Sent(c.sim.now, n, simPacket, c.inFlight(), true)
	at := c.sim.now
	c.sim.send(simPacket+simOverhead, func() {
		c.arrived(n, at)
	})
}

// arrived is the receiver's side of a packet.
func (c *conn) arrived(n int64, at time.Duration) {
	switch {
	case c.unacked != nil:
		c.unacked() // two are acknowledged together
		fallthrough
	case n == 0 || c.ackDelay == 0:
		c.acked(n, at)
		return
	}
	waits := true
	c.unacked = func() {
		if waits {
			waits, c.unacked = false, nil
			c.acked(n, at)
		}
	}
	c.sim.after(c.ackDelay, c.unacked)
}

func (c *conn) acked(n int64, at time.Duration) {
	c.latest = c.sim.now - at
	known := c.flight.ack(n, func(l int64) {
		c.m.Lost(l, simPacket)
		c.lost++
		if c.left >= 0 {
			c.left++
		}
	})
	if !known {
		return
	}
	c.delivered += simPacket + simOverhead
	c.m.Acked(c.sim.now, n, simPacket)
	c.done = c.sim.now
	c.try()
}

// group starts n bulk connections of one path.
func group(s *sim, p *Path, n int) (cs []*conn) {
	for range n {
		cs = append(cs, newConn(s, p, Bulk))
	}
	for _, c := range cs {
		s.after(0, c.try)
	}
	return cs
}

func total(cs []*conn) (bytes int64) {
	for _, c := range cs {
		bytes += c.delivered
	}
	return bytes
}

// A cubic is a competitor: a TCP of RFC 9438 with slow start until the first loss.
type cubic struct {
	sim       *sim
	flight    flight
	window    float64 // packets
	threshold float64
	most      float64 // w_max
	since     time.Duration
	recover   int64
	delivered int64
}

func newCubic(s *sim) *cubic {
	c := &cubic{sim: s, window: 10, threshold: 1e9, flight: flight{under: map[int64]bool{}}}
	s.after(0, c.try)
	return c
}

func (c *cubic) try() {
	for float64(len(c.flight.under)) < c.window {
		n := c.flight.next
		c.flight.next++
		c.flight.under[n] = true
		c.sim.send(simPacket+simOverhead, func() { c.acked(n) })
	}
}

func (c *cubic) acked(n int64) {
	lost := false
	if !c.flight.ack(n, func(l int64) { lost = lost || l >= c.recover }) {
		return
	}
	c.delivered += simPacket + simOverhead
	switch {
	case lost:
		c.recover = c.flight.next
		if c.window < c.most {
			c.most = c.window * (1 + cubicBeta) / 2
		} else {
			c.most = c.window
		}
		c.window = max(c.window*cubicBeta, 2)
		c.threshold = c.window
		c.since = c.sim.now
	case c.window < c.threshold:
		c.window++
	default:
		k := cbrt(c.most * (1 - cubicBeta) / 0.4)
		t := (c.sim.now - c.since + 2*c.sim.line.delay).Seconds() - k
		target := 0.4*t*t*t + c.most
		target = min(target, 1.5*c.window)
		if target > c.window {
			c.window += (target - c.window) / c.window
		} else {
			c.window += 0.01 / c.window
		}
	}
	c.try()
}

const cubicBeta = 0.7

func cbrt(x float64) float64 {
	r := 1.0
	for range 60 {
		r -= (r*r*r - x) / (3*r*r + 1e-12)
	}
	return r
}
