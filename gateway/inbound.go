package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/internal/ordered"
	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/tunnel"
)

const (
	// maxHeld bounds the bytes of a unit that the destination must get whole
	// (a postcopy package: the device state; hypervisor-wire.md, 3.2). A VM
	// with a larger one moves by precopy.
	maxHeld = 256 << 20

	// maxHeldAll bounds it for all channels of one peer together.
	maxHeldAll = 512 << 20

	// mainPatience is how long a forwarded connection that begins like an
	// additional one of a migration waits for the main one. A move ends those
	// that wait when it ends; behind a forward there is no move, and what
	// waits for ever would use up its connections. QEMU opens the main one
	// first, and the outage of a WAN that comes right between the two costs a
	// migration by hand.
	mainPatience = 30 * time.Second

	// maxCores bounds how many batches of a channel are expanded, and rebuilt, at
	// once; each takes up to 4 MiB and its columns. Four cores make and verify
	// 5 GB/s of known content (dedup.BenchmarkOrdered), more than a hypervisor
	// reads from one connection.
	maxCores = 4

	// backBuffer is how much of the return path is read at once, in bytes.
	// Its messages are of at most 520 bytes; a bitmap is larger.
	backBuffer = 64 << 10
)

// An inbound replays one channel of the peer into the destination hypervisor:
// steps 7 and 8 of the path.
type inbound struct {
	s     *session
	state *legState
	ch    *tunnel.Channel
	dec   *dedup.Decoder
	dial  func(context.Context) (net.Conn, error)
	need  int  // bytes in hand before we dial (hypervisor-wire.md, section 2)
	main  bool // the others wait for this one

	patience time.Duration // of one that waits, for the main one; 0: as long as its move lasts

	pack   func(io.Writer) io.WriteCloser // puts an unpacked stream back; nil: it is none
	packer io.WriteCloser                 // … to conn

	conn    net.Conn      // to the destination; nil until it is dialed
	stops   []func() bool // conn is no longer cut off when run has to end, or all connections have to
	held    []byte        // verified bytes that wait: for need, or for the rest of their unit
	partial bool          // held is the beginning of a unit
}

// delivery is what travels through step 7: a batch is expanded, then resolved.
type delivery struct {
	seq      uint64
	msg      []byte
	expanded *dedup.Expanded // nil: msg is a seal
	batch    *dedup.Resolved
}

// run carries the channel until both directions have ended.
func (in *inbound) run(ctx context.Context) error {
	defer in.dec.Close()
	g := newCrew(ctx, in.ch)
	ctx = g.ctx
	connected := make(chan net.Conn, 1) // one connection a leg
	received := make(chan tunnel.Message)
	resolved := make(chan delivery)
	cores := min(runtime.GOMAXPROCS(0), maxCores)
	g.Go(func() error { return in.receive(ctx, received) })
	g.Go(func() error {
		err := ordered.Map(ctx, cores, received, in.expand, func(d delivery) error { return in.resolve(ctx, d, resolved) })
		if err == nil { // else ctx ends, and what is cut short must not look like an end
			close(resolved)
		}
		return err
	})
	g.Go(func() error {
		defer close(connected)
		if in.need == 0 { // it sends nothing of its own accord
			if err := in.connect(ctx, connected); err != nil && in.s.givenUp() == nil {
				return err
			}
		}
		err := ordered.Map(ctx, cores, resolved, in.rebuild, func(d delivery) error { return in.replay(ctx, d, connected) })
		if err == nil {
			err = in.end(ctx, connected)
		}
		return err
	})
	g.Go(func() error { return in.answer(ctx, connected) })
	err := g.Wait()
	in.holding(-len(in.held))
	if in.conn != nil {
		for _, stop := range in.stops {
			stop()
		}
		if err != nil {
			cutOff(in.conn)
		}
		in.conn.Close()
	}
	g.end()
	if err != nil {
		in.ch.Abort(err.Error())
	}
	return err
}

func (in *inbound) receive(ctx context.Context, out chan<- tunnel.Message) error {
	for {
		m, err := in.ch.Recv(ctx)
		if errors.Is(err, io.EOF) {
			close(out)
			return nil
		}
		if err != nil {
			return fmt.Errorf("receiving from %s: %w", in.ch.Site(), err)
		}
		select {
		case out <- m:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// expand is the part of step 7 that needs nothing of other batches: decompress.
// It runs on all cores.
func (in *inbound) expand(m tunnel.Message) (delivery, error) {
	d := delivery{seq: m.Seq}
	if len(m.Data) > 0 && m.Data[0] == sealStart {
		d.msg = m.Data
		return d, nil
	}
	x, err := dedup.Expand(m.Data)
	if err != nil {
		return d, in.s.blame(fmt.Errorf("message %d: %w", m.Seq, err))
	}
	d.expanded = x
	tunnel.Recycle(m.Data) // Expand does not keep it
	return d, nil
}

// resolve is the ordered part of step 7: which pages a batch is made of.
func (in *inbound) resolve(ctx context.Context, d delivery, out chan<- delivery) (err error) {
	if d.expanded != nil {
		if d.batch, err = in.dec.Resolve(d.expanded); err != nil {
			return in.s.blame(fmt.Errorf("expanding message %d: %w", d.seq, err))
		}
	}
	select {
	case out <- d:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// rebuild makes and verifies the bytes of a batch, again on all cores.
func (in *inbound) rebuild(d delivery) (delivery, error) {
	if d.batch == nil {
		return d, nil
	}
	if err := d.batch.Rebuild(); err != nil {
		return d, in.s.blame(fmt.Errorf("expanding message %d: %w", d.seq, err))
	}
	return d, nil
}

// replay is step 8, in order.
func (in *inbound) replay(ctx context.Context, d delivery, connected chan<- net.Conn) error {
	if d.batch == nil {
		if err := in.unseal(ctx, d.msg); err != nil {
			return err
		}
		in.ch.Done(d.seq)
		return nil
	}
	defer d.batch.Release()
	raw, mark, err := d.batch.Take()
	if err != nil {
		return in.s.blame(fmt.Errorf("expanding message %d: %w", d.seq, err))
	}
	in.s.logical.Add(int64(len(raw)))
	digest := in.dec.Digest()
	in.s.advance(in.state, len(raw), func() dedup.Digest { return digest })
	if err := in.deliver(ctx, raw, mark, connected); err != nil && in.s.givenUp() == nil {
		return err
	}
	in.ch.Done(d.seq) // of a move that is given up it is for the store alone
	return nil
}

// deliver writes verified bytes to the destination, or keeps them while they
// have to wait.
func (in *inbound) deliver(ctx context.Context, raw []byte, mark page.Mark, connected chan<- net.Conn) error {
	if in.s.givenUp() != nil {
		in.holding(-len(in.held))
		in.held = nil
		return nil
	}
	in.partial = mark&page.Hold != 0
	if in.partial || in.conn == nil && len(in.held)+len(raw) < in.need {
		if len(in.held)+len(raw) > maxHeld {
			return fmt.Errorf("a unit of the stream that must be delivered whole is over %d MiB", maxHeld>>20)
		}
		if !in.holding(len(raw)) {
			return fmt.Errorf("what must be delivered whole is over %d MiB for all connections of site %s", maxHeldAll>>20, in.ch.Site())
		}
		in.held = append(in.held, raw...)
		return nil
	}
	if err := in.connect(ctx, connected); err != nil {
		return err
	}
	if len(in.held) > 0 {
		in.holding(-len(in.held))
		raw, in.held = append(in.held, raw...), nil // held has its own memory
	}
	to := io.Writer(in.conn)
	if in.packer != nil {
		to = in.packer
	}
	if _, err := to.Write(raw); err != nil {
		return fmt.Errorf("writing to the destination: %w", err)
	}
	return nil
}

// holding counts n more bytes as held for the peer; false when they are too many.
func (in *inbound) holding(n int) bool {
	if in.s.held == nil {
		return true
	}
	if in.s.held.Add(int64(n)) > maxHeldAll && n > 0 {
		in.s.held.Add(int64(-n))
		return false
	}
	return true
}

// connect dials the destination, the main connection first and the others
// after it: QEMU up to 7.2 takes the first for main whatever it says.
func (in *inbound) connect(ctx context.Context, connected chan<- net.Conn) error {
	if in.conn != nil {
		return nil
	}
	if err := in.waitForMain(ctx); err != nil {
		return err
	}
	dialing, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(in.s.local, cancel)
	defer stop()
	c, err := in.dial(dialing)
	if err != nil {
		return fmt.Errorf("connecting to the destination: %w", err)
	}
	in.conn = c
	if in.pack != nil {
		in.packer = in.pack(c)
	}
	for _, ends := range []context.Context{ctx, in.s.local} {
		in.stops = append(in.stops, context.AfterFunc(ends, func() { cutOff(c) })) // a blocked Read or Write does not know of them
	}
	connected <- c
	if in.main {
		in.s.opened()
	}
	return nil
}

// waitForMain holds back the connections that must not be first.
func (in *inbound) waitForMain(ctx context.Context) error {
	if in.main {
		return nil
	}
	var late <-chan time.Time // never
	if in.patience > 0 {
		late = time.After(in.patience)
	}
	select {
	case <-in.s.mainOpen:
		return nil
	case <-late:
		return fmt.Errorf("no main connection has come within %v", in.patience)
	case <-in.s.local.Done():
		return in.s.givenUp()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// unseal waits until all channels of the session have come as far as the peer
// says, and their digests agree. Nothing after the seal is delivered before.
func (in *inbound) unseal(ctx context.Context, msg []byte) error {
	var s seal
	if err := decodeJSON(msg, &s); err != nil {
		return fmt.Errorf("reading a seal: %w", err)
	}
	if err := in.s.await(ctx, s.Streams); err != nil && in.s.givenUp() == nil {
		err = fmt.Errorf("end of the stream withheld: %w", err)
		if errors.Is(err, errDigest) {
			in.s.blame(err)
		}
		return err
	}
	return nil
}

// end passes on that the source has closed its connection.
func (in *inbound) end(ctx context.Context, connected chan<- net.Conn) error {
	if in.s.givenUp() != nil { // it was not all passed on
		return nil
	}
	if in.partial {
		return errors.New("the source closed its connection inside a unit that must be delivered whole")
	}
	if len(in.held) > 0 { // a stream shorter than need
		in.need = 0
		if err := in.deliver(ctx, nil, 0, connected); err != nil {
			return err
		}
	}
	if in.conn == nil {
		return nil
	}
	if in.packer != nil {
		if err := in.packer.Close(); err != nil {
			return fmt.Errorf("writing to the destination: %w", err)
		}
	}
	return closeWrite(in.conn)
}

// answer carries the return path: raw, at once, in the urgent class.
func (in *inbound) answer(ctx context.Context, connected <-chan net.Conn) error {
	var c net.Conn
	select {
	case c = <-connected:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if c == nil {
		return in.ch.CloseSend(ctx) // nothing was ever dialed
	}
	for {
		b := make([]byte, backBuffer) // Send takes it
		n, err := c.Read(b)
		if n > 0 {
			if _, err := in.ch.Send(ctx, b[:n:n]); err != nil {
				return fmt.Errorf("sending the return path to %s: %w", in.ch.Site(), err)
			}
		}
		if errors.Is(err, io.EOF) {
			return in.ch.CloseSend(ctx)
		}
		if in.s.givenUp() != nil {
			return in.ch.CloseSend(ctx)
		}
		if err != nil {
			return fmt.Errorf("reading the return path of the destination: %w", err)
		}
	}
}
