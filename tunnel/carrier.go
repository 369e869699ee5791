package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/tunnel/congestion"
	"github.com/longhaul-project/longhaul/tunnel/frame"
)

const (
	// dataStreams per connection: a lost packet holds up one of them, and each
	// may have 1000 gaps at the receiver before quic-go closes the connection
	// (wan-transport.md, section 1).
	dataStreams = 4
	// pingEvery and pongWithin watch each connection with full-sized packets:
	// quic-go's keep-alives are small and live on when the path's MTU shrinks. On a thin
	// line whose queue is full an answer may take more than 8 s.
	pingEvery  = 5 * time.Second
	pongWithin = 20 * time.Second
	// pingPad fills at least one packet of largePacket bytes.
	pingPad = 2 * largePacket
)

// A carrier is one connection in use.
type carrier struct {
	link   *Link
	id     uint32 // owner of cells; not unsent and not arrived
	role   frame.Role
	path   *path
	set    *set
	conn   conn
	ctl    stream
	frames frameReader
	member *congestion.Member // its place in the path's model; nil while it has NewReno
	moved  func(net.Addr)     // tells the socket that the peer's address is another now; may be nil
	began  time.Time

	// wake tells the writer that there is something to say; capacity 1: one
	// token says it all.
	wake chan struct{}
	stop chan struct{} // closed by end

	// What follows is guarded by link.mu.
	ended bool
	why   error
	code  quic.ApplicationErrorCode
	pongs []uint64 // to be sent; at most maxPongs
	small uint64   // nonce of a small ping that is to be sent; 0: none
	ping  uint64   // nonce of the last ping
	asked time.Time
	open  bool // the last ping is not answered
}

// maxPongs bounds answers that wait to be written; more pings than that are not answered.
const maxPongs = 4

// newCarrier makes a connection one of the link. The caller holds mu.
func (l *Link) newCarrier(c *candidate, role frame.Role) *carrier {
	member, err := l.sit(c.conn, c.path, role)
	if err != nil && l.unseated == nil && l.node.stock == nil {
		l.unseated = err
		l.node.log.Warn("congestion control is quic-go's NewReno", "site", l.site, "err", err)
	}
	c.path.why, c.path.ended = "", false
	return &carrier{
		member: member, path: c.path,
		link: l, id: l.node.lastCarrier.Add(1), role: role, set: l.set, conn: c.conn, ctl: c.ctl, frames: c.frames, moved: c.moved,
		began: time.Now(), wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
}

// end asks for the end of the connection. The caller holds link.mu.
func (c *carrier) end(why error, code quic.ApplicationErrorCode) {
	if !c.ended {
		c.ended, c.why, c.code = true, why, code
		close(c.stop)
	}
}

// run carries until the connection ends, for whatever reason.
func (c *carrier) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	class := Bulk
	if c.role == frame.Priority {
		class = Urgent
	}
	if c.role != frame.Bulk {
		wg.Go(func() { c.acceptRaw(ctx, &wg) })
	}
	if c.role != frame.Datagrams {
		for range dataStreams {
			wg.Go(func() { c.sendData(ctx, class, c.link.next) })
		}
		if class == Bulk {
			wg.Go(func() { c.sendData(ctx, Bulk, c.link.nextCopy) })
			wg.Go(func() { c.sendData(ctx, Urgent, c.link.nextCopy) })
		}
	}
	wg.Go(c.readControl)
	wg.Go(func() { c.writeControl(ctx) })
	wg.Go(func() { c.acceptData(ctx, &wg) })
	wg.Go(func() { c.receiveDatagrams(ctx) })

	why, code := errShutdown, codeShutdown
	select {
	case <-c.conn.Context().Done():
		why = context.Cause(c.conn.Context())
	case <-c.stop:
		c.link.mu.Lock()
		why, code = c.why, c.code
		c.link.mu.Unlock()
	case <-ctx.Done():
	}
	_ = c.conn.CloseWithError(code, why.Error())
	c.link.lost(c, why)
	poke(c.link.wake)
}

// errShutdown: Run's context has ended.
var errShutdown = errors.New("shutting down")

// fail ends the connection, and all others if the peer broke the protocol.
func (c *carrier) fail(err error) {
	if errors.Is(err, errProtocol) {
		c.link.violated(c, err)
		return
	}
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	code := codeDead
	if errors.Is(err, errNoPong) {
		code = codeNoPong
	}
	c.end(err, code)
}

// sendData carries the cells on one stream that next gives.
func (c *carrier) sendData(ctx context.Context, class Class, next func(*carrier, Class, []piece) []piece) {
	str, err := c.conn.OpenUniStreamSync(ctx)
	if err != nil {
		return // the connection has ended
	}
	if class == Urgent {
		str.SetPriority(1, true)
	}
	buf := frame.Preface{Use: frame.Data}.Append(make([]byte, 0, batchLen+frame.MaxChunk))
	var ps []piece
	for {
		ps = next(c, class, ps)
		if len(ps) == 0 {
			return
		}
		for i, p := range ps {
			buf = append(p.Append(buf), p.data...)
			ps[i].data = nil // do not keep the message alive
			if len(buf) < batchLen && i < len(ps)-1 {
				continue
			}
			if _, err := str.Write(buf); err != nil {
				c.link.release(ps)
				return // the connection has ended: requeued by lost
			}
			buf = buf[:0]
		}
	}
}

// acceptData reads the peer's data streams. Whatever arrives is put away at
// once: no channel can hold up another.
func (c *carrier) acceptData(ctx context.Context, wg *sync.WaitGroup) {
	for {
		str, err := c.conn.AcceptUniStream(ctx)
		if err != nil {
			return
		}
		wg.Go(func() {
			if err := c.readData(str); !errors.Is(err, net.ErrClosed) {
				c.fail(err)
			}
		})
	}
}

func (c *carrier) readData(str io.Reader) error {
	p, err := readPreface(str)
	if err != nil {
		return err
	}
	if p.Use != frame.Data {
		return fmt.Errorf("%w: unidirectional stream of use %d", errProtocol, p.Use)
	}
	r := bufio.NewReaderSize(str, 4<<10) // for headers; larger reads go past it
	buf := make([]byte, frame.MaxChunk)
	for {
		chunk, err := readChunk(r)
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(r, buf[:chunk.Len]); err != nil {
			return err
		}
		if err := c.link.deliver(chunk, buf[:chunk.Len]); err != nil {
			return err
		}
	}
}

// readChunk reads the header of a chunk. r holds frame.MaxChunkHead bytes and more.
func readChunk(r *bufio.Reader) (frame.Chunk, error) {
	for n := 1; ; {
		head, err := r.Peek(min(max(n, r.Buffered()), frame.MaxChunkHead))
		if err != nil {
			return frame.Chunk{}, err
		}
		chunk, used, err := frame.ParseChunk(head)
		if errors.Is(err, frame.ErrShort) && len(head) < frame.MaxChunkHead {
			n = len(head) + 1
			continue
		}
		if err != nil {
			return frame.Chunk{}, fmt.Errorf("%w: %w", errProtocol, err)
		}
		_, _ = r.Discard(used) // cannot fail after Peek
		return chunk, nil
	}
}

// deliver puts a chunk into its channel.
func (l *Link) deliver(chunk frame.Chunk, data []byte) error {
	l.mu.Lock()
	ch, err := l.find(chunk.Channel)
	l.mu.Unlock()
	if ch == nil || err != nil {
		return err
	}
	progress, err := ch.in.add(chunk, data)
	if err != nil {
		return fmt.Errorf("channel %d: %w", chunk.Channel, err)
	}
	if progress {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.channels[ch.id] == ch {
			ch.mark(needAck)
		}
	}
	return nil
}

// readControl acts on what the peer says on the control stream.
func (c *carrier) readControl() {
	for {
		f, err := c.frames.next()
		if err == nil {
			err = c.control(f)
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				c.fail(err)
			}
			return
		}
	}
}

func (c *carrier) control(f frame.Frame) error {
	switch f := f.(type) {
	case frame.Ping:
		c.link.mu.Lock()
		if len(c.pongs) < maxPongs {
			c.pongs = append(c.pongs, f.Nonce)
		}
		c.link.mu.Unlock()
		poke(c.wake)
		return nil
	case frame.Pong:
		c.link.mu.Lock()
		c.open = c.open && f.Nonce != c.ping
		c.path.hole.answered(f.Nonce-smallNonce, time.Since(c.link.born))
		c.link.mu.Unlock()
		return nil
	case frame.Unknown:
		return nil
	}
	if c.role != frame.Priority {
		return fmt.Errorf("%w: %T on a %s connection", errProtocol, f, roleName(c.role))
	}
	return c.link.handle(c, f)
}

// writeControl says what there is to say, and pings.
func (c *carrier) writeControl(ctx context.Context) {
	write := func(b []byte) error {
		if len(b) == 0 {
			return nil
		}
		_, err := c.ctl.Write(b)
		return err
	}
	if c.role == frame.Priority {
		if err := c.link.resume(c, write); err != nil {
			return
		}
	}
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	var buf []byte
	for {
		buf = c.pong(buf[:0])
		if c.role == frame.Priority {
			buf = c.link.compose(c, buf)
		}
		if err := write(buf); err != nil {
			return
		}
		if c.role == frame.Priority && c.link.waiting() {
			if len(buf) > 0 {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-c.stop:
			return
		case <-c.conn.Context().Done():
			return
		case <-c.wake:
		case <-tick.C:
			b, err := c.askPing()
			if err == nil {
				err = write(b)
			}
			if err != nil {
				c.fail(err)
				return
			}
		}
	}
}

func (c *carrier) pong(b []byte) []byte {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.small != 0 {
		b = frame.Ping{Nonce: c.small}.Append(b)
		c.small = 0
	}
	for _, n := range c.pongs {
		b = frame.Pong{Nonce: n}.Append(b)
	}
	c.pongs = c.pongs[:0]
	if c.role == frame.Bulk {
		c.link.account.ping(len(b))
	}
	return b
}

// probeNonce is of pings whose answer nobody waits for.
const probeNonce = 1 << 63

// probe makes the peer answer on this connection. The caller holds link.mu.
func (c *carrier) probe() { c.ask(probeNonce) }

// ask sends a small ping. The caller holds link.mu.
func (c *carrier) ask(nonce uint64) {
	c.small = nonce
	poke(c.wake)
}

// errNoPong: small packets may still pass.
var errNoPong = errors.New("no answer to full-sized packets; the path's MTU may have shrunk")

// askPing makes the next ping, unless the last one is not answered yet.
func (c *carrier) askPing() ([]byte, error) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	now := time.Now()
	switch {
	case !c.open:
		c.ping++
		c.asked, c.open = now, true
		if c.role == frame.Bulk {
			c.link.account.ping(frame.HeadLen + 8 + pingPad)
		}
		return frame.Ping{Nonce: c.ping, Pad: pingPad}.Append(nil), nil
	case now.Sub(c.asked) > pongWithin:
		return nil, errNoPong
	}
	return nil, nil
}
