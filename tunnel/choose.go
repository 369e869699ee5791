package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// Carrier is what carries a link.
type Carrier string

// The carriers.
const (
	// Auto is QUIC, and TCP where QUIC does not get through: the default.
	Auto Carrier = "auto"
	QUIC Carrier = "quic"
	TCP  Carrier = "tcp"
)

// ParseCarrier reads the name of a carrier; "" is Auto.
func ParseCarrier(name string) (Carrier, error) {
	switch c := Carrier(name); c {
	case "":
		return Auto, nil
	case Auto, QUIC, TCP:
		return c, nil
	}
	return "", fmt.Errorf("carrier %q: auto, quic or tcp", name)
}

// permits tells whether a link with this setting may be carried so.
func (c Carrier) permits(via Carrier) bool { return c == Auto || c == via }

func (l *Link) permits(via Carrier) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.choose.setting.permits(via)
}

const (
	// retryMin and retryMax are the pauses between tries of QUIC while TCP
	// carries a link: a try costs a few packets, and a set that changes costs a
	// round trip or two of what is under way.
	retryMin = time.Minute
	retryMax = 30 * time.Minute
	// trusted is how long QUIC has to work before a failure counts as the first.
	trusted = 5 * time.Minute
	// probeTime is for a TCP connection that only shows that the peer is there,
	// and again for QUIC after it.
	probeTime = 2 * time.Second
)

// errCarrier: one end's config does not permit this carrier.
var errCarrier = errors.New("its config does not permit this carrier")

// errUnwanted: this end's config does not permit the carrier in use any more.
var errUnwanted = errors.New("the config asks for another carrier")

// A chooser says what to dial a link with. Link.mu guards it.
type chooser struct {
	setting Carrier
	blocked error         // why TCP is used; nil: it is not, or it was asked for
	retry   time.Time     // when QUIC is tried again
	pause   time.Duration // before the retry after that
}

// first is what to dial with when there is no link.
func (c *chooser) first(now time.Time) Carrier {
	switch {
	case c.setting == TCP, c.setting == Auto && c.blocked != nil && now.Before(c.retry):
		return TCP
	}
	return QUIC
}

// fellBack notes that only TCP gets through.
func (c *chooser) fellBack(now time.Time, why error) {
	c.blocked = why
	c.pause = min(max(2*c.pause, retryMin), retryMax)
	c.retry = now.Add(c.pause)
}

// worked notes that a set of QUIC is in use, since when.
func (c *chooser) worked(now, since time.Time) {
	c.blocked = nil
	if now.Sub(since) > trusted {
		c.pause = 0
	}
}

// unanswered tells whether QUIC may be blocked: what went wrong is not the peer's
// word.
func unanswered(err error) bool {
	if _, silent := describe(err); silent {
		return true
	}
	_, socket := errors.AsType[*net.OpError](err)
	return socket || wrongCarrier(err)
}

// wrongCarrier tells whether a peer has refused a connection because of what
// carries it.
func wrongCarrier(err error) bool {
	e, closed := errors.AsType[*quic.ApplicationError](err)
	return closed && e.ErrorCode == codeCarrier || errors.Is(err, errCarrier)
}

// dialFirst makes the first connection of a set, with what gets through.
func (l *Link) dialFirst(ctx context.Context, p *path, addr string) (*carrier, func(), error) {
	l.mu.Lock()
	via, auto := l.choose.first(time.Now()), l.choose.setting == Auto
	l.mu.Unlock()
	x, free, err := l.dial(ctx, dialing{path: p, role: frame.Priority, set: newID(), addr: addr, via: via})
	switch {
	case err == nil || !auto:
		return x, free, err
	case via == TCP: // look at QUIC the next time
		l.mu.Lock()
		l.choose.retry = time.Time{}
		l.mu.Unlock()
		return nil, nil, err
	case !unanswered(err) || !l.answersTCP(ctx, p, addr):
		return nil, nil, err
	}
	return l.fallBack(ctx, p, addr, err)
}

// answersTCP tells whether anybody listens there by TCP.
func (l *Link) answersTCP(ctx context.Context, p *path, addr string) bool {
	s, ok := l.node.cfg.Sockets.(Streams)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	e := l.ends(dialing{path: p, addr: addr})
	c, err := s.DialStream(ctx, e.from, e.to)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// fallBack makes the first connection of a set by TCP. QUIC gets another chance
// before that, because the whole line may have been away until now.
func (l *Link) fallBack(ctx context.Context, p *path, addr string, why error) (*carrier, func(), error) {
	if !wrongCarrier(why) {
		again, cancel := context.WithTimeout(ctx, probeTime)
		x, free, err := l.dial(again, dialing{path: p, role: frame.Priority, set: newID(), addr: addr, via: QUIC})
		cancel()
		if err == nil || !unanswered(err) {
			return x, free, err
		}
	}
	x, free, err := l.dial(ctx, dialing{path: p, role: frame.Priority, set: newID(), addr: addr, via: TCP})
	if err != nil {
		return nil, nil, why
	}
	l.mu.Lock()
	l.choose.fellBack(time.Now(), why)
	l.mu.Unlock()
	l.node.log.Warn("QUIC does not get through; TCP carries the link", "site", l.site, "peer", addr, "err", why)
	return x, free, nil
}

// leaveCarrier ends the set in use if the setting, which has changed, does not permit
// what carries it. The caller holds mu.
func (l *Link) leaveCarrier() {
	if s := l.set; s != nil && !l.choose.setting.permits(s.via) {
		l.blame(errUnwanted, s.addr)
		l.drop(errUnwanted, codeCarrier)
	}
}

// retryQUIC tries to take a link that TCP carries back to QUIC, when it is time.
func (l *Link) retryQUIC(ctx context.Context, wg *sync.WaitGroup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, d, now := l.set, &l.dials, time.Now()
	if s == nil || !s.ready || l.closed {
		return
	}
	if s.via == QUIC {
		l.choose.worked(now, l.state.since)
		return
	}
	if !s.dialed || d.busy || d.addr == "" || l.choose.setting != Auto || now.Before(l.choose.retry) {
		return
	}
	d.busy = true
	p, addr := s.priority.path, d.addr
	wg.Go(func() {
		x, free, err := l.dial(ctx, dialing{path: p, role: frame.Priority, set: newID(), addr: addr, via: QUIC})
		l.mu.Lock()
		d.busy = false
		if err != nil {
			l.choose.fellBack(time.Now(), err)
		}
		l.mu.Unlock()
		if err == nil {
			l.node.log.Info("QUIC gets through again and carries the link", "site", l.site, "peer", addr)
			x.run(ctx)
			free()
		}
	})
}

// fallback says, for people, why TCP carries the link and how long it will. The
// caller holds mu.
func (l *Link) fallback(now time.Time) string {
	if l.set == nil || l.set.via != TCP || l.choose.blocked == nil {
		return ""
	}
	why, _ := describe(l.choose.blocked)
	return fmt.Sprintf("QUIC does not get through (%s); tried again in %s", why, max(l.choose.retry.Sub(now), 0).Round(time.Second))
}
