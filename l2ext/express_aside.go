package l2ext

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/fast"
)

// In mode secure-fast a frame waits for its turn under the link's cap. The readers of
// ports may wait for that. Who sends on what came for a MAC that has left, or sends back
// what was parked, may not: it holds locks that others need, or is the loop. Its frames
// go aside, into a queue of the peer, and a goroutine sends them. While frames that were
// parked for a MAC are in it, those of readers for the MAC go there, too: they would
// overtake them. Nothing slows their hosts down there but losses, and as long as they send
// more than the line takes there is always one to follow: so they have little room, and
// never that of a move.

const (
	// asideHeld bounds what waits aside for a peer, in bytes: all that eight MACs may
	// have parked, or 320 ms at 200 Mbit/s.
	asideHeld = 8 << 20
	// asideFollow bounds, of that, what readers have put behind what was parked: what one MAC
	// may have parked, or about what waits in a TAP. With all of the room a host that
	// sends without end would keep 3 s of a line of 20 Mbit/s waiting, until it stops.
	asideFollow = maxParkedMAC
	// asideAge is how long a frame may wait there: what is sent on is worth nothing
	// when its move is long over.
	asideAge = MoveGrace
)

// An aside is the queue of one peer. Frames leave it in the order in which they came.
type aside struct {
	wake     chan struct{} // 1: a token says that there is work
	released atomic.Int32  // the sum of lots; readers look at it with each frame

	mu     sync.Mutex // guards what follows
	frames []asideFrame
	held   int         // bytes of frames, and of those that are being sent
	behind int         // of these, bytes that follow
	lots   map[MAC]int // frames of lots, and behind them, that are not sent yet, by destination
	ended  bool
}

// asideFrame is a frame that waits.
type asideFrame struct {
	seg        *segment
	message    []byte
	at         time.Time
	redirected bool
	released   bool // out of a lot, or behind what is
	follows    bool // it is behind
}

func (f *asideFrame) mac() MAC  { return MAC(f.message[fast.OffloadLen:]) }
func (f *asideFrame) cost() int { return len(f.message) + frameCost }

func newAside() *aside { return &aside{wake: make(chan struct{}, 1), lots: make(map[MAC]int)} }

// put takes a frame, or drops and counts it. It does not wait. What is released is the
// queue's own then; of what is not, it keeps a copy.
func (a *aside) put(now time.Time, seg *segment, x parcel, s sending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.add(asideFrame{seg: seg, at: now, redirected: s.redirected, released: s.released}, x)
}

// precedes tells whether frames that were parked for a MAC are still to be sent.
func (a *aside) precedes(mac MAC) bool {
	if a.released.Load() == 0 {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lots[mac] > 0
}

// follow takes a copy of a reader's frame like put, if there still are frames that it has to follow.
func (a *aside) follow(now time.Time, seg *segment, x parcel) (taken bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lots[MAC(x.frame)] == 0 {
		return false
	}
	a.add(asideFrame{seg: seg, at: now, released: true, follows: true}, x) // what comes next follows it
	return true
}

// add needs a.mu. What there is no room for is not copied: nobody slows down who sends it.
func (a *aside) add(f asideFrame, x parcel) {
	cost := x.messageLen() + frameCost
	switch {
	case a.ended:
		f.seg.counts.add(DropPeerDown, 1)
		return
	case a.held+cost > asideHeld, f.follows && a.behind+cost > asideFollow:
		f.seg.counts.add(DropAside, 1)
		return
	}
	var fresh []byte
	if f.message, fresh = x.asMessage(nil); fresh == nil && (f.follows || !f.released) { // it is lent
		f.message = slices.Clone(f.message)
	}
	a.frames = append(a.frames, f)
	a.held += cost
	if f.follows {
		a.behind += cost
	}
	if f.released {
		a.lots[f.mac()]++
		a.released.Add(1)
	}
	select {
	case a.wake <- struct{}{}:
	default: // it will look
	}
}

// take gives all that waits, which still counts as held until it is done.
func (a *aside) take() []asideFrame {
	a.mu.Lock()
	defer a.mu.Unlock()
	frames := a.frames
	a.frames = nil
	return frames
}

// done says that frames were sent, or never will be.
func (a *aside) done(frames []asideFrame) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(frames)
}

// forget needs a.mu.
func (a *aside) forget(frames []asideFrame) {
	for _, f := range frames {
		a.held -= f.cost()
		if f.follows {
			a.behind -= f.cost()
		}
		if !f.released {
			continue
		}
		a.released.Add(-1)
		if mac := f.mac(); a.lots[mac] > 1 {
			a.lots[mac]--
		} else {
			delete(a.lots, mac)
		}
	}
}

// end drops what waits, and all that comes.
func (a *aside) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	for _, f := range a.frames {
		f.seg.counts.add(DropPeerDown, 1)
	}
	a.forget(a.frames)
	a.frames = nil
}

// sendAside sends what waits aside for a peer, until ctx ends.
func (m *Manager) sendAside(ctx context.Context, p *peer) {
	a, out := p.express.aside, newExpressOut(m)
	defer a.end()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		for frames := a.take(); len(frames) > 0; frames = a.take() {
			for some := range slices.Chunk(frames, burst) {
				out.putAside(p, some)
				a.done(some)
			}
		}
	}
}

// putAside sends frames that have waited.
func (o *expressOut) putAside(p *peer, frames []asideFrame) {
	now := time.Now()
	for _, f := range frames {
		if now.Sub(f.at) > asideAge {
			f.seg.counts.add(DropAside, 1)
			continue
		}
		o.put(f.seg, p, parcel{frame: f.message[fast.OffloadLen:], message: f.message}, f.redirected)
	}
	o.flush()
}

// sendExpress sends one frame to a site, for those who may not wait.
func (m *Manager) sendExpress(seg *segment, site string, x parcel, s sending) {
	p := m.peer(site)
	if p == nil || m.cfg.Express == nil { // nobody would take it out of the queue
		seg.counts.add(DropPeerDown, 1)
		return
	}
	p.express.aside.put(time.Now(), seg, x, s)
}
