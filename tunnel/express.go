package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// Express is datagrams beside QUIC, which their user seals himself: quic-go
// carries 30 000 datagrams a second, and the kernel, given 64 KiB at a time, some
// hundred thousand. They use the link's own port: the two highest bits of their
// first byte are clear, as in no packet of QUIC, and the kernel sorts them into a
// socket of their own by that (express_linux.go), so that neither can hold up the
// other. The end that dialed the link opens a socket for them towards the port
// of the other, which answers to where the last datagram came from that its user
// has vouched for.
//
// They have the link's cap and its class for Layer 2, and no congestion control:
// what they carry has its own.

// ErrNoExpress says that a link cannot carry express datagrams now, and why.
var ErrNoExpress = errors.New("tunnel: no express datagrams")

// expressRetry is how long we wait after a socket could not be opened.
const expressRetry = 2 * time.Second

// express is what a link has of them.
type express struct {
	wanted atomic.Bool
	wake   chan struct{} // capacity 1: one token says it all
	lane   atomic.Pointer[lane]
	why    error // why the last socket could not be opened; guarded by Link.mu
}

// A lane is where express datagrams of a link go now. It does not change.
type lane struct {
	sock  *expressSocket
	to    netip.AddrPort
	meter *meter
	ctx   context.Context // ends waits for the shaper; of the socket
}

// UseExpress has the link keep a way for express datagrams from now on.
func (l *Link) UseExpress() {
	if !l.express.wanted.Swap(true) {
		poke(l.express.wake)
	}
}

// ExpressSize is the longest express datagram that the path is known to carry, in
// bytes.
func (l *Link) ExpressSize() int { return l.MaxDatagram() + datagramOverhead }

// ExportSecret is keying material that only the two ends of the link's connection
// know (RFC 8446, section 7.5).
func (l *Link) ExportSecret(label string) (secret [32]byte, err error) {
	l.mu.Lock()
	s := l.set
	ready := s != nil && s.ready
	l.mu.Unlock()
	if !ready {
		return secret, ErrDown
	}
	if s.via == TCP {
		return secret, fmt.Errorf("%w: the link is over TCP", ErrNoExpress)
	}
	tls := s.priority.conn.ConnectionState().TLS
	b, err := tls.ExportKeyingMaterial(label, nil, len(secret))
	if err != nil {
		return secret, fmt.Errorf("tunnel: exporting a secret: %w", err)
	}
	copy(secret[:], b)
	return secret, nil
}

// SendExpress sends datagrams of size bytes, of which the last may be shorter,
// and together at most 64 KiB. It borrows b. It waits for their turn under the
// link's cap, but not for the network.
func (l *Link) SendExpress(b []byte, size int) error {
	w := l.express.lane.Load()
	if w == nil {
		return l.whyNoExpress()
	}
	if size <= 0 || len(b) > groLen {
		return fmt.Errorf("express datagrams of %d bytes, %d in all: %w", size, len(b), ErrTooLarge)
	}
	most := max(w.meter.bucket.Quantum()/size, 1) * size // without the headers: or each full batch would leave in two writes
	for len(b) > 0 {
		n := min(most, len(b))
		wire := wireLenTo(n, segments(n, size), w.to)
		if err := w.meter.bucket.Wait(w.ctx, w.meter.class, wire); err != nil {
			return err
		}
		if err := w.sock.write(b[:n], size, w.to); err != nil {
			return err
		}
		w.meter.add(wire, 0)
		b = b[n:]
	}
	return nil
}

// ExpressReady tells whether express datagrams can be sent now; if not, the
// error says why.
func (l *Link) ExpressReady() error {
	if l.express.lane.Load() != nil {
		return nil
	}
	return l.whyNoExpress()
}

func (l *Link) whyNoExpress() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.set == nil || !l.set.ready:
		return ErrDown
	case l.set.via == TCP:
		return fmt.Errorf("%w: the link is over TCP, as UDP does not get through", ErrNoExpress)
	case l.express.why != nil:
		return l.express.why
	case !l.set.dialed:
		return fmt.Errorf("%w: none has come from %s yet", ErrNoExpress, l.site)
	}
	return fmt.Errorf("%w: not yet", ErrNoExpress)
}

// wireLenTo is wireLen for another kind of address.
func wireLenTo(n, packets int, to netip.AddrPort) int {
	if to.Addr().Unmap().Is4() {
		return n + packets*overhead4
	}
	return n + packets*overhead6
}

// runExpress keeps a socket for the connections that we dialed, until ctx ends.
func (l *Link) runExpress(ctx context.Context) {
	if l.node.cfg.OnExpress == nil {
		return
	}
	for ctx.Err() == nil {
		s, changed := l.expressSet()
		if s == nil {
			select {
			case <-ctx.Done():
			case <-l.express.wake:
			case <-changed:
			}
			continue
		}
		err := l.driveExpress(ctx, s)
		l.mu.Lock()
		was := l.express.why
		l.express.why = err
		l.mu.Unlock()
		if err == nil {
			continue
		}
		if was == nil || was.Error() != err.Error() {
			l.node.log.Warn("no express datagrams", "site", l.site, "err", err)
		}
		timer := time.NewTimer(expressRetry)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// expressSet is the set in use if we dialed it and express datagrams are wanted.
func (l *Link) expressSet() (*set, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.set
	if s == nil || !s.ready || !s.dialed || s.via == TCP || !l.express.wanted.Load() {
		s = nil
	}
	return s, l.state.changed.next()
}

// driveExpress opens a socket and reads it for as long as the set is in use.
func (l *Link) driveExpress(ctx context.Context, s *set) error {
	p := s.priority.path
	l.mu.Lock()
	from, addr := p.conf.Source, s.addr
	l.mu.Unlock()
	pc, to, err := l.node.cfg.Sockets.Dial(ctx, from, addr)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoExpress, err)
	}
	sock, err := newExpressSocket(pc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, sock.close)
	defer stop()
	w := &lane{sock: sock, to: key(to), meter: l.meter(p, frame.Datagrams), ctx: ctx}
	sock.dropped = &w.meter.count.dropped
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		sock.read(func(b []byte, size int, from netip.AddrPort) {
			if from == w.to && l.node.cfg.OnExpress(b, size) == l.site {
				w.meter.add(0, wireLenTo(len(b), segments(len(b), size), from))
			}
		})
	})
	defer cancel() // before waiting
	l.setLane(s, w)
	defer l.setLane(nil, nil)
	for {
		now, changed := l.expressSet()
		if now != s {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// setLane puts a lane into use if the set still is.
func (l *Link) setLane(s *set, w *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w == nil || l.set == s {
		l.express.lane.Store(w)
	}
}

// listenExpress opens the listening port's socket for express datagrams, and
// reads it until ctx ends.
func (n *Node) listenExpress(ctx context.Context, pc net.PacketConn) {
	if n.cfg.OnExpress == nil {
		return
	}
	sock, err := shareExpress(ctx, pc)
	if err != nil {
		n.log.Info("no express datagrams over the listening port", "err", err)
		return
	}
	sock.dropped = &n.dropped
	stop := context.AfterFunc(ctx, sock.close)
	defer stop()
	sock.read(func(b []byte, size int, from netip.AddrPort) {
		site := n.cfg.OnExpress(b, size)
		if site == "" {
			return
		}
		if l := n.Link(site); l != nil {
			l.expressFrom(ctx, sock, from, wireLenTo(len(b), segments(len(b), size), from))
		}
	})
}

// expressFrom notes that the peer has sent n bytes, as its user vouches, from an
// address: there it gets its answers.
func (l *Link) expressFrom(ctx context.Context, sock *expressSocket, from netip.AddrPort, n int) {
	w := l.express.lane.Load()
	if w == nil || w.sock != sock || w.to != from {
		l.mu.Lock()
		if l.set == nil || l.set.dialed || l.set.via == TCP {
			l.mu.Unlock()
			return
		}
		w = &lane{sock: sock, to: from, meter: l.meter(l.set.priority.path, frame.Datagrams), ctx: ctx}
		l.express.lane.Store(w)
		l.mu.Unlock()
	}
	w.meter.add(0, n)
}
