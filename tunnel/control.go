package tunnel

import (
	"fmt"
	"slices"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// batchFrames is about how many bytes of control frames are written at once:
// a peer that reads slowly makes us coalesce, not gather.
const batchFrames = 16 << 10

// compose appends control frames that wait to be sent. The state that they tell
// is read here and not when it changed: many changes make one frame.
func (l *Link) compose(c *carrier, b []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set == nil || l.set != c.set {
		return b
	}
	for len(l.replies) > 0 && len(b) < batchFrames {
		b = l.replies[0].Append(b)
		l.replies = l.replies[1:]
	}
	b = l.grow.compose(b, c.set.dialed)
	b = l.composeFallback(b)
	for len(l.dirty) > 0 && len(b) < batchFrames {
		ch := l.dirty[0]
		l.dirty[0] = nil
		l.dirty = l.dirty[1:]
		b = ch.compose(b)
	}
	return b
}

// waiting tells whether compose has more to say.
func (l *Link) waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.dirty)+len(l.replies) > 0
}

// compose appends what the channel needs to tell. The caller holds link.mu.
func (ch *Channel) compose(b []byte) []byte {
	l, n := ch.link, ch.dirty
	ch.dirty = 0
	if l.channels[ch.id] != ch {
		return b
	}
	if n&needOpen != 0 && !ch.known {
		b = ch.appendOpen(b)
	}
	if n&needReset != 0 {
		return frame.Reset{Channel: ch.id, Reason: ch.reset}.Append(b)
	}
	// An acknowledgement tells the peer that we know the channel. Data may have overtaken the
	// Open, which is lost if the set changes now.
	if n&needAck != 0 && ch.described {
		b = ch.in.ack(ch.id).Append(b)
	}
	if n&needFin != 0 {
		b = frame.Fin{Channel: ch.id, Last: ch.out.last}.Append(b)
	}
	l.settle(ch)
	return b
}

func (ch *Channel) appendOpen(b []byte) []byte {
	ch.openSent, ch.told = true, true
	ch.link.sched.wakeAll()
	return frame.Open{
		Channel: ch.id, Kind: ch.kind, Forward: ch.class.wire(), Back: ch.back.wire(), Header: ch.header,
	}.Append(b)
}

// resume writes where all channels stand, for a peer that has just been
// reached (again). Opens go before what refers to them.
func (l *Link) resume(c *carrier, write func([]byte) error) error {
	l.mu.Lock()
	ids := make([]uint64, 0, len(l.channels))
	for id := range l.channels {
		ids = append(ids, id)
	}
	serial := c.set.serial
	l.mu.Unlock()
	slices.Sort(ids)
	if err := write(frame.Advance{Bytes: uint64(l.node.cfg.advance())}.Append(nil)); err != nil {
		return err
	}
	for _, id := range ids {
		if b := l.resumeOne(c, id); len(b) > 0 {
			if err := write(b); err != nil {
				return err
			}
		}
	}
	return write(frame.ResumeEnd{Serial: serial}.Append(nil))
}

func (l *Link) resumeOne(c *carrier, id uint64) (b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := l.channels[id]
	if ch == nil || l.set != c.set {
		return nil
	}
	if ch.opener && !ch.known {
		b = ch.appendOpen(b)
	}
	if ch.resetting {
		return frame.Reset{Channel: id, Reason: ch.reset}.Append(b)
	}
	if ch.described {
		b = ch.in.resume(id).Append(b)
	}
	if ch.out.fin && !ch.out.finAcked {
		b = frame.Fin{Channel: id, Last: ch.out.last}.Append(b)
	}
	l.settle(ch)
	return b
}

// settle removes a channel that has ended in both directions, once the peer
// has been told. The caller holds mu.
func (l *Link) settle(ch *Channel) {
	if ch.out.ended() && ch.in.ended() {
		l.remove(ch)
	}
}

// remove forgets a channel. The caller holds mu.
func (l *Link) remove(ch *Channel) {
	if l.channels[ch.id] != ch {
		return
	}
	delete(l.channels, ch.id)
	l.closedID.add(ch.id)
	l.granted -= ch.grant
	ch.grant = 0
	l.returnAdvance(ch)
	l.sched.leave(ch)
	l.sched.unwatch(ch)
	if ch.dirty&listed != 0 {
		ch.dirty = 0
		l.dirty = slices.DeleteFunc(l.dirty, func(x *Channel) bool { return x == ch })
	}
}

// reply queues an answer about a channel that there is not. The caller holds mu.
func (l *Link) reply(f frame.Frame) error {
	if len(l.replies) >= maxReplies {
		return fmt.Errorf("%w: too many frames about unknown channels", errProtocol)
	}
	l.replies = append(l.replies, f)
	if l.set != nil {
		poke(l.set.priority.wake)
	}
	return nil
}

// find returns the channel with a number, made if the peer has opened it and
// only its Open is still to come. nil: it has ended, ignore what is said of it.
func (l *Link) find(id uint64) (*Channel, error) {
	if ch := l.channels[id]; ch != nil {
		return ch, nil
	}
	switch {
	case l.closedID.has(id):
		return nil, nil
	case l.opens(id):
		return nil, fmt.Errorf("%w: channel %d was never opened", errProtocol, id)
	case len(l.channels) >= maxChannels:
		return nil, fmt.Errorf("%w: more than %d channels", errProtocol, maxChannels)
	}
	return l.newChannel(id), nil
}

// handle acts on a control frame of the priority connection.
func (l *Link) handle(c *carrier, f frame.Frame) error {
	l.mu.Lock()
	if l.set == nil || l.set != c.set {
		l.mu.Unlock()
		return nil // of a set that is no longer in use
	}
	acked, err := l.dispatch(f)
	l.mu.Unlock()
	if acked != nil {
		acked()
	}
	if _, end := f.(frame.ResumeEnd); end && err == nil {
		l.ready(c)
	}
	return err
}

// dispatch acts on a frame. It returns what is to be called without mu.
func (l *Link) dispatch(f frame.Frame) (acked func(), err error) {
	switch f := f.(type) {
	case frame.Open:
		return nil, l.opened(f)
	case frame.Ack:
		return l.acked(f, nil, false)
	case frame.Resume:
		return l.acked(f.Ack, f.Ranges, true)
	case frame.Fin:
		return nil, l.finished(f)
	case frame.Reset:
		return nil, l.wasReset(f)
	case frame.ResetAck:
		if ch := l.channels[f.Channel]; ch != nil && ch.resetting {
			l.remove(ch)
		}
	case frame.Gone:
		l.gone(f)
	case frame.Grow:
		if l.node.cfg.Conns == 0 {
			l.grow.ask(int(f.Conns))
			poke(l.wake)
		}
	case frame.Fallback:
		l.set.theirs = f
	case frame.Advance:
		l.set.advance = int64(min(f.Bytes, mostAdvance))
	case frame.ResumeEnd, frame.Unknown:
	default:
		return nil, fmt.Errorf("%w: unexpected %T", errProtocol, f)
	}
	return nil, nil
}

// opened: the peer has opened a channel.
func (l *Link) opened(f frame.Open) error {
	if l.opens(f.Channel) {
		return fmt.Errorf("%w: channel %d is not the peer's to open", errProtocol, f.Channel)
	}
	ch, err := l.find(f.Channel)
	if ch == nil || err != nil {
		return err
	}
	ch.known, ch.openSent = true, true
	if !ch.described && ch.err == nil {
		ch.describe(f.Kind, f.Header, classOf(f.Back), classOf(f.Forward))
		n := l.node
		n.mu.Lock()
		n.channels.push(ch)
		n.mu.Unlock()
	}
	ch.mark(needAck)
	return nil
}

// acked: the peer tells what has become of our messages. resumed: it tells so
// because it has just been reached.
func (l *Link) acked(f frame.Ack, ranges []frame.Range, resumed bool) (func(), error) {
	ch, err := l.find(f.Channel)
	if err != nil {
		return nil, err
	}
	if ch == nil {
		if resumed {
			return nil, l.reply(frame.Gone{Channel: f.Channel})
		}
		return nil, nil
	}
	ch.known, ch.openSent = true, true
	if ch.err != nil {
		return nil, nil
	}
	l.lateTold(ch, f.Received)
	bytes, more, err := ch.out.ack(f)
	if err != nil {
		return nil, fmt.Errorf("%w: acknowledged what channel %d never sent", err, ch.id)
	}
	if ch.out.unacked <= ch.out.granted { // else it still uses some of it
		l.returnAdvance(ch)
	}
	ch.out.skip(ranges)
	l.good.arrived(ch.class, bytes)
	l.settle(ch)
	if call := ch.onAcked; more && call != nil {
		return func() { call(f.Done) }, nil
	}
	return nil, nil
}

// finished: the peer has sent its last message.
func (l *Link) finished(f frame.Fin) error {
	ch, err := l.find(f.Channel)
	if err != nil {
		return err
	}
	if ch == nil {
		return l.reply(frame.Gone{Channel: f.Channel})
	}
	if ch.err != nil {
		return nil
	}
	if err := ch.in.finish(f.Last); err != nil {
		return err
	}
	ch.mark(needAck)
	return nil
}

// wasReset: the peer has aborted a channel.
func (l *Link) wasReset(f frame.Reset) error {
	if ch := l.channels[f.Channel]; ch != nil {
		ch.fail(&AbortError{Reason: f.Reason})
		l.remove(ch)
	} else if !l.opens(f.Channel) {
		l.closedID.add(f.Channel) // an Open that is still to come is void
	}
	return l.reply(frame.ResetAck{Channel: f.Channel})
}

// gone: the peer has forgotten a channel because it had ended in good order, so
// it has consumed all that we sent and we all that it sent.
func (l *Link) gone(f frame.Gone) {
	ch := l.channels[f.Channel]
	if ch == nil {
		return
	}
	if ch.out.fin && ch.in.ended() {
		o := &ch.out
		o.finAcked, o.done, o.received = true, o.last, o.last
		o.clear()
	} else {
		ch.fail(&AbortError{Reason: "the peer does not know the channel"})
	}
	l.remove(ch)
}
