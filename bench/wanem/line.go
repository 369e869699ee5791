package wanem

import "time"

// A Line is one direction of the WAN as a model: it is told the time, starts
// nothing and reads no clock. Times are since an arbitrary start and must not
// go back. Its methods are not safe for concurrent use.
type Line struct {
	p      Profile
	chance chance
	cut    bool
	c      Counters

	queue fifo          // before the bottleneck; the head is being transmitted
	waits int64         // bytes in queue
	done  time.Duration // when the head of the queue has been transmitted
	idle  time.Duration // since when the bottleneck has been free, when the queue is empty

	fly  flight        // behind the bottleneck
	last time.Duration // due time of the newest packet in order
	seq  uint64        // breaks ties of due times

	lead time.Duration // how much before its due time a frame may be delivered

	held int      // bytes of buffers in use
	free [][]byte // buffers not in use, each of frame bytes
	size int      // bytes of one buffer
}

// MaxHeld bounds the buffers of one Line in bytes: two seconds of 1 Gbit/s.
const MaxHeld = 256 << 20

type packet struct {
	buf  []byte // owned
	off  int    // where the Ethernet frame begins in buf
	came time.Duration
	due  time.Duration
	seq  uint64
}

func (p packet) size() int { return len(p.buf) - p.off }

// NewLine makes a line whose fate is drawn from seed and whose buffers have
// room for size bytes.
func NewLine(p Profile, seed uint64, size int) *Line {
	return &Line{p: p, chance: newChance(seed), size: size, c: Counters{Flows: make(map[Flow]Count)}}
}

// Buffer lends an empty buffer to fill and hand to Arrive or Recycle. It is
// nil when the line holds MaxHeld bytes.
func (l *Line) Buffer() []byte {
	if n := len(l.free); n > 0 {
		b := l.free[n-1]
		l.free = l.free[:n-1]
		l.held += l.size
		return b
	}
	if l.held >= MaxHeld {
		return nil
	}
	l.held += l.size
	return make([]byte, l.size)
}

// Recycle takes back a buffer that Buffer or Deliver gave.
func (l *Line) Recycle(buf []byte) {
	l.held -= l.size
	l.free = append(l.free, buf[:l.size])
}

// Arrive takes buf, whose Ethernet frame begins at off, as it comes from the
// sender at now.
func (l *Line) Arrive(now time.Duration, buf []byte, off int) {
	l.advance(now)
	p := packet{buf: buf, off: off, came: now}
	l.c.In.add(p.size())
	l.countFlow(p)
	switch {
	case l.cut:
		l.drop(p, &l.c.Cut)
	case l.p.Rate == 0:
		l.transmitted(p, now)
	case l.waits+int64(p.size()) > l.p.queue():
		l.drop(p, &l.c.Full)
	default:
		l.enqueue(p)
	}
}

// Deliver returns a frame that is due at now, or ok false. The caller gives
// buf back by Recycle.
func (l *Line) Deliver(now time.Duration) (buf []byte, off int, ok bool) {
	l.advance(now)
	if len(l.fly) == 0 || l.fly[0].due > now+l.lead {
		return nil, 0, false
	}
	p := l.fly.pop()
	late := max(now-p.due, 0)
	l.c.LateMax = max(l.c.LateMax, late)
	l.c.LateSum += late
	l.c.Out.add(p.size())
	return p.buf, p.off, true
}

// Next is when Deliver has the next frame, or ok false when nothing is under
// way.
func (l *Line) Next() (at time.Duration, ok bool) {
	if len(l.fly) > 0 {
		at, ok = l.fly[0].due, true
	}
	if l.queue.len() > 0 {
		if head := max(l.done+l.p.Delay, l.last); !ok || head < at {
			at, ok = head, true
		}
	}
	return at, ok
}

// Set changes the profile at now. What is under way keeps its due time; what
// waits goes on at the new rate.
func (l *Line) Set(now time.Duration, p Profile) {
	l.advance(now)
	if l.queue.len() > 0 && l.p.Rate > 0 && p.Rate > 0 {
		left := float64(l.done-now) * float64(l.p.Rate) / float64(p.Rate)
		l.done = now + time.Duration(left)
	}
	l.p = p
	for p.Rate == 0 && l.queue.len() > 0 {
		l.transmitted(l.dequeue(), now)
	}
}

// Profile is the profile in force.
func (l *Line) Profile() Profile { return l.p }

// Cut breaks the line at now and loses what is under way; Heal mends it.
func (l *Line) Cut(now time.Duration) {
	l.advance(now)
	l.cut = true
	for l.queue.len() > 0 {
		l.drop(l.dequeue(), &l.c.Cut)
	}
	for len(l.fly) > 0 {
		l.drop(l.fly.pop(), &l.c.Cut)
	}
	l.idle, l.last = now, now
}

// Heal mends a line that was cut.
func (l *Line) Heal() { l.cut = false }

// Counters so far; a copy.
func (l *Line) Counters() Counters {
	c := l.c.clone()
	c.Queue, c.Flying = l.waits, int64(len(l.fly))
	return c
}

// enqueue puts p behind the others, or on the bottleneck when that is free.
func (l *Line) enqueue(p packet) {
	if l.queue.len() == 0 {
		l.done = max(p.came, l.idle) + l.p.transmission(p.size())
	}
	l.queue.push(p)
	l.waits += int64(p.size())
	l.c.QueueMax = max(l.c.QueueMax, l.waits)
}

func (l *Line) dequeue() packet {
	p := l.queue.pop()
	l.waits -= int64(p.size())
	return p
}

// advance moves what the bottleneck has transmitted by now into flight.
func (l *Line) advance(now time.Duration) {
	for l.queue.len() > 0 && l.done <= now {
		p := l.dequeue()
		left := l.done
		if l.queue.len() > 0 {
			l.done += l.p.transmission(l.queue.head().size())
		} else {
			l.idle = left
		}
		l.transmitted(p, left)
	}
}

// transmitted sends p, which left the bottleneck at t, on its flight, or
// loses it.
func (l *Line) transmitted(p packet, t time.Duration) {
	if l.chance.lost(l.p) {
		l.drop(p, &l.c.Lost)
		return
	}
	p.due = max(t+l.p.Delay+l.chance.upTo(l.p.Jitter), l.last)
	if l.chance.hit(l.p.Reorder) {
		p.due += 1 + l.chance.upTo(l.p.late())
		l.c.Reordered.add(p.size())
	} else {
		l.last = p.due
	}
	if l.chance.hit(l.p.Duplicate) {
		l.duplicate(p)
	}
	l.launch(p)
}

func (l *Line) duplicate(p packet) {
	buf := l.Buffer()
	if buf == nil {
		return
	}
	p.buf = buf[:copy(buf, p.buf)]
	l.c.Duplicated.add(p.size())
	l.launch(p)
}

func (l *Line) launch(p packet) {
	l.seq++
	p.seq = l.seq
	l.fly.push(p)
}

func (l *Line) drop(p packet, why *Count) {
	why.add(p.size())
	l.Recycle(p.buf)
}

func (l *Line) countFlow(p packet) {
	f := flowOf(p.buf[p.off:])
	n, known := l.c.Flows[f]
	if !known && len(l.c.Flows) >= MaxFlows {
		f = Flow{}
		n = l.c.Flows[f]
	}
	n.add(p.size())
	l.c.Flows[f] = n
}

// refused counts a frame of n bytes that the emulator had no room for, or that
// the receiving TAP did not take.
func (l *Line) refused(n int) { l.c.Refused.add(n) }
