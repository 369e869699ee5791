package testwan

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// A Socket is a net.PacketConn on the WAN.
type Socket struct {
	wan    *WAN
	addr   netip.AddrPort
	dialed bool
	queue  chan *packet // capacity rcvQueue
	done   chan struct{}
	once   sync.Once

	mu       sync.Mutex // guards what follows
	deadline time.Time
	changed  chan struct{} // closed when deadline changes
}

var _ net.PacketConn = (*Socket)(nil)

func newSocket(w *WAN, a netip.AddrPort, dialed bool) *Socket {
	return &Socket{
		wan: w, addr: a, dialed: dialed, queue: make(chan *packet, rcvQueue),
		done: make(chan struct{}), changed: make(chan struct{}),
	}
}

// put gives a packet to the reader, or drops it when too many wait.
func (s *Socket) put(p *packet) {
	select {
	case s.queue <- p:
	default:
	}
}

func (s *Socket) shut() { s.once.Do(func() { close(s.done) }) }

// ReadFrom implements net.PacketConn.
func (s *Socket) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		s.mu.Lock()
		deadline, changed := s.deadline, s.changed
		s.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			left := time.Until(deadline)
			if left <= 0 {
				return 0, nil, os.ErrDeadlineExceeded
			}
			t := time.NewTimer(left)
			defer t.Stop()
			expired = t.C
		}
		select {
		case p := <-s.queue:
			return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
		case <-s.done:
			return 0, nil, net.ErrClosed
		case <-expired:
			return 0, nil, os.ErrDeadlineExceeded
		case <-changed:
		}
	}
}

// WriteTo implements net.PacketConn.
func (s *Socket) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-s.done:
		return 0, net.ErrClosed
	default:
	}
	a := to.(*net.UDPAddr).AddrPort()
	s.wan.send(&packet{from: s.addr, to: netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), data: bytes.Clone(b)})
	return len(b), nil
}

// Close implements net.PacketConn.
func (s *Socket) Close() error {
	s.wan.mu.Lock()
	defer s.wan.mu.Unlock()
	if s.wan.sockets[s.addr] == s {
		delete(s.wan.sockets, s.addr)
	}
	s.shut()
	return nil
}

// LocalAddr implements net.PacketConn.
func (s *Socket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.addr) }

// SetReadDeadline implements net.PacketConn.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// SetDeadline implements net.PacketConn. Writes never block.
func (s *Socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn.
func (s *Socket) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer spares the logs a warning of quic-go.
func (s *Socket) SetReadBuffer(int) error { return nil }

// SetWriteBuffer spares the logs a warning of quic-go.
func (s *Socket) SetWriteBuffer(int) error { return nil }
