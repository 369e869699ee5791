package mux

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// StreamWindow is the credit of a stream both ways in bytes: 5 Mbit/s at a
	// round trip of 100 ms, for membership and the like.
	StreamWindow = 64 << 10
	// MaxStreams bounds the streams that a peer has open: those of a QUIC
	// connection of the tunnel.
	MaxStreams = 256
	// maxDatagrams bounds datagrams that wait for their reader.
	maxDatagrams = 128
	// maxWaiting bounds streams of one way or the other that nobody has accepted.
	maxWaiting = 64
	pingEvery  = 3 * time.Second
	// IdleTimeout without a frame from the peer ends a connection: four lost
	// pings, as for QUIC.
	IdleTimeout = 12 * time.Second
	// closeTime is how long a Close waits for the peer to have read it.
	closeTime = 500 * time.Millisecond
)

var (
	// ErrIdle: the peer has not been heard for IdleTimeout.
	ErrIdle = errors.New("mux: timeout: no recent network activity")
	// errTooLarge: a datagram is longer than MaxDatagram.
	errTooLarge = errors.New("mux: datagram too large")
	errStreams  = errors.New("mux: too many streams")
)

// A Conn is one end of a connection. All methods are safe for concurrent use.
type Conn struct {
	nc     net.Conn
	dialed bool
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   sync.WaitGroup // the two goroutines

	// write is the right to write to nc; a channel and not a mutex, because it
	// is held while the line is slow.
	write chan struct{} // capacity 1: there is one right
	buf   []byte        // owned by who has it

	uni, bidi chan *Stream // accepted; capacity maxWaiting, beyond which the peer is at fault
	datagrams chan []byte  // capacity maxDatagrams
	dropped   atomic.Int64 // of datagrams
	pongs     chan uint64  // to be answered; capacity 4: more pings are not answered

	mu      sync.Mutex // guards what follows
	streams map[uint32]*Stream
	theirs  int         // of them opened by the peer
	last    uint32      // the last that we opened
	lastIn  uint32      // the last that the peer opened
	said    *CloseError // why we have closed; nil while we have not
	heard   time.Time
	nonce   uint64
	pinged  time.Time
	rtt     time.Duration // smoothed; 0 before the first
	minRTT  time.Duration
}

// New makes a Conn of nc, which it owns. dialed says which end this is; the
// ends must differ.
func New(nc net.Conn, dialed bool) *Conn {
	c := &Conn{
		nc: nc, dialed: dialed, write: make(chan struct{}, 1),
		uni: make(chan *Stream, maxWaiting), bidi: make(chan *Stream, maxWaiting),
		datagrams: make(chan []byte, maxDatagrams), pongs: make(chan uint64, 4),
		streams: make(map[uint32]*Stream), heard: time.Now(),
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.done.Go(c.read)
	c.done.Go(c.watch)
	time.AfterFunc(IdleTimeout, c.checkIdle)
	return c
}

// Context ends with the connection; its cause is why: a *CloseError, ErrIdle, or
// what reading or writing answered.
func (c *Conn) Context() context.Context { return c.ctx }

// LocalAddr is that of the connection below.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr is that of the connection below.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// RTT is the smoothed and the shortest round trip of a ping; 0 before the first.
func (c *Conn) RTT() (smoothed, least time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rtt, c.minRTT
}

// Close tells the peer why, waits a moment for it to have heard, and ends the
// connection with all its streams. When it returns nothing of c runs any more.
func (c *Conn) Close(code uint64, text string) {
	e := &CloseError{Code: code, Text: text}
	c.mu.Lock()
	c.said = cmp.Or(c.said, e)
	c.mu.Unlock()
	if c.ctx.Err() == nil {
		timer := time.AfterFunc(closeTime, func() { c.end(e) })
		if c.send(context.Background(), e.append) == nil {
			<-c.ctx.Done() // the peer ends it, or the timer
		}
		timer.Stop()
	}
	c.end(e)
	c.done.Wait()
}

// end ends all; only the first cause counts.
func (c *Conn) end(why error) {
	c.mu.Lock()
	if c.said != nil { // the peer has only done what we asked for
		why = c.said
	}
	c.mu.Unlock()
	c.cancel(why)
	_ = c.nc.Close() // wakes who reads or writes; of no interest beyond that
}

// send writes what add appends, as one piece.
func (c *Conn) send(ctx context.Context, add func([]byte) []byte) error {
	select {
	case c.write <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.ctx.Done():
		return c.closed()
	}
	defer func() { <-c.write }()
	c.buf = add(c.buf[:0])
	if _, err := c.nc.Write(c.buf); err != nil {
		c.end(fmt.Errorf("writing: %w", err))
		return c.closed()
	}
	return nil
}

// closedError is an error of a stream whose connection is over.
type closedError struct{ why error }

func (e closedError) Error() string   { return e.why.Error() }
func (e closedError) Unwrap() []error { return []error{e.why, net.ErrClosed} }

func (c *Conn) closed() error { return closedError{context.Cause(c.ctx)} }

// watch pings, and answers pings.
func (c *Conn) watch() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	number := func(k Kind, n uint64) error {
		return c.send(c.ctx, func(b []byte) []byte {
			return binary.BigEndian.AppendUint64(Head{Kind: k, Len: 8}.Append(b), n)
		})
	}
	err := number(Ping, c.ping())
	for err == nil {
		select {
		case <-c.ctx.Done():
			return
		case n := <-c.pongs:
			err = number(Pong, n)
		case <-tick.C:
			err = number(Ping, c.ping())
		}
	}
}

// ping is the nonce of the next ping.
func (c *Conn) ping() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nonce++
	c.pinged = time.Now()
	return c.nonce
}

// checkIdle ends a silent connection, or looks again later. It is no part of
// watch, which a write may hold up.
func (c *Conn) checkIdle() {
	c.mu.Lock()
	left := IdleTimeout - time.Since(c.heard)
	c.mu.Unlock()
	if left <= 0 {
		c.end(ErrIdle)
	} else if c.ctx.Err() == nil {
		time.AfterFunc(left, c.checkIdle)
	}
}

// read acts on all that comes, until the connection ends.
func (c *Conn) read() {
	r := bufio.NewReaderSize(c.nc, 16<<10)
	err := c.readFrames(r)
	var closed *CloseError
	if errors.As(err, &closed) {
		c.end(err)
		return
	}
	c.end(fmt.Errorf("reading: %w", err))
}

func (c *Conn) readFrames(r *bufio.Reader) error {
	for {
		head, err := r.Peek(HeadLen)
		if err != nil {
			return err
		}
		h, n, err := ParseHead(head)
		if err != nil {
			return err
		}
		_, _ = r.Discard(n) // cannot fail after Peek
		c.mu.Lock()
		c.heard = time.Now()
		c.mu.Unlock()
		if h.Kind == Data {
			err = c.data(h, r)
		} else {
			err = c.frame(h, r)
		}
		if err != nil {
			return err
		}
	}
}

// frame acts on a frame that is short.
func (c *Conn) frame(h Head, r io.Reader) error {
	body := make([]byte, h.Len)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	switch h.Kind {
	case Open:
		return c.opened(h.Stream, body)
	case Datagram:
		c.putDatagram(body)
	case Close:
		return &CloseError{Code: binary.BigEndian.Uint64(body), Text: string(body[8:]), Remote: true}
	case Ping:
		select {
		case c.pongs <- binary.BigEndian.Uint64(body):
		default:
		}
	case Pong:
		c.ponged(binary.BigEndian.Uint64(body))
	default:
		s, err := c.find(h.Stream)
		if s == nil || err != nil {
			return err
		}
		return s.frame(h.Kind, body)
	}
	return nil
}

// find is the stream with a number; nil: it is over.
func (c *Conn) find(id uint32) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil {
		return s, nil
	}
	last := c.lastIn
	if c.ours(id) {
		last = c.last
	}
	if id > last {
		return nil, fmt.Errorf("%w: stream %d was never opened", errFormat, id)
	}
	return nil, nil
}

// ours tells whether a stream's number is one that we give out.
func (c *Conn) ours(id uint32) bool { return (id%2 == 1) == c.dialed }

// data gives the bytes of a stream to it, or to nobody.
func (c *Conn) data(h Head, r *bufio.Reader) error {
	s, err := c.find(h.Stream)
	if err != nil {
		return err
	}
	if s == nil || s.way == OneWay && c.ours(s.id) {
		_, err := r.Discard(h.Len)
		return err
	}
	return s.data(h.Len, r)
}

func (c *Conn) ponged(nonce uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if nonce != c.nonce || c.pinged.IsZero() {
		return
	}
	d := time.Since(c.pinged)
	c.pinged = time.Time{}
	if c.rtt == 0 {
		c.rtt, c.minRTT = d, d
	}
	c.rtt += (d - c.rtt) / 8 // RFC 6298, section 2
	c.minRTT = min(c.minRTT, d)
}

// putDatagram keeps b, and forgets the oldest when too many wait.
func (c *Conn) putDatagram(b []byte) {
	for {
		select {
		case c.datagrams <- b:
			return
		default:
		}
		select {
		case <-c.datagrams:
			c.dropped.Add(1)
		default:
		}
	}
}

// Dropped is how many datagrams came and were forgotten, because their reader did
// not take them in time.
func (c *Conn) Dropped() int64 { return c.dropped.Load() }

// SendDatagram sends b, which it borrows, in its turn with all else.
func (c *Conn) SendDatagram(b []byte) error {
	if len(b) == 0 || len(b) > MaxDatagram {
		return errTooLarge
	}
	return c.send(c.ctx, func(buf []byte) []byte {
		return append(Head{Kind: Datagram, Len: len(b)}.Append(buf), b...)
	})
}

// ReceiveDatagram waits for one, which is the caller's.
func (c *Conn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	select {
	case b := <-c.datagrams:
		return b, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.ctx.Done():
		return nil, c.closed()
	}
}
