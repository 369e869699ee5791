package tunnel

import (
	"context"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// A path that costs less has to be up for cheaperFor before what is urgent goes back to
// it. A set that changes costs a round trip or two of what is under way, and one that dies
// seconds; so a path that comes and goes more often than that costs nothing, and one that
// was not good for provenFor after it was taken has to be up for twice as long before the
// next time, up to cheaperMost.
const (
	cheaperFor  = 30 * time.Second
	provenFor   = 10 * time.Minute
	cheaperMost = 30 * time.Minute
)

// goCheaper dials a new set in place of the one in use if that has its urgent connection,
// and with it the frames of segments, on a path that costs more than another: the other was
// down, or the costs are new. Bulk has gone back by itself.
func (l *Link) goCheaper(ctx context.Context, wg *sync.WaitGroup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	c := l.cheaper(now)
	if c == nil {
		return
	}
	d := dialing{path: c.path, role: frame.Priority, set: newID(), addr: c.conn.RemoteAddr().String(), via: l.set.via, move: true}
	l.dials.busy = true
	// A path that is up answers soon; while we wait, nothing else is dialed for what is urgent.
	most := time.Second + 8*c.conn.ConnectionStats().SmoothedRTT
	wg.Go(func() {
		soon, cancel := context.WithTimeout(ctx, most)
		x, free, err := l.dial(soon, d)
		cancel()
		l.mu.Lock()
		l.dials.movedTo(d.addr, time.Now(), err)
		l.mu.Unlock()
		if err == nil {
			l.node.log.Info("what is urgent goes over the cheaper path", "site", l.site, "path", d.path.name, "peer", d.addr)
			x.run(ctx)
			free()
		}
	})
}

// movedTo notes how going to a cheaper path has ended.
func (d *dialState) movedTo(addr string, now time.Time, err error) {
	d.busy = false
	if err != nil {
		d.cheaper = now.Add(cheaperFor)
		return
	}
	d.addr, d.moved = addr, now
}

// setDied notes that the set in use has ended, and not because there is another.
func (d *dialState) setDied(now time.Time) {
	switch {
	case d.moved.IsZero():
	case now.Sub(d.moved) < provenFor:
		d.hold = min(2*max(d.hold, cheaperFor), cheaperMost)
	default:
		d.hold = 0
	}
	d.moved = time.Time{}
}

// cheaper is a connection over the path to which the set should go; nil if it should stay.
// The caller holds mu.
func (l *Link) cheaper(now time.Time) (best *carrier) {
	s := l.set
	if s == nil || !s.ready || !s.dialed || l.closed || l.dials.busy || now.Before(l.dials.cheaper) || l.hasTail() {
		return nil
	}
	least, hold := s.priority.path.conf.Cost, max(l.dials.hold, cheaperFor)
	for c := range s.others {
		if !c.ended && c.path.conf.Cost < least && now.Sub(c.began) >= hold {
			best, least = c, c.path.conf.Cost
		}
	}
	return best
}

// mayMove is asked by each end before the other may be committed to the set of c: not while
// a VM waits for what this end sends. Afterwards it is too late, and costs round trips.
func (l *Link) mayMove(c *candidate) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.moves() && l.set != nil && l.hasTail() {
		return errTail
	}
	return nil
}

// hasTail tells whether a VM stands still for what a channel carries. The caller holds mu.
func (l *Link) hasTail() bool {
	for _, ch := range l.channels {
		if ch.flow.tail {
			return true
		}
	}
	return false
}
