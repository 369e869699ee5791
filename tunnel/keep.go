package tunnel

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/tunnel/frame"
	"github.com/longhaul-project/longhaul/tunnel/mux"
)

const (
	// tickEvery is how often a link looks after itself.
	tickEvery = 200 * time.Millisecond
	// backoffMin and backoffMax between dials that fail.
	backoffMin = 200 * time.Millisecond
	backoffMax = 2 * time.Second
	// readyWithin is how long a new set may take to tell where channels stand.
	readyWithin = 10 * time.Second
	// smallFor is how long connections begin with small packets after one could
	// not be made with large ones; the discovery of the path's MTU may still
	// find that larger ones pass.
	smallFor = 10 * time.Minute
	// protocolPause is how long we leave a peer alone that broke the protocol.
	protocolPause = 5 * time.Second
)

// dialState says when and what to dial next. Link.mu guards it.
type dialState struct {
	tries   int // since the last success
	after   time.Time
	backoff time.Duration
	busy    bool               // a priority connection is being dialed
	addr    string             // what the last success used
	extra   map[frame.Role]int // further connections being dialed
	small   time.Time          // until then large packets are not tried: they did not pass
}

func (d *dialState) reset() { *d = dialState{busy: d.busy, extra: d.extra} }

func (d *dialState) succeeded() { d.tries, d.backoff, d.after = 0, 0, time.Time{} }

// failed notes a failure; the pause varies so that two sites do not dial in step.
func (d *dialState) failed() {
	d.tries++
	d.backoff = min(max(2*d.backoff, backoffMin), backoffMax)
	d.notBefore(d.backoff/2 + rand.N(d.backoff/2))
}

func (d *dialState) notBefore(pause time.Duration) { d.after = time.Now().Add(pause) }

// run keeps the link up until ctx ends.
func (l *Link) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { l.runDatagrams(ctx) })
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		l.dialPriority(ctx, &wg)
		l.retryQUIC(ctx, &wg)
		l.dialOthers(ctx, &wg)
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case now := <-tick.C:
			l.tick(now)
		}
	}
}

// dialPriority begins a new set when there is none.
func (l *Link) dialPriority(ctx context.Context, wg *sync.WaitGroup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := &l.dials
	if l.set != nil || d.busy || len(l.addrs) == 0 || l.closed || time.Now().Before(d.after) {
		return
	}
	addr := l.addrs[d.tries%len(l.addrs)]
	if !l.state.up && l.state.addr == "" {
		l.state.addr = addr
	}
	d.busy = true
	wg.Go(func() {
		x, free, err := l.dialFirst(ctx, addr)
		l.dialed(err, addr)
		if err == nil {
			x.run(ctx)
			free()
		}
	})
}

// dialed notes how dialing a priority connection ended.
func (l *Link) dialed(err error, addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := &l.dials
	d.busy = false
	if err == nil {
		d.addr = addr
		return
	}
	d.failed()
	if l.set == nil && !l.closed && !errors.Is(err, errBusy) {
		l.state.blame(err, addr)
		l.node.log.Debug("dial", "site", l.site, "peer", addr, "err", err)
	}
	poke(l.wake)
}

// dialOthers adds what is missing to a set that we dialed.
func (l *Link) dialOthers(ctx context.Context, wg *sync.WaitGroup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, d := l.set, &l.dials
	if s == nil || !s.ready || !s.dialed || time.Now().Before(d.after) {
		return
	}
	if d.extra == nil {
		d.extra = make(map[frame.Role]int)
	}
	want := map[frame.Role]int{frame.Datagrams: 1, frame.Bulk: l.bulkWanted(s)}
	for role, n := range want {
		for s.count(role)+d.extra[role] < n {
			d.extra[role]++
			addr := d.addr
			wg.Go(func() { l.dialOther(ctx, role, s, addr) })
		}
	}
}

func (l *Link) dialOther(ctx context.Context, role frame.Role, s *set, addr string) {
	x, free, err := l.dial(ctx, role, s.id, addr, s.via)
	l.mu.Lock()
	l.dials.extra[role]--
	if err != nil && l.set == s {
		l.dials.failed()
		l.dials.small = time.Now().Add(smallFor)
		l.node.log.Debug("dial", "site", l.site, "peer", addr, "role", roleName(role), "err", err)
	}
	l.mu.Unlock()
	if err == nil {
		x.run(ctx)
		free()
	}
}

// errNotReady: a new set was cut off before it could be used.
var errNotReady = errors.New("timeout: the peer did not tell where channels stand")

// tick does what is to be done from time to time.
func (l *Link) tick(now time.Time) {
	l.follow()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.measure(now)
	if s := l.set; s != nil {
		if !s.ready && now.Sub(s.priority.began) > readyWithin {
			l.blame(errNotReady, s.addr)
			l.drop(errNotReady, codeDead)
			return
		}
		return
	}
	for _, ch := range l.channels {
		away := now.Sub(l.state.since)
		if age := now.Sub(ch.created); age < away {
			away = age
		}
		if away > l.node.cfg.Patience {
			ch.abort(ErrPeerGone, "the line was away for longer than the other gateway's patience")
		}
	}
}

// follow tells the listening socket which address each peer's connections have
// now: a NAT on the way may have changed it.
func (l *Link) follow() {
	type move struct {
		tell func(net.Addr)
		conn conn
	}
	var moves []move
	l.mu.Lock()
	if l.set != nil {
		for _, c := range l.set.all() {
			if c.moved != nil {
				moves = append(moves, move{c.moved, c.conn})
			}
		}
	}
	l.mu.Unlock()
	for _, m := range moves {
		m.tell(m.conn.RemoteAddr())
	}
}

// nowMinusSilence is when a peer was last heard, by the error that ended its
// connection.
func nowMinusSilence(err error) time.Time {
	var idle *quic.IdleTimeoutError
	if errors.As(err, &idle) || errors.Is(err, mux.ErrIdle) {
		return time.Now().Add(-IdleTimeout)
	}
	return time.Now()
}
