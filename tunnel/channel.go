package tunnel

import (
	"context"
	"fmt"
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// A Channel carries messages both ways, each of them once, in order, for as
// long as both gateways live and the line is not away for longer than
// Patience. It ends when both sides have called CloseSend and consumed all, or
// when one calls Abort. All methods are safe for concurrent use.
type Channel struct {
	link   *Link
	id     uint64
	opener bool

	// Constant once the channel is known to the application.
	kind   uint16
	header []byte
	class  Class // of what we send
	back   Class // of what we receive

	in inbox

	// What follows is guarded by link.mu.
	described bool // kind and header are known; false while only data has come
	told      bool // the peer may know the channel: an Open has been written
	known     bool // the peer knows the channel: we have seen a frame about it
	openSent  bool // on the set in use, or known
	flow      *Flow
	out       outbox
	dirty     need
	grant     int64  // what we have granted of Config.Memory
	advance   int64  // what of the peer's advance the window in out contains
	err       error  // why the channel has failed; nil while it has not
	reset     string // reason to tell the peer, while it has not confirmed
	resetting bool
	onAcked   func(uint64)
	created   time.Time
}

// need says what control frames a channel needs to send.
type need uint8

const (
	needOpen need = 1 << iota
	needAck
	needFin
	needReset
	listed // is in link.dirty
)

// newChannel makes a channel and enters it. The caller holds link.mu.
func (l *Link) newChannel(id uint64) *Channel {
	ch := &Channel{link: l, id: id, flow: l.rest, created: time.Now()}
	ch.out.granted, ch.out.local = baseWindow, 1<<62
	ch.in.init(&l.buffered, baseWindow)
	if !l.opens(id) {
		ch.in.advance = l.node.cfg.advance()
	}
	l.channels[id] = ch
	return ch
}

// describe fills in what an Open says, and grants the peer its window.
func (ch *Channel) describe(kind uint16, header []byte, class, back Class) {
	ch.kind, ch.header, ch.class, ch.back = kind, header, class, back
	ch.described = true
	most := int64(bulkWindow)
	if back == Urgent {
		most = urgentWindow
	}
	l := ch.link
	w := min(most, (l.node.cfg.Memory-l.granted)/4)
	w = max(w, baseWindow)
	ch.grant = w
	l.granted += w
	ch.in.allow(w)
}

// mark notes that control frames are to be sent. The caller holds link.mu.
func (ch *Channel) mark(n need) {
	ch.dirty |= n
	if ch.dirty&listed == 0 {
		ch.dirty |= listed
		ch.link.dirty = append(ch.link.dirty, ch)
	}
	if s := ch.link.set; s != nil {
		poke(s.priority.wake)
	}
}

// Site is the peer's site.
func (ch *Channel) Site() string { return ch.link.site }

// Link is the link that the channel runs over.
func (ch *Channel) Link() *Link { return ch.link }

// ID is the channel's number, unique on the link for the life of both
// gateways, and the same at both ends.
func (ch *Channel) ID() uint64 { return ch.id }

// Kind is what the opener said that the channel is for.
func (ch *Channel) Kind() uint16 { return ch.kind }

// Header is what the opener sent with it. It may not be changed.
func (ch *Channel) Header() []byte { return ch.header }

// SetFlow makes what we send part of a flow of the same link, from now on. An
// accepted channel belongs to none. Nil: none.
func (ch *Channel) SetFlow(f *Flow) {
	l := ch.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if f == nil {
		f = l.rest
	}
	if f.link == l && f != ch.flow {
		l.sched.leave(ch)
		ch.flow = f
		l.sched.enter(ch)
	}
}

// OnAcked sets what is called whenever the peer has consumed more: all up to
// seq. It is called by one goroutine per link, in order, under no lock, and
// must not block. After a reconnect a call with a lower seq may come late.
// Set it before the first Send.
func (ch *Channel) OnAcked(f func(seq uint64)) {
	ch.link.mu.Lock()
	defer ch.link.mu.Unlock()
	ch.onAcked = f
}

// SetWindow bounds the bytes that may be sent and not yet consumed by the
// peer. The peer's own bound stands beside it. One message always passes; and
// while all is on its way, so does one whenever those but the oldest are fewer.
func (ch *Channel) SetWindow(bytes int64) {
	ch.link.mu.Lock()
	defer ch.link.mu.Unlock()
	ch.out.local = max(bytes, 1)
	ch.out.changed.fire()
}

// Unacked is what has been sent and not yet consumed by the peer.
func (ch *Channel) Unacked() (messages int, bytes int64) {
	ch.link.mu.Lock()
	defer ch.link.mu.Unlock()
	n := len(ch.out.msgs)
	return n, ch.out.unacked - int64(n)*messageCost
}

// Arriving is, of the bytes of Unacked, those of messages that the peer has not
// received, or not all before them: what waits for the line, or is on it. The rest
// waits for the peer to consume it.
func (ch *Channel) Arriving() int64 {
	ch.link.mu.Lock()
	defer ch.link.mu.Unlock()
	return ch.out.pending
}

// Send takes a message and gives it its number, 1 and up. It blocks while what
// the peer has not consumed exceeds the window, also while the line is away.
func (ch *Channel) Send(ctx context.Context, msg []byte) (seq uint64, err error) {
	if len(msg) > frame.MaxMessage {
		return 0, fmt.Errorf("message of %d bytes: %w", len(msg), ErrTooLarge)
	}
	l := ch.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case ch.err != nil:
			return 0, ch.err
		case ch.out.fin:
			return 0, ErrClosed
		case context.Cause(ctx) != nil:
			return 0, context.Cause(ctx)
		case ch.out.fits(len(msg)):
			seq = ch.out.push(msg)
			l.sched.enter(ch)
			return seq, nil
		}
		changed := ch.out.changed.next()
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
		l.mu.Lock()
	}
}

// CloseSend says that no more messages come. It does not wait for those that
// were sent; Flush does.
func (ch *Channel) CloseSend(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	ch.link.mu.Lock()
	defer ch.link.mu.Unlock()
	if ch.err != nil {
		return ch.err
	}
	if !ch.out.fin {
		ch.out.fin = true
		ch.mark(needFin)
	}
	return nil
}

// Flush waits until the peer has consumed all that was sent, and after a
// CloseSend also knows that it was all.
func (ch *Channel) Flush(ctx context.Context) error {
	l := ch.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		o := &ch.out
		switch {
		case o.done == o.last && (!o.fin || o.finAcked):
			return nil
		case ch.err != nil:
			return ch.err
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		}
		changed := o.changed.next()
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
		l.mu.Lock()
	}
}

// Abort ends the channel at once, at both ends, and drops what is under way.
// The peer gets the reason, cut at 1 KiB, in an AbortError. After the channel
// has ended in another way it does nothing.
func (ch *Channel) Abort(reason string) {
	ch.link.mu.Lock()
	defer ch.link.mu.Unlock()
	ch.abort(&AbortError{Reason: reason, Local: true}, reason)
}

// abort fails the channel and has the peer told. The caller holds link.mu.
func (ch *Channel) abort(err error, reason string) {
	if ch.err != nil || ch.link.channels[ch.id] != ch {
		return
	}
	ch.fail(err)
	if ch.opener && !ch.told {
		ch.link.remove(ch)
		return
	}
	ch.reset = reason[:min(len(reason), maxText)]
	ch.resetting = true
	ch.mark(needReset)
}

// fail ends the channel on this side. The caller holds link.mu.
func (ch *Channel) fail(err error) {
	if ch.err != nil {
		return
	}
	ch.err = err
	ch.link.sched.leave(ch)
	ch.link.sched.unwatch(ch)
	ch.out.clear()
	ch.in.fail(err)
}

// Stalled says why nothing of what was sent moves on; "" when nothing waits,
// or when it does move.
func (ch *Channel) Stalled() string {
	l := ch.link
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	waited := now.Sub(ch.out.moved)
	switch {
	case ch.err != nil:
		return ch.err.Error()
	case len(ch.out.msgs) == 0 || waited < stallAfter:
		return ""
	case !l.state.up:
		return fmt.Sprintf("link to %s is down: %s", l.site, l.state.explain(now))
	case ch.out.received == ch.out.last:
		return fmt.Sprintf("%s has received all %d bytes and consumed none for %s",
			l.site, ch.out.unacked, waited.Round(time.Second))
	}
	return fmt.Sprintf("nothing has arrived at %s for %s", l.site, waited.Round(time.Second))
}

// stallAfter is how long nothing may move before Stalled says so: more than
// any round trip with a few retransmissions.
const stallAfter = 2 * time.Second

// Err is why the channel has failed; nil while it has not.
func (ch *Channel) Err() error {
	ch.link.mu.Lock()
	defer ch.link.mu.Unlock()
	return ch.err
}
