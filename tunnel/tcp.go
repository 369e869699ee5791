package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/tunnel/mux"
)

// Streams makes TCP connections. Sockets that are Streams too serve a link where
// UDP is blocked.
type Streams interface {
	// ListenStream opens a listening socket, on the port of the packet socket.
	ListenStream(addr string) (net.Listener, error)
	// DialStream connects to addr. from is as in Sockets.Dial.
	DialStream(ctx context.Context, from, addr string) (net.Conn, error)
}

// ListenStream implements Streams.
func (udpSockets) ListenStream(addr string) (net.Listener, error) {
	return net.Listen("tcp", addr)
}

// DialStream implements Streams.
func (udpSockets) DialStream(ctx context.Context, from, addr string) (net.Conn, error) {
	var d net.Dialer
	if from != "" {
		ip, err := netip.ParseAddr(from)
		if err != nil {
			return nil, fmt.Errorf("source address: %w", err)
		}
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))
	}
	return d.DialContext(ctx, "tcp", addr)
}

// errNoTCP: Sockets are no Streams.
var errNoTCP = errors.New("this gateway makes no TCP connections")

// carrierOf is what a connection is.
func carrierOf(c conn) Carrier {
	if _, ok := c.(*tcpConn); ok {
		return TCP
	}
	return QUIC
}

// A tcpConn is a conn over TLS over TCP.
type tcpConn struct {
	*mux.Conn
	tcp   *shapedConn
	state tls.ConnectionState
}

var _ conn = (*tcpConn)(nil)

// overTCP makes a conn of a connection whose TLS handshake is done.
func overTCP(c *tls.Conn, below *shapedConn, dialed bool) *tcpConn {
	return &tcpConn{Conn: mux.New(overTLS{c, below}, dialed), tcp: below, state: c.ConnectionState()}
}

// overTLS closes without TLS's goodbye, which would wait for a dead line; mux
// has its own.
type overTLS struct {
	*tls.Conn
	below net.Conn
}

// Close implements net.Conn.
func (c overTLS) Close() error { return c.below.Close() }

// connectTCP makes a connection of TLS over TCP. free is for symmetry with
// connect: closing releases all.
func connectTCP(ctx context.Context, s Streams, e ends, m *meter, conf *tls.Config) (*tcpConn, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, quicHandshake)
	defer cancel()
	raw, err := s.DialStream(ctx, e.from, e.to)
	if err != nil {
		return nil, nil, err
	}
	below := shape(ctx, raw)
	below.meter.Store(m)
	c := tls.Client(below, conf)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = below.Close()
		return nil, nil, fmt.Errorf("tls: %w", err)
	}
	return overTCP(c, below, true), func() {}, nil
}

// byBBR tells whether the kernel controls a set of TCP by BBR.
func (s *set) byBBR() bool {
	t, ok := s.priority.conn.(*tcpConn)
	return ok && t.tcp.controller == "bbr"
}

// bulkWanted is how many bulk connections each path of a set shall have. One of
// BBR takes the line; four fill its queue and lose up to 23 % there (bench/results/
// wan-2026-11-26.txt). The caller holds mu.
func (l *Link) bulkWanted(s *set) int {
	if l.node.cfg.Conns == 0 && l.grow.want <= startConns && s.byBBR() {
		return 1
	}
	paths := max(len(l.usedPaths()), 1) // a path whose addresses have just been taken away is none
	return max(l.grow.want/paths, min(startConns, l.grow.want))
}

// ConnectionState implements conn.
func (c *tcpConn) ConnectionState() quic.ConnectionState { return quic.ConnectionState{TLS: c.state} }

// ConnectionStats implements conn, by what the kernel tells, or else by pings.
func (c *tcpConn) ConnectionStats() (s quic.ConnectionStats) {
	if kernelStats(c.tcp.Conn, &s) {
		return s
	}
	s.SmoothedRTT, s.MinRTT = c.RTT()
	s.LatestRTT = s.SmoothedRTT
	return s
}

// OpenStreamSync implements conn.
func (c *tcpConn) OpenStreamSync(ctx context.Context) (stream, error) {
	s, err := c.OpenStream(ctx, mux.BothWays)
	return tcpStream{s}, err
}

// AcceptStream implements conn.
func (c *tcpConn) AcceptStream(ctx context.Context) (stream, error) {
	s, err := c.Conn.AcceptStream(ctx, mux.BothWays)
	return tcpStream{s}, err
}

// OpenUniStreamSync implements conn.
func (c *tcpConn) OpenUniStreamSync(ctx context.Context) (sendStream, error) {
	s, err := c.OpenStream(ctx, mux.OneWay)
	return tcpStream{s}, err
}

// AcceptUniStream implements conn.
func (c *tcpConn) AcceptUniStream(ctx context.Context) (io.Reader, error) {
	return c.Conn.AcceptStream(ctx, mux.OneWay)
}

// SendDatagram implements conn.
func (c *tcpConn) SendDatagram(b []byte) error {
	if len(b) > mux.MaxDatagram {
		return &quic.DatagramTooLargeError{MaxDatagramPayloadSize: mux.MaxDatagram}
	}
	return c.Conn.SendDatagram(b)
}

// CloseWithError implements conn.
func (c *tcpConn) CloseWithError(code quic.ApplicationErrorCode, why string) error {
	c.Close(uint64(code), why)
	return nil
}

// tcpStream is a stream. TCP has one order for all, so there are no priorities;
// what is urgent has a connection of its own.
type tcpStream struct{ *mux.Stream }

// CancelRead implements stream.
func (s tcpStream) CancelRead(quic.StreamErrorCode) { s.StopReading() }

// CancelWrite implements stream.
func (s tcpStream) CancelWrite(quic.StreamErrorCode) { s.Reset() }

// SetPriority implements stream.
func (s tcpStream) SetPriority(int8, bool) {}

// Bytes on the wire that TCP adds: Ethernet 14, IP 20, TCP 20 and 12 of
// timestamps (RFC 7323) around each segment of 1448 bytes; IPv6 and
// retransmissions are not counted. Every other segment is acknowledged.
const (
	segment         = 1448
	segmentOverhead = 14 + 20 + 20 + 12
)

func segmentsLen(n int) int { return n + segmentOverhead*((n+segment-1)/segment) }

// A shapedConn waits for the link's cap before it writes, and counts.
type shapedConn struct {
	net.Conn
	meter  atomic.Pointer[meter] // nil: a handshake, not known to be of any link
	ctx    context.Context       // ends with Close
	cancel context.CancelFunc
	// controller is the kernel's congestion controller; "" if unknown.
	controller string
}

func shape(ctx context.Context, c net.Conn) *shapedConn {
	s := &shapedConn{Conn: c, controller: tuneTCP(c)}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return s
}

// Write implements net.Conn.
func (s *shapedConn) Write(b []byte) (sent int, err error) {
	m := s.meter.Load()
	if m == nil {
		return s.Conn.Write(b)
	}
	for len(b) > 0 {
		n := min(len(b), max(m.bucket.Quantum(), segment))
		if err := s.leave(m, segmentsLen(n)); err != nil {
			return sent, err
		}
		k, err := s.Conn.Write(b[:n])
		sent += k
		if err != nil {
			return sent, err
		}
		b = b[n:]
	}
	return sent, nil
}

func (s *shapedConn) leave(m *meter, wire int) error {
	if err := m.bucket.Wait(s.ctx, m.class, wire); err != nil {
		return net.ErrClosed
	}
	m.add(wire, 0)
	return nil
}

// Read implements net.Conn.
func (s *shapedConn) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if m := s.meter.Load(); m != nil && n > 0 {
		m.add(int(ackShare*float64(n)), segmentsLen(n))
	}
	return n, err
}

// Close implements net.Conn.
func (s *shapedConn) Close() error {
	s.cancel()
	return s.Conn.Close()
}
