package tunnel

import (
	"context"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// cheaperFor is how long a path that costs less has to be up before what is urgent goes
// back to it. A set that changes costs a round trip or two of what is under way; so one
// that comes and goes more often than that costs nothing.
const cheaperFor = 30 * time.Second

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
	wg.Go(func() {
		x, free, err := l.dial(ctx, d)
		l.mu.Lock()
		l.dials.busy = false
		if err == nil {
			l.dials.addr = d.addr
		} else {
			l.dials.cheaper = time.Now().Add(cheaperFor)
		}
		l.mu.Unlock()
		if err == nil {
			l.node.log.Info("what is urgent goes over the cheaper path", "site", l.site, "path", d.path.name, "peer", d.addr)
			x.run(ctx)
			free()
		}
	})
}

// cheaper is a connection over the path to which the set should go; nil if it should stay.
// The caller holds mu.
func (l *Link) cheaper(now time.Time) (best *carrier) {
	s := l.set
	if s == nil || !s.ready || !s.dialed || l.closed || l.dials.busy || now.Before(l.dials.cheaper) || l.hasTail() {
		return nil
	}
	least := s.priority.path.conf.Cost
	for c := range s.others {
		if !c.ended && c.path.conf.Cost < least && now.Sub(c.began) >= cheaperFor {
			best, least = c, c.path.conf.Cost
		}
	}
	return best
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
