package tunnel

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/tunnel/congestion"
	"github.com/longhaul-project/longhaul/tunnel/mux"
)

// State is a link as it is now.
type State struct {
	Up    bool
	Since time.Time // when it came up or went down
	Why   string    // why it is not up; "" while it is
	// Address of the peer that is in use or was tried last, "host:port".
	Address string
	Gateway string // the peer's gateway and the version of its software,
	Version string // as of the last contact

	RTT        time.Duration // smoothed, of the priority connection
	Conns      int           // connections in use
	Controller string        // congestion controller, and why not ours
	Paths      []PathState   // the ways to the peer, of which there is often one
	Carrier    Carrier       // what carries the link, or last did
	Fallback   string        // why TCP carries it, in automatic mode; "" while it does not
	Rate       int64         // cap in bytes per second on the wire, 0 for none
	Goodput    int64         // bytes of messages that arrived at the peer, per second, over the last second

	WireSent, WireReceived   int64         // bytes on the wire, headers included
	ByClass                  [3]ClassWire  // the same by shaper.Class: bulk, L2, urgent
	Channels                 int           // open channels
	Backlog                  int64         // bytes sent and not yet consumed by the peer
	Buffered                 int64         // bytes of messages that we hold for local readers
	Flows                    []FlowTraffic // bulk by the class of its flow, the most important first
	Copied                   int64         // bytes sent again before a loss was known, see again.go and early.go
	Twice                    int64         // bytes of messages that came although we had them
	PacketsSent, PacketsLost uint64        // of the connections in use
	Drops                    Drops         // what was lost at this end

	// What the peer says of itself: what controls congestion there in place of the path's
	// model, and why; and why it, who dials, has TCP carry the link. "" where all is as it
	// should be.
	FarController, FarFallback string
}

// PathState is a way to the peer as it is now.
type PathState struct {
	Name, Source string
	Cost         int
	Address      string // of the peer, on this path; "" while it is not in use
	Dead         bool   // the peer was silent on it for too long, and has not been heard since
	Why          string // why it is not in use; "" while it is
	Urgent       bool   // what is urgent goes over it, and so do datagrams
	Conns        int
	RTT          time.Duration    // smoothed
	Model        congestion.State // what is known of it; not with NewReno
	Wire         ClassWire
}

// pathStates tells how the paths are. The caller holds mu.
func (l *Link) pathStates() (all []PathState) {
	for _, p := range l.usedPaths() {
		s := PathState{
			Name: p.name, Source: p.conf.Source, Cost: p.conf.Cost, Dead: p.life.dead,
			Wire: ClassWire{Sent: p.wire.sent.Load(), Received: p.wire.received.Load()},
		}
		if l.set != nil {
			for _, c := range l.set.all() {
				if c.path == p {
					s.Conns++
				}
			}
			s.Urgent = l.set.priority.path == p
			if c := l.set.first(p); c != nil {
				s.Address, s.RTT = c.conn.RemoteAddr().String(), c.conn.ConnectionStats().SmoothedRTT
			}
		}
		if s.Conns == 0 || s.Dead {
			s.Why = cmp.Or(p.why, "no connection yet")
		}
		all = append(all, s)
	}
	return all
}

// ClassWire is the traffic of one class in bytes on the wire.
type ClassWire struct{ Sent, Received int64 }

// linkState is guarded by Link.mu.
type linkState struct {
	up      bool
	since   time.Time
	heard   time.Time // when the peer was last known to be there
	why     string
	silent  bool // why is about silence: say how long it has lasted
	addr    string
	changed broadcast
}

// State tells how the link is.
func (l *Link) State() State {
	s := State{Carrier: QUIC, Rate: l.bucket.Rate()}
	for c := range l.wire {
		w := ClassWire{Sent: l.wire[c].sent.Load(), Received: l.wire[c].received.Load()}
		s.ByClass[c] = w
		s.WireSent += w.Sent
		s.WireReceived += w.Received
	}
	var conns []*carrier
	var priority *carrier
	l.mu.Lock()
	st := &l.state
	s.Up, s.Since, s.Address = st.up, st.since, st.addr
	s.Gateway, s.Version = l.peer.gateway, l.peer.version
	if !st.up {
		s.Why = st.explain(time.Now())
	}
	if l.set != nil {
		conns, priority = l.set.all(), l.set.priority
		s.Carrier, s.Fallback = l.set.via, l.fallback(time.Now())
		s.FarController, s.FarFallback = l.set.theirs.Controller, l.set.theirs.Carrier
	} else if l.choose.first(time.Now()) == TCP {
		s.Carrier = TCP
	}
	s.Conns, s.Paths = len(conns), l.pathStates()
	for i, p := range l.usedPaths() {
		s.Paths[i].Model = p.model.State()
	}
	s.Controller = l.controller()
	s.Goodput = l.good.rate
	s.Channels = len(l.channels)
	for _, ch := range l.channels {
		s.Backlog += ch.out.unacked
	}
	s.Drops, s.Copied, s.Flows = l.dropped(), l.copied, l.flowTraffic()
	l.mu.Unlock()

	s.Buffered, s.Twice = l.buffered.held.Load(), l.buffered.twice.Load()
	for _, c := range conns {
		lost, sent := c.lossCount()
		s.PacketsSent += sent
		s.PacketsLost += lost
	}
	if priority != nil {
		if t, ok := priority.conn.(*tcpConn); ok {
			s.Controller = "kernel " + cmp.Or(t.tcp.controller, "tcp")
		}
		s.RTT = priority.conn.ConnectionStats().SmoothedRTT
	}
	return s
}

// Watch tells how the link is, and gives a channel that is closed when it next
// comes up or goes down.
func (l *Link) Watch() (State, <-chan struct{}) {
	l.mu.Lock()
	changed := l.state.changed.next()
	l.mu.Unlock()
	return l.State(), changed
}

// WaitUp waits until the link is up.
func (l *Link) WaitUp(ctx context.Context) error {
	for {
		l.mu.Lock()
		up, closed, changed := l.state.up, l.closed, l.state.changed.next()
		l.mu.Unlock()
		switch {
		case up:
			return nil
		case closed:
			return ErrClosed
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the link to %s: %w", l.site, context.Cause(ctx))
		case <-changed:
		}
	}
}

func (s *linkState) explain(now time.Time) string {
	if !s.silent {
		return s.why
	}
	return fmt.Sprintf("no answer from %s for %s: %s", s.addr, now.Sub(s.heard).Round(time.Second), s.why)
}

// set notes that the link came up or went down. The caller holds Link.mu.
func (s *linkState) set(up bool) {
	if s.up != up {
		s.up, s.since = up, time.Now()
		s.changed.fire()
	}
}

// blame notes why there is no link. The caller holds Link.mu.
func (s *linkState) blame(err error, addr string) {
	s.why, s.silent = describe(err)
	if addr != "" {
		s.addr = addr
	}
}

// describe says why a connection failed, for people. silent: the peer did not
// answer at all.
func describe(err error) (why string, silent bool) {
	if cert := certificateError(err); cert != "" {
		return "certificate: " + cert, false
	}
	if e, ok := errors.AsType[*quic.ApplicationError](err); ok {
		if e.Remote {
			return "closed by the peer: " + e.ErrorMessage, false
		}
		return e.ErrorMessage, false
	}
	if e, ok := errors.AsType[*mux.CloseError](err); ok {
		if e.Remote {
			return "closed by the peer: " + e.Text, false
		}
		return e.Text, false
	}
	_, idle := errors.AsType[*quic.IdleTimeoutError](err)
	idle = idle || errors.Is(err, mux.ErrIdle)
	_, shake := errors.AsType[*quic.HandshakeTimeoutError](err)
	switch {
	case idle:
		return "timeout: no recent network activity", true
	case err == errNotReady:
		return err.Error(), true
	case shake, errors.Is(err, context.DeadlineExceeded):
		return "timeout: handshake did not complete in time", true
	}
	return err.Error(), false
}

// closedBy tells whether the peer has closed a connection with this code.
func closedBy(err error, code quic.ApplicationErrorCode) bool {
	if e, ok := errors.AsType[*quic.ApplicationError](err); ok {
		return e.Remote && e.ErrorCode == code
	}
	e, ok := errors.AsType[*mux.CloseError](err)
	return ok && e.Remote && e.Code == uint64(code)
}

// certificateError finds what is wrong with a certificate, on either side.
func certificateError(err error) string {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e.Err.Error()
	}
	for _, is := range []func(error) bool{
		isType[x509.UnknownAuthorityError], isType[x509.CertificateInvalidError], isType[x509.HostnameError],
	} {
		if is(err) {
			return err.Error()
		}
	}
	// CRYPTO_ERROR 0x100 + alert (RFC 9001, section 4.8); alerts 42 to 49 and
	// 116 are about certificates (RFC 8446, section 6.2).
	if e, ok := errors.AsType[*quic.TransportError](err); ok && e.ErrorCode.IsCryptoError() {
		alert := uint8(e.ErrorCode - 0x100)
		if alert >= 42 && alert <= 49 || alert == 116 {
			side := "ours"
			if e.Remote {
				side = "refused by the peer"
			}
			return fmt.Sprintf("%s: %v", side, tls.AlertError(alert))
		}
	}
	return ""
}

func isType[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}
