package testwan

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// streamQueue is what one direction of a stream holds in bytes before its
	// writer waits: the kernel's buffers and what is on the line.
	streamQueue = 1 << 20
	// resend is when what was lost by a cut is sent again.
	resend = 200 * time.Millisecond
	// backlog bounds connections that nobody has accepted.
	backlog = 64
)

// A StreamSite makes streams as well as sockets; it is a tunnel.Streams.
type StreamSite struct{ Site }

// StreamSite gives the site with an IP address.
func (w *WAN) StreamSite(ip string) StreamSite { return StreamSite{w.Site(ip)} }

// BlockPackets loses all packets between sites, or ends that. Streams pass.
func (w *WAN) BlockPackets(block bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noPackets = block
}

// BlockStreams stops all streams between sites, or ends that. Packets pass.
func (w *WAN) BlockStreams(block bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noStreams = block
}

// listener is a net.Listener on the WAN.
type listener struct {
	wan  *WAN
	addr netip.AddrPort
	come chan net.Conn // capacity backlog
	done chan struct{}
	once sync.Once
}

// ListenStream opens a listening socket on a port, ":7447".
func (s StreamSite) ListenStream(addr string) (net.Listener, error) {
	a, err := s.at(addr)
	if err != nil {
		return nil, err
	}
	s.wan.mu.Lock()
	defer s.wan.mu.Unlock()
	if s.wan.listeners[a] != nil {
		return nil, errInUse
	}
	l := &listener{wan: s.wan, addr: a, come: make(chan net.Conn, backlog), done: make(chan struct{})}
	s.wan.listeners[a] = l
	return l, nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.come:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.wan.mu.Lock()
	defer l.wan.mu.Unlock()
	if l.wan.listeners[l.addr] == l {
		delete(l.wan.listeners, l.addr)
	}
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// DialStream connects to addr. It takes a round trip, and while the line is cut
// as long as ctx.
func (s StreamSite) DialStream(ctx context.Context, _, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	w := s.wan
	for {
		w.mu.Lock()
		trip, stopped := 2*w.line.Delay, w.cut || w.noStreams
		w.next++
		from := netip.AddrPortFrom(s.IP, w.next)
		w.mu.Unlock()
		pause := trip
		if stopped {
			pause = time.Second // until a SYN is sent again (RFC 6298)
		}
		select {
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
		case <-time.After(pause):
		}
		if stopped {
			continue
		}
		w.mu.Lock()
		l := w.listeners[to]
		w.mu.Unlock()
		if l == nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
		}
		near, far := newStreams(w, from, to)
		select {
		case l.come <- far:
			return near, nil
		default:
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
		}
	}
}

// halt tells what streams suffer now.
func (w *WAN) halt() (line Line, stopped bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.line, w.cut || w.noStreams
}

// half is one direction of a stream.
type half struct {
	wan *WAN

	mu      sync.Mutex // guards what follows
	parts   []part
	bytes   int
	free    time.Time // when the line has sent all that waits
	fin     bool      // the writer has closed; parts still arrive
	dead    bool      // the reader has closed
	changed chan struct{}
}

// part is bytes that arrive together.
type part struct {
	data []byte
	at   time.Time
}

// fire wakes all who wait. The caller holds mu.
func (h *half) fire() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// streamEnd is a net.Conn on the WAN: reliable and in order.
type streamEnd struct {
	in, out     *half
	local, peer netip.AddrPort

	mu       sync.Mutex // guards what follows
	deadline [2]time.Time
	changed  chan struct{} // closed when a deadline changes
}

func newStreams(w *WAN, from, to netip.AddrPort) (near, far *streamEnd) {
	there := &half{wan: w, changed: make(chan struct{})}
	back := &half{wan: w, changed: make(chan struct{})}
	near = &streamEnd{in: back, out: there, local: from, peer: to, changed: make(chan struct{})}
	far = &streamEnd{in: there, out: back, local: to, peer: from, changed: make(chan struct{})}
	return near, far
}

// Read implements net.Conn.
func (e *streamEnd) Read(b []byte) (int, error) {
	h := e.in
	for {
		_, stopped := h.wan.halt()
		h.mu.Lock()
		pause, changed := time.Hour, h.changed
		switch {
		case h.dead:
			h.mu.Unlock()
			return 0, net.ErrClosed
		case len(h.parts) > 0 && stopped:
			pause = resend
		case len(h.parts) > 0:
			if pause = time.Until(h.parts[0].at); pause <= 0 {
				n := h.take(b)
				h.mu.Unlock()
				return n, nil
			}
		case h.fin && !stopped:
			h.mu.Unlock()
			return 0, io.EOF
		case h.fin:
			pause = resend
		}
		h.mu.Unlock()
		if err := e.wait(pause, changed, 0); err != nil {
			return 0, err
		}
	}
}

// take moves what has arrived into b. The caller holds mu.
func (h *half) take(b []byte) int {
	p := &h.parts[0]
	n := copy(b, p.data)
	if p.data = p.data[n:]; len(p.data) == 0 {
		h.parts = h.parts[1:]
	}
	h.bytes -= n
	h.fire()
	return n
}

// Write implements net.Conn.
func (e *streamEnd) Write(b []byte) (sent int, err error) {
	h := e.out
	for len(b) > 0 {
		line, _ := h.wan.halt()
		h.mu.Lock()
		changed := h.changed
		switch {
		case h.fin:
			h.mu.Unlock()
			return sent, net.ErrClosed
		case h.dead:
			h.mu.Unlock()
			return sent, &net.OpError{Op: "write", Net: "tcp", Err: syscall.ECONNRESET}
		case h.bytes < streamQueue:
			n := min(len(b), 16<<10)
			h.put(append([]byte(nil), b[:n]...), line)
			sent, b = sent+n, b[n:]
			h.mu.Unlock()
			continue
		}
		h.mu.Unlock()
		if err := e.wait(time.Hour, changed, 1); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// put sends a part on its way. The caller holds mu.
func (h *half) put(data []byte, line Line) {
	now := time.Now()
	if h.free.Before(now) {
		h.free = now
	}
	if line.Rate > 0 {
		h.free = h.free.Add(time.Duration(float64(len(data)) / float64(line.Rate) * 1e9))
	}
	h.parts = append(h.parts, part{data, h.free.Add(line.Delay)})
	h.bytes += len(data)
	h.fire()
}

// wait waits for a change, or for the deadline which.
func (e *streamEnd) wait(pause time.Duration, changed <-chan struct{}, which int) error {
	e.mu.Lock()
	deadline, moved := e.deadline[which], e.changed
	e.mu.Unlock()
	if !deadline.IsZero() {
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		pause = min(pause, left)
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-changed:
	case <-moved:
	}
	return nil
}

// Close implements net.Conn.
func (e *streamEnd) Close() error {
	for h, f := range map[*half]func(*half){e.out: func(h *half) { h.fin = true }, e.in: func(h *half) { h.dead = true }} {
		h.mu.Lock()
		f(h)
		h.fire()
		h.mu.Unlock()
	}
	return nil
}

// LocalAddr implements net.Conn.
func (e *streamEnd) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(e.local) }

// RemoteAddr implements net.Conn.
func (e *streamEnd) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(e.peer) }

// SetDeadline implements net.Conn.
func (e *streamEnd) SetDeadline(t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deadline = [2]time.Time{t, t}
	e.moved()
	return nil
}

// SetReadDeadline implements net.Conn.
func (e *streamEnd) SetReadDeadline(t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deadline[0] = t
	e.moved()
	return nil
}

// SetWriteDeadline implements net.Conn.
func (e *streamEnd) SetWriteDeadline(t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deadline[1] = t
	e.moved()
	return nil
}

func (e *streamEnd) moved() {
	close(e.changed)
	e.changed = make(chan struct{})
}
