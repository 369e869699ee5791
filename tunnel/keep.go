package tunnel

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/tunnel/frame"
	"github.com/longhaul-project/longhaul/tunnel/mux"
)

const (
	// tickEvery is how often a link looks after itself.
	tickEvery = 200 * time.Millisecond
	// watchEvery is how often it looks whether its paths answer.
	watchEvery = 100 * time.Millisecond
	// backoffMin and backoffMax between dials that fail.
	backoffMin = 200 * time.Millisecond
	backoffMax = 2 * time.Second
	// readyWithin is how long a new set may take to tell where channels stand.
	readyWithin = 10 * time.Second
	// backWithin of the end of an outage the link is up again, where it can be: a pause
	// between dials, handshakes of which packets are lost, and where channels stand. An
	// outage as long as Patience is within it, or the moment of its end would decide.
	backWithin = readyWithin
	// smallFor is how long connections of a path begin with small packets after large
	// ones did not pass; the discovery of the path's MTU may still find that larger
	// ones pass. Then large ones are tried again (mtu.go).
	smallFor = 10 * time.Minute
	// protocolPause is how long we leave a peer alone that broke the protocol.
	protocolPause = 5 * time.Second
)

// dialState says when and what to dial next. Link.mu guards it.
type dialState struct {
	backoff
	busy bool   // a priority connection is being dialed
	addr string // what the last success used
	// cheaper is when a cheaper path for what is urgent may be tried again, moved when the
	// set in use was taken to one, and hold how long the next has to be up before.
	cheaper, moved time.Time
	hold           time.Duration
}

// A backoff says when to dial next, and how often that has failed.
type backoff struct {
	tries int // since the last success
	after time.Time
	pause time.Duration
}

func (b *backoff) reset() { *b = backoff{} }

// failed notes a failure; the pause varies so that two sites do not dial in step.
// What fails before the pause of the last failure is over was dialed with it, and
// is the same failure.
func (b *backoff) failed(now time.Time) {
	if now.Before(b.after) {
		return
	}
	b.tries++
	b.pause = min(max(2*b.pause, backoffMin), backoffMax)
	b.after = now.Add(b.pause/2 + rand.N(b.pause/2))
}

// run keeps the link up until ctx ends.
func (l *Link) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { l.runDatagrams(ctx) })
	wg.Go(func() { l.runExpress(ctx) })
	tick, watch := time.NewTicker(tickEvery), time.NewTicker(watchEvery)
	defer tick.Stop()
	defer watch.Stop()
	for {
		l.dialPriority(ctx, &wg)
		l.retryQUIC(ctx, &wg)
		l.goCheaper(ctx, &wg)
		l.dialOthers(ctx, &wg)
		l.tryLarge(ctx, &wg)
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case now := <-tick.C:
			l.tick(now)
		case now := <-watch.C:
			l.mu.Lock()
			l.watchPaths(now)
			l.mu.Unlock()
		}
	}
}

// dialPriority begins a new set when there is none.
func (l *Link) dialPriority(ctx context.Context, wg *sync.WaitGroup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := &l.dials
	if l.set != nil || d.busy || l.closed || time.Now().Before(d.after) {
		return
	}
	p, addr := l.nextToDial()
	if p == nil {
		return
	}
	if !l.state.up && l.state.addr == "" {
		l.state.addr = addr
	}
	d.busy = true
	wg.Go(func() {
		x, free, err := l.dialFirst(ctx, p, addr)
		l.dialed(err, p, addr)
		if err == nil {
			x.run(ctx)
			free()
		}
	})
}

// nextToDial is the path and the address to try next for a new set: the cheapest
// first, and those on which the peer was silent last. The caller holds mu.
func (l *Link) nextToDial() (*path, string) {
	type choice struct {
		p    *path
		addr string
	}
	var all []choice
	for _, p := range l.paths {
		for _, a := range p.conf.Addrs {
			all = append(all, choice{p, a})
		}
	}
	if len(all) == 0 {
		return nil, ""
	}
	slices.SortStableFunc(all, func(a, b choice) int {
		return cmp.Or(order(a.p.life.dead, b.p.life.dead), cmp.Compare(a.p.conf.Cost, b.p.conf.Cost))
	})
	next := all[l.dials.tries%len(all)]
	return next.p, next.addr
}

// order puts false before true.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// dialed notes how dialing a priority connection ended.
func (l *Link) dialed(err error, p *path, addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := &l.dials
	d.busy = false
	if err == nil {
		d.addr = addr
		return
	}
	d.failed(time.Now())
	if l.set == nil && !l.closed && !errors.Is(err, errBusy) {
		l.state.blame(err, addr)
		l.down(p, err)
		l.node.log.Debug("dial", "site", l.site, "peer", addr, "err", err)
	}
	poke(l.wake)
}

// dialOthers adds what is missing to a set that we dialed.
func (l *Link) dialOthers(ctx context.Context, wg *sync.WaitGroup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, now := l.set, time.Now()
	if s == nil || !s.ready || !s.dialed || now.Before(l.dials.after) {
		return
	}
	for _, p := range l.paths {
		addr := l.dials.addr
		if p != s.priority.path {
			if len(p.conf.Addrs) == 0 {
				continue
			}
			addr = p.conf.Addrs[p.dials.tries%len(p.conf.Addrs)]
		}
		if now.Before(p.dials.after) {
			continue
		}
		for role, n := range l.wanted(p) {
			for s.count(p, role)+p.extra[role] < n {
				p.extra[role]++
				d := dialing{path: p, role: role, set: s.id, addr: addr, via: s.via}
				wg.Go(func() { l.dialOther(ctx, d, s) })
			}
		}
	}
}

// wanted is how many connections of each role a path has. The caller holds mu.
func (l *Link) wanted(p *path) map[frame.Role]int {
	want := map[frame.Role]int{frame.Bulk: l.bulkWanted(l.set)}
	if p == l.set.priority.path {
		want[frame.Datagrams] = 1
	}
	return want
}

func (l *Link) dialOther(ctx context.Context, d dialing, s *set) {
	x, free, err := l.dial(ctx, d)
	l.mu.Lock()
	d.path.extra[d.role]--
	switch {
	case err == nil:
		d.path.dials.reset()
	case l.set == s:
		d.path.dials.failed(time.Now())
		l.down(d.path, err)
		if _, silent := describe(err); silent && d.via == QUIC {
			d.path.small = time.Now().Add(smallFor) // nothing came back, or too late
		}
		l.node.log.Debug("dial", "site", l.site, "path", d.path.name, "peer", d.addr, "role", roleName(d.role), "err", err)
	}
	if err == nil && d.instead != nil {
		d.instead.end(errLarger, codeReplaced)
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
	l.noteLosses(now.Sub(l.born))
	l.forgetLeft(now.Sub(l.born))
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
		if away > l.node.cfg.Patience+backWithin {
			ch.abort(ErrPeerGone, "the line was away for longer than the other gateway's patience")
		}
	}
}

// follow tells the listening socket, and operators, which address each peer's
// connections have now: a NAT on the way may have changed it.
func (l *Link) follow() {
	type move struct {
		tell func(net.Addr)
		conn conn
	}
	var moves []move
	l.mu.Lock()
	if l.set != nil {
		l.set.addr = l.set.priority.conn.RemoteAddr().String()
		l.state.addr = l.set.addr
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
