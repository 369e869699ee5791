package mux

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// ErrReset: one end has ended the stream in the middle.
var ErrReset = errors.New("mux: stream reset")

// A Stream carries bytes in order. Read is for one goroutine, and so is Write; all
// else is safe for concurrent use.
type Stream struct {
	conn *Conn
	id   uint32
	way  Way

	// turn hands the connection's reader to who reads a stream of one way; it
	// comes back when the frame has been read.
	turn chan turn
	left turn // of the frame in hand; owned by who reads

	mu       sync.Mutex // guards what follows
	buf      []byte     // what has come on a stream both ways; at most StreamWindow
	taken    int        // bytes read and not yet given back as credit
	credit   int        // bytes that may be sent
	fin      bool       // the peer has written all
	finSent  bool
	reset    bool
	stopped  bool // nobody reads here any more
	changed  chan struct{}
	deadline [2]time.Time // of reads and of writes
}

// A turn is the right to read n bytes of a connection.
type turn struct {
	n    int
	r    *bufio.Reader
	done chan struct{} // closed when they have been read
}

// indices of Stream.deadline
const (
	reading = iota
	writing
)

func newStream(c *Conn, id uint32, way Way) *Stream {
	return &Stream{conn: c, id: id, way: way, turn: make(chan turn), credit: StreamWindow, changed: make(chan struct{})}
}

// OpenStream opens a stream.
func (c *Conn) OpenStream(ctx context.Context, way Way) (s *Stream, err error) {
	err = c.send(ctx, func(b []byte) []byte { // numbers must go out in order
		c.mu.Lock()
		defer c.mu.Unlock()
		c.last += 2
		if c.last == 2 && c.dialed {
			c.last = 1
		}
		s = newStream(c, c.last, way)
		c.streams[s.id] = s
		return append(Head{Kind: Open, Len: 1, Stream: s.id}.Append(b), byte(way))
	})
	return s, err
}

// AcceptStream waits for a stream that the peer has opened.
func (c *Conn) AcceptStream(ctx context.Context, way Way) (*Stream, error) {
	from := c.bidi
	if way == OneWay {
		from = c.uni
	}
	select {
	case s := <-from:
		return s, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.ctx.Done():
		return nil, c.closed()
	}
}

// opened: the peer has opened a stream.
func (c *Conn) opened(id uint32, body []byte) error {
	way, err := parseWay(body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ours(id) || id <= c.lastIn:
		return fmt.Errorf("%w: stream %d is not the peer's to open", errFormat, id)
	case c.theirs >= MaxStreams:
		return errStreams
	}
	s := newStream(c, id, way)
	to := c.bidi
	if way == OneWay {
		to = c.uni
	}
	select {
	case to <- s:
	default:
		return errStreams
	}
	c.lastIn = id
	c.streams[id] = s
	c.theirs++
	return nil
}

// forget ends the life of a stream in its connection.
func (c *Conn) forget(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] == s {
		delete(c.streams, s.id)
		if !c.ours(s.id) {
			c.theirs--
		}
	}
}

// fire wakes all who wait. The caller holds mu.
func (s *Stream) fire() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// over forgets the stream when nothing more is to come or to go. The caller
// holds mu, and not the connection's.
func (s *Stream) over() {
	one := s.way == OneWay
	ours := s.conn.ours(s.id)
	in := s.fin || one && ours
	out := s.finSent || one && !ours
	if s.reset || in && out {
		s.conn.forget(s)
	}
}

// frame acts on a Fin, Reset or Credit.
func (s *Stream) frame(k Kind, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch k {
	case Fin:
		s.fin = true
	case Reset:
		s.reset = true
	case Credit:
		n := int(binary.BigEndian.Uint32(body))
		if n > StreamWindow || s.credit+n > StreamWindow {
			return fmt.Errorf("%w: more credit than was used", errFormat)
		}
		s.credit += n
	}
	s.over()
	s.fire()
	return nil
}

// data takes n bytes off the connection.
func (s *Stream) data(n int, r *bufio.Reader) error {
	if s.way == OneWay {
		return s.lend(n, r)
	}
	s.mu.Lock()
	most, fin := StreamWindow-len(s.buf)-s.taken, s.fin
	s.mu.Unlock() // only this goroutine adds to buf
	if n > most || fin {
		return fmt.Errorf("%w: stream %d has used more than its credit, or is at its end", errFormat, s.id)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		s.taken += n
		return nil
	}
	s.buf = append(s.buf, b...)
	s.fire()
	return nil
}

// lend has the stream's reader read from the connection itself.
func (s *Stream) lend(n int, r *bufio.Reader) error {
	t := turn{n, r, make(chan struct{})}
	select {
	case s.turn <- t:
	case <-s.conn.ctx.Done():
		return context.Cause(s.conn.ctx)
	}
	select {
	case <-t.done:
		return nil
	case <-s.conn.ctx.Done():
		return context.Cause(s.conn.ctx)
	}
}

// Read implements io.Reader.
func (s *Stream) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if s.way == OneWay {
		return s.readLent(b)
	}
	for {
		s.mu.Lock()
		n, err := s.take(b)
		back := 0
		if s.taken >= StreamWindow/2 && !s.fin && !s.reset {
			back, s.taken = s.taken, 0
		}
		changed, deadline := s.changed, s.deadline[reading]
		s.mu.Unlock()
		if back > 0 {
			_ = s.send(Credit, binary.BigEndian.AppendUint32(nil, uint32(back))) // the connection's end shows at the next Read
		}
		if n > 0 || err != nil {
			return n, err
		}
		if err := s.wait(changed, deadline); err != nil {
			return 0, err
		}
	}
}

// take moves what has come into b. The caller holds mu.
func (s *Stream) take(b []byte) (int, error) {
	switch {
	case s.stopped:
		return 0, net.ErrClosed
	case len(s.buf) > 0:
		n := copy(b, s.buf)
		if s.buf = s.buf[n:]; len(s.buf) == 0 {
			s.buf = nil
		}
		s.taken += n
		return n, nil
	case s.reset:
		return 0, ErrReset
	case s.fin:
		return 0, io.EOF
	}
	return 0, nil
}

// readLent reads from the connection when it is this stream's turn.
func (s *Stream) readLent(b []byte) (int, error) {
	for s.left.n == 0 {
		s.mu.Lock()
		fin, reset, changed, deadline := s.fin, s.reset, s.changed, s.deadline[reading]
		s.mu.Unlock()
		switch {
		case reset:
			return 0, ErrReset
		case fin:
			return 0, io.EOF
		}
		var err error
		if s.left, err = s.await(changed, deadline); err != nil {
			return 0, err
		}
	}
	n, err := s.left.r.Read(b[:min(len(b), s.left.n)])
	if s.left.n -= n; s.left.n == 0 {
		close(s.left.done)
	}
	if err != nil {
		s.conn.end(fmt.Errorf("reading: %w", err))
		return n, s.conn.closed()
	}
	return n, nil
}

// await waits for a turn, or for a change, which is an empty one.
func (s *Stream) await(changed <-chan struct{}, deadline time.Time) (turn, error) {
	expired, stop := timer(deadline)
	defer stop()
	select {
	case t := <-s.turn:
		return t, nil
	case <-changed:
		return turn{}, nil
	case <-expired:
		return turn{}, os.ErrDeadlineExceeded
	case <-s.conn.ctx.Done():
		return turn{}, s.conn.closed()
	}
}

// wait waits for a change.
func (s *Stream) wait(changed <-chan struct{}, deadline time.Time) error {
	expired, stop := timer(deadline)
	defer stop()
	select {
	case <-changed:
		return nil
	case <-expired:
		return os.ErrDeadlineExceeded
	case <-s.conn.ctx.Done():
		return s.conn.closed()
	}
}

// timer fires at the deadline; never if there is none.
func timer(deadline time.Time) (<-chan time.Time, func() bool) {
	if deadline.IsZero() {
		return nil, func() bool { return true }
	}
	t := time.NewTimer(time.Until(deadline))
	return t.C, t.Stop
}

// Write implements io.Writer. It waits for credit, and for the connection.
func (s *Stream) Write(b []byte) (sent int, err error) {
	for sent < len(b) {
		n, err := s.claim(min(len(b)-sent, MaxBody))
		if err != nil {
			return sent, err
		}
		if err := s.send(Data, b[sent:sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// claim waits until some of n bytes may be sent, and tells how many.
func (s *Stream) claim(n int) (int, error) {
	for {
		s.mu.Lock()
		changed, deadline := s.changed, s.deadline[writing]
		switch {
		case s.reset:
			s.mu.Unlock()
			return 0, ErrReset
		case s.finSent:
			s.mu.Unlock()
			return 0, net.ErrClosed
		case s.way == OneWay:
			s.mu.Unlock()
			return n, nil
		case s.credit > 0:
			n = min(n, s.credit)
			s.credit -= n
			s.mu.Unlock()
			return n, nil
		}
		s.mu.Unlock()
		if err := s.wait(changed, deadline); err != nil {
			return 0, err
		}
	}
}

// send writes a frame of the stream.
func (s *Stream) send(k Kind, body []byte) error {
	return s.conn.send(s.conn.ctx, func(b []byte) []byte {
		return append(Head{Kind: k, Len: len(body), Stream: s.id}.Append(b), body...)
	})
}

// Close says that no more is written. What was written still arrives; reading
// goes on.
func (s *Stream) Close() error {
	s.mu.Lock()
	if s.finSent || s.reset {
		s.mu.Unlock()
		return nil
	}
	s.finSent = true
	s.mu.Unlock()
	err := s.send(Fin, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over()
	s.fire()
	return err
}

// Reset ends the stream at both ends; what is on its way is void.
func (s *Stream) Reset() {
	s.mu.Lock()
	if s.reset || s.fin && s.finSent {
		s.mu.Unlock()
		return
	}
	s.reset = true
	s.buf = nil
	s.over()
	s.fire()
	s.mu.Unlock()
	_ = s.send(Reset, nil) // the connection has ended, and the stream with it
}

// StopReading gives up what comes from now on, and is for streams both ways. A
// peer that goes on writing runs out of credit.
func (s *Stream) StopReading() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.taken += len(s.buf)
	s.buf = nil
	s.fire()
}

// SetReadDeadline is as net.Conn's.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.setDeadline(reading, t) }

// SetWriteDeadline is as net.Conn's, for waiting for credit.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.setDeadline(writing, t) }

// SetDeadline sets both.
func (s *Stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func (s *Stream) setDeadline(which int, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline[which] = t
	s.fire()
	return nil
}
