package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/tunnel/frame"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// Bounds of what strangers can make us do.
const (
	// validateAbove is the rate of handshakes per second above which addresses
	// must first be validated (RFC 9000, section 8.1.2): a link needs 18 when it
	// comes up, and an attacker's spoofed packets then cost us one small answer.
	validateAbove = 64
	// maxInbound bounds connections that are past QUIC's handshake and have
	// not said hello.
	maxInbound = 64
	// maxEnrols bounds enrolling strangers.
	maxEnrols = 8
	// enrolTime bounds an enrolment.
	enrolTime = 30 * time.Second
	// closeTime is how long connections may take to say goodbye.
	closeTime = 500 * time.Millisecond
)

// window counts events in the current second.
type window struct {
	mu     sync.Mutex // guards what follows
	second int64
	n      int
}

func (w *window) add(now time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := now.Unix(); s != w.second {
		w.second, w.n = s, 0
	}
	w.n++
	return w.n
}

// listenBoth accepts connections by QUIC and by TCP until ctx ends, or one fails.
func (n *Node) listenBoth(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	failed := make(chan error, 2) // one each
	for _, listen := range []func(context.Context) error{n.listen, n.listenTCP} {
		wg.Go(func() { failed <- listen(ctx) })
	}
	err := <-failed
	cancel()
	return errors.Join(err, <-failed)
}

// listen accepts connections until ctx ends.
func (n *Node) listen(ctx context.Context) error {
	if n.cfg.Listen == "" {
		close(n.listening)
		<-ctx.Done()
		return nil
	}
	pc, err := n.cfg.Sockets.Listen(n.cfg.Listen)
	if err != nil {
		return fmt.Errorf("tunnel: listening on %s: %w", n.cfg.Listen, err)
	}
	defer pc.Close()
	m := &meters{dropped: &n.dropped, byAddr: make(map[netip.AddrPort]*meter), sizes: make(map[netip.AddrPort]int)}
	sock, release := wrap(ctx, pc, m)
	tr := &quic.Transport{
		Conn:                  sock,
		ConnectionIDGenerator: newConnIDs(),
		StatelessResetKey:     (*quic.StatelessResetKey)(n.cfg.ResetKey),
		VerifySourceAddress:   func(net.Addr) bool { return n.newConns.add(time.Now()) > validateAbove },
	}
	conf := n.cfg.ServerTLS
	if n.stock == nil {
		conf = serverSeats(tr, conf)
	}
	ln, err := tr.Listen(conf, listenConfig(m, n.smallPacket()))
	if err != nil {
		release()
		return fmt.Errorf("tunnel: listening on %s: %w", n.cfg.Listen, err)
	}
	close(n.listening)
	n.log.Info("listening", "peer", pc.LocalAddr().String())
	var wg sync.WaitGroup
	aside, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { n.listenExpress(aside, pc) })
	for {
		conn, err := ln.Accept(ctx)
		if err != nil {
			break
		}
		wg.Go(func() {
			n.welcome(ctx, quicConn{conn}, func(x *meter) (func(net.Addr), func()) {
				m.set(conn.RemoteAddr(), x)
				return func(a net.Addr) { m.set(a, x) }, func() { m.remove(x) }
			})
		})
	}
	failed := ctx.Err() == nil
	cancel()
	timer := time.AfterFunc(closeTime, release)
	wg.Wait()
	timer.Stop()
	release()
	_ = tr.Close()
	if failed {
		return fmt.Errorf("tunnel: socket of %s has failed", n.cfg.Listen)
	}
	return nil
}

// welcome serves an accepted connection to its end. attach has its packets counted
// and shaped by a meter; what it returns goes into the candidate.
func (n *Node) welcome(ctx context.Context, conn conn, attach func(*meter) (moved func(net.Addr), free func())) {
	if !n.enter(&n.inbound, maxInbound) {
		n.refused.Add(1)
		_ = conn.CloseWithError(codeRefused, "too many handshakes")
		return
	}
	leave := sync.OnceFunc(func() { n.leave(&n.inbound) })
	defer leave()
	if conn.ConnectionState().TLS.NegotiatedProtocol == pki.EnrolProto {
		leave()
		n.enrol(ctx, conn)
		return
	}
	c, l, err := n.receive(ctx, conn)
	if err != nil {
		n.log.Info("connection refused", "peer", conn.RemoteAddr().String(), "err", err)
		_ = conn.CloseWithError(closingCode(err), err.Error())
		return
	}
	c.meter = l.meter(c.path, c.theirs.Role)
	c.meter.watch(conn)
	c.moved, c.free = attach(c.meter)
	defer c.free()
	x, err := l.answer(ctx, c)
	leave()
	if err != nil {
		n.log.Debug("connection not used", "site", l.site, "err", err)
		_ = conn.CloseWithError(codeRefused, err.Error())
		if x != nil {
			l.lost(x, err)
		}
		return
	}
	x.run(ctx)
}

func (n *Node) enter(count *int, most int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if *count >= most {
		return false
	}
	*count++
	return true
}

func (n *Node) leave(count *int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	*count--
}

// receive reads the hello of an accepted connection and finds its link.
func (n *Node) receive(ctx context.Context, conn conn) (*candidate, *Link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	ctl, err := conn.AcceptStream(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { ctl.CancelRead(0) })
	defer stop()
	ctl.SetPriority(0, false)
	if p, err := readPreface(ctl); err != nil || p.Use != frame.Control {
		return nil, nil, fmt.Errorf("%w: the first stream is not for control: %w", errProtocol, err)
	}
	c := &candidate{conn: conn, ctl: ctl, frames: newFrameReader(ctl), via: carrierOf(conn)}
	f, err := c.frames.next()
	if err != nil {
		return nil, nil, err
	}
	h, ok := f.(frame.Hello)
	if !ok {
		return nil, nil, fmt.Errorf("%w: %T in place of a hello", errProtocol, f)
	}
	if err := n.checkNames(conn, h, ""); err != nil {
		return nil, nil, err
	}
	l, err := n.linkTo(h.Site)
	if err != nil {
		return nil, nil, err
	}
	if !l.permits(c.via) {
		return nil, nil, errCarrier
	}
	c.theirs, c.ours = h, n.hello(l, h.Role, h.Set, h.Path)
	l.mu.Lock()
	defer l.mu.Unlock()
	c.path, err = l.pathNamed(h.Path)
	return c, l, err
}

// enrol serves a stranger who wants to become a gateway of the fleet.
func (n *Node) enrol(ctx context.Context, conn conn) {
	defer func() { _ = conn.CloseWithError(0, "") }()
	if n.cfg.Enrol == nil {
		return
	}
	if !n.enter(&n.enrols, maxEnrols) {
		n.refused.Add(1)
		return
	}
	defer n.leave(&n.enrols)
	ctx, cancel := context.WithTimeout(ctx, enrolTime)
	defer cancel()
	str, err := conn.AcceptStream(ctx)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.CloseWithError(codeRefused, "timeout") })
	defer stop()
	n.cfg.Enrol(ctx, streamConn{stream: str, conn: conn, shared: true}, conn.ConnectionState().TLS)
	_ = str.Close()
	// The stranger closes when it has read the answer.
	select {
	case <-conn.Context().Done():
	case <-ctx.Done():
	}
}
