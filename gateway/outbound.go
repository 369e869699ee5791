package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/internal/ordered"
	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/tunnel"
)

const (
	// legBuffer is how much of a leg is read at once, in bytes: two items of
	// the largest size, so that one always fits behind a rest of another.
	legBuffer = 2 * page.MaxItem

	// silence is how long the source may pause before what we hold of its
	// bytes leaves, whole item or not. A source waits for answers to bytes
	// that a parser may hold (hypervisor-wire.md, rule 2).
	silence = 5 * time.Millisecond

	// homeTime bounds the wait for the peer to keep what it once sent to us: far
	// above a round trip over any WAN, with a queue before it.
	homeTime = 10 * time.Second
)

// An outbound carries one connection of the source hypervisor to the peer:
// steps 1 to 6 of the path.
type outbound struct {
	s     *session
	state *legState
	conn  net.Conn  // to the source; owned by the leg's run
	from  io.Reader // reads conn, unpacked if the stream can be
	head  []byte    // bytes that were read to find out what conn is, if from does not give them
	scan  page.Scanner
	ch    *tunnel.Channel
	enc   *dedup.Encoder

	hurry bool          // an item asked to leave at once
	heard chan struct{} // one place: a batch was acknowledged
	asked bool          // the peer was waited for, once
	sent  sentQueue
	taken atomic.Uint64 // the last message of which acked has heard
	clock cpuClock      // of steps 2 and 3; runs while parse does not wait
}

// parcel is what travels from step 3 to step 6: a batch, or a seal.
type parcel struct {
	batch *dedup.Batch
	took  time.Duration // CPU time of steps 2 and 3
	seal  []place       // how far all channels have come; of a seal
	msg   []byte        // after step 4
}

// run carries the leg until both directions have ended. It takes conn.
func (o *outbound) run(ctx context.Context) error {
	g := newCrew(ctx, o.ch)
	defer g.end()
	ctx = g.ctx
	stop := context.AfterFunc(ctx, func() { cutOff(o.conn) }) // a blocked Read does not know of ctx
	defer stop()
	defer o.conn.Close()
	defer o.enc.Close()
	o.ch.OnAcked(o.acked)

	parcels := make(chan parcel) // unbuffered: ordered.Map holds what is under way
	g.Go(func() error {
		defer close(parcels)
		err := o.parse(ctx, parcels)
		o.s.sourceClosed(o.state)
		return err
	})
	g.Go(func() error {
		err := ordered.Map(ctx, runtime.GOMAXPROCS(0), parcels,
			func(p parcel) (parcel, error) { return o.compress(ctx, p) },
			func(p parcel) error { return o.send(ctx, p) })
		if why := o.s.givenUp(); err == nil && why != nil {
			_ = o.settle(ctx) // what it does not bring crosses again
			o.s.awaitFlushed(ctx, o.state)
			return why
		}
		if err == nil {
			err = o.ch.CloseSend(ctx)
		}
		if err == nil {
			err = o.settle(ctx) // what the peer has decoded need not cross again
		}
		return err
	})
	g.Go(func() error { return o.returnPath(ctx) })
	err := g.Wait()
	if err != nil {
		cutOff(o.conn)
		o.ch.Abort(err.Error())
	}
	return err
}

// parse is step 2: it reads the leg and hands items to the encoder, which
// fills batches (step 3).
func (o *outbound) parse(ctx context.Context, out chan<- parcel) error {
	buf := make([]byte, legBuffer)
	have := copy(buf, o.head)
	o.clock.start()
	defer o.clock.stop()
	for {
		used, err := o.scanAll(ctx, buf[:have], out)
		if err == nil && o.hurry {
			o.hurry = false
			err = o.cut(ctx, out)
		}
		if err != nil {
			return err
		}
		have = copy(buf, buf[used:have])
		if have == len(buf) { // an item larger than any may be
			if err := o.cutItem(ctx, buf[:have], out); err != nil {
				return err
			}
			have = 0
		}
		n, err := o.read(buf[have:], have > 0 || o.enc.Pending() > 0)
		o.s.logical.Add(int64(n))
		have += n
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = o.flush(ctx, buf[:have], out)
			have = 0
		case o.s.givenUp() != nil: // and with the connection went what the rest belongs to
			return o.cut(ctx, out)
		case errors.Is(err, io.EOF):
			return o.flush(ctx, buf[:have], out)
		default:
			err = fmt.Errorf("reading from the source at byte %d: %w", o.s.logical.Load(), err)
		}
		if err != nil {
			return err
		}
	}
}

// read reads from the source. While we hold something of it, we wait no
// longer than silence.
func (o *outbound) read(b []byte, holding bool) (int, error) {
	o.clock.stop()
	defer o.clock.start()
	var until time.Time
	if holding {
		until = time.Now().Add(silence)
	}
	if err := o.conn.SetReadDeadline(until); err != nil {
		return 0, err
	}
	return o.from.Read(b)
}

// scanAll gives the encoder every whole item of b and returns the bytes used.
func (o *outbound) scanAll(ctx context.Context, b []byte, out chan<- parcel) (used int, err error) {
	for {
		it, n := o.scan.Next(b[used:])
		if n == 0 {
			return used, nil
		}
		if err := o.add(ctx, it, out); err != nil {
			return used, err
		}
		used += n
	}
}

func (o *outbound) cutItem(ctx context.Context, rest []byte, out chan<- parcel) error {
	if len(rest) == 0 {
		return nil
	}
	return o.add(ctx, o.scan.Cut(rest), out)
}

// flush sends all that we hold, because the source is silent or has ended.
func (o *outbound) flush(ctx context.Context, rest []byte, out chan<- parcel) error {
	if err := o.cutItem(ctx, rest, out); err != nil {
		return err
	}
	return o.cut(ctx, out)
}

// add is step 3. What must leave at once does so when the bytes at hand are
// used up: a batch for each page of a postcopy would cost more than it gains.
func (o *outbound) add(ctx context.Context, it page.Item, out chan<- parcel) error {
	o.hurry = o.hurry || it.Mark&page.Flush != 0
	it.Mark &^= page.Flush
	if full := o.enc.Add(it); full {
		return o.cut(ctx, out)
	}
	return nil
}

// cut ends the batches that are being filled, and sends them on to be
// compressed. Before the one with which the end of the stream begins goes a
// seal: the peer delivers nothing of what follows before all channels have come
// as far as they are now, with our digests.
func (o *outbound) cut(ctx context.Context, out chan<- parcel) error {
	for {
		b := o.enc.Cut()
		if b == nil {
			return o.home(ctx)
		}
		o.s.note(o.scan.Facts())
		if b.Mark&page.Seal != 0 {
			if err := o.give(ctx, out, parcel{seal: o.s.places()}); err != nil {
				return err
			}
		}
		o.s.advance(o.state, b.Raw, b.Digest)
		if err := o.give(ctx, out, parcel{batch: b}); err != nil {
			return err
		}
	}
}

// home waits, once, until the peer keeps for this connection what it once sent to us:
// what is read until then crosses in full, and that takes longer than the answer. It
// does so while memory is sent for the first time; later it would keep a guest waiting.
// The connections of a move need not wait, see newSinkMove.
func (o *outbound) home(ctx context.Context) error {
	memory := o.state.role == roleMain || o.scan.Facts().Format == roleMultifd
	if o.asked || !memory || !o.enc.Asks() || o.scan.Facts().Rounds > 0 {
		return nil
	}
	o.asked = true
	o.clock.stop()
	defer o.clock.start()
	late := time.NewTimer(homeTime)
	defer late.Stop()
	for o.enc.Asks() {
		select {
		case <-o.heard:
		case <-late.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// give hands p on.
func (o *outbound) give(ctx context.Context, out chan<- parcel, p parcel) error {
	o.clock.stop() // it may take as long as the line takes
	defer o.clock.start()
	if p.batch != nil {
		p.took = o.clock.take()
	}
	select {
	case out <- p:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// compress is step 4; it runs on all cores, which the moves of a gateway share.
// What is summed for a digest is summed here as well.
func (o *outbound) compress(ctx context.Context, p parcel) (parcel, error) {
	if p.batch == nil {
		p.msg = encodeJSON(seal{digests(p.seal)})
		return p, nil
	}
	if err := o.s.cores.turns.enter(ctx, &o.s.share, coresFor(p.batch.Setting)); err != nil {
		return p, err
	}
	var clock cpuClock
	clock.start()
	msg, err := p.batch.Compress()
	clock.stop()
	took := clock.take()
	// Where threads do not tell their time, a byte is a nanosecond.
	o.s.cores.turns.leave(&o.s.share, max(p.took+took, time.Duration(p.batch.Raw)))
	if err != nil {
		return p, fmt.Errorf("compressing batch %d: %w", p.batch.Seq, err)
	}
	p.msg = msg
	o.s.tally.add(p.batch, p.took, took)
	o.s.cores.works.add(p.batch, p.took, took)
	return p, nil
}

// send is steps 5 and 6: the tunnel shapes by the flow of the channel, stripes
// over its connections, and keeps the message until the peer has consumed it.
func (o *outbound) send(ctx context.Context, p parcel) error {
	if p.batch != nil {
		o.s.loadWait.enter()
		err := o.state.win.take(ctx, int64(p.batch.Raw))
		o.s.loadWait.leave()
		if err != nil {
			return err
		}
	}
	o.s.wire.Add(int64(len(p.msg)))
	o.sent.put(p)
	if o.s.spoil != nil {
		o.s.spoil(p.msg)
	}
	o.s.lineWait.enter()
	_, err := o.ch.Send(ctx, p.msg)
	o.s.lineWait.leave()
	if err != nil {
		return fmt.Errorf("sending to %s: %w", o.ch.Site(), err)
	}
	return nil
}

// acked hears that the peer has delivered all messages up to seq.
func (o *outbound) acked(seq uint64) {
	batch, raw := o.sent.upTo(seq)
	o.s.delivered.Add(raw)
	o.state.win.release(raw)
	defer o.took(seq)
	if batch > 0 {
		o.enc.Acked(batch)
		select {
		case o.heard <- struct{}{}:
		default:
		}
	}
}

// took notes that acked has dealt with all messages up to seq.
func (o *outbound) took(seq uint64) {
	for was := o.taken.Load(); seq > was && !o.taken.CompareAndSwap(was, seq); was = o.taken.Load() {
	}
}

// settle waits until the peer has taken all messages, and the encoder knows. The latter
// takes a moment after the former; it is worth no more than that.
func (o *outbound) settle(ctx context.Context) error {
	if err := o.ch.Flush(ctx); err != nil {
		return err
	}
	for range 100 {
		if o.taken.Load() >= o.sent.last() {
			break
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// returnPath brings the destination's answers to the source, byte for byte
// and at once. It is the urgent class of the channel.
func (o *outbound) returnPath(ctx context.Context) error {
	for {
		m, err := o.ch.Recv(ctx)
		if errors.Is(err, io.EOF) {
			if o.s.givenUp() != nil { // the source ends its connection by itself
				return nil
			}
			return closeWrite(o.conn)
		}
		if err != nil {
			return fmt.Errorf("return path from %s: %w", o.ch.Site(), err)
		}
		if _, err := o.conn.Write(m.Data); err != nil && o.s.givenUp() == nil {
			return fmt.Errorf("writing the return path to the source: %w", err)
		}
		o.ch.Done(m.Seq)
	}
}

// closeWrite ends our direction of a connection and leaves the other open.
func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		err := h.CloseWrite()
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || isNotConnected(err) {
			return nil // it had ended by itself
		}
		return err
	}
	return c.Close()
}
