package testwan

import (
	"container/heap"
	"net/netip"
	"sync"
	"time"
)

// packet is a datagram under way.
type packet struct {
	from, to netip.AddrPort
	data     []byte
	at       time.Time // when it arrives
	n        uint64    // order among those that arrive at once
}

// way is one direction between two sites: a queue before a line, and what is on
// the line.
type way struct {
	wake chan struct{} // capacity 1: one token says it all

	mu    sync.Mutex // guards what follows
	free  time.Time  // when the line has sent all that is in its queue
	sent  uint64
	under packets
}

func newWay() *way { return &way{wake: make(chan struct{}, 1)} }

// admit gives the packet its time of arrival; false says that the queue is full.
func (x *way) admit(l Line, p *packet) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	p.at = now.Add(l.Delay)
	if l.Rate == 0 {
		return true
	}
	if x.free.Before(now) {
		x.free = now
	}
	queue := l.Queue
	if queue == 0 {
		queue = int(l.Rate / 10)
	}
	waiting := x.free.Sub(now).Seconds() * float64(l.Rate)
	if int(waiting)+len(p.data)+overhead > max(queue, 2000) {
		return false
	}
	x.free = x.free.Add(time.Duration(float64(len(p.data)+overhead) / float64(l.Rate) * 1e9))
	p.at = x.free.Add(l.Delay)
	return true
}

// push takes p.
func (x *way) push(p *packet) {
	x.mu.Lock()
	x.sent++
	p.n = x.sent
	heap.Push(&x.under, p)
	first := x.under[0].n == p.n
	x.mu.Unlock()
	if first {
		select {
		case x.wake <- struct{}{}:
		default:
		}
	}
}

// run delivers packets when their time has come.
func (x *way) run(closed <-chan struct{}, deliver func(*packet)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, next := x.due(time.Now())
		for _, p := range due {
			deliver(p)
		}
		if len(due) > 0 {
			continue
		}
		timer.Reset(next)
		select {
		case <-closed:
			return
		case <-x.wake:
		case <-timer.C:
		}
	}
}

// due takes what has arrived by now, or says how long the first will take.
func (x *way) due(now time.Time) (ps []*packet, next time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.under) > 0 && !x.under[0].at.After(now) {
		ps = append(ps, heap.Pop(&x.under).(*packet))
	}
	if len(x.under) == 0 {
		return ps, time.Hour
	}
	return ps, x.under[0].at.Sub(now)
}

// packets is a heap by time of arrival.
type packets []*packet

func (h packets) Len() int { return len(h) }
func (h packets) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].n < h[j].n
}
func (h packets) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *packets) Push(x any)   { *h = append(*h, x.(*packet)) }
func (h *packets) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return p
}
