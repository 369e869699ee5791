package tunnel

import (
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// What a VM that stands still waits for is sent again before a loss is known.
// QUIC finds a loss by the packets that come after it; of the last packets of a
// burst none does, and the timer that is left (RFC 9002, section 6.2) takes more
// than a round trip, twice that when it is lost again, and so on. So what is on
// its way goes once more
//
//   - over another path, as soon as the flow has nothing new to send: all of it,
//     the newest first, so that a loss or the death of a path costs nothing;
//   - with one path, over another connection a quarter of a round trip after the
//     flow fell silent: the last cells, which nothing comes after;
//   - when the first message that has not been acknowledged is overdue, at 1.25
//     round trips: that message, over yet another connection, and again later.
//
// The last is done for urgent messages too, by the bulk connections: one of
// them may be the order to run. Each bulk connection has a stream for copies alone,
// since on any other they might stand behind the very loss, and another for those of
// urgent messages, which goes ahead of its bulk. A receiver drops the
// cells that it has. Copies are charged like all else, and there are none while
// such a move has something new to send.
const (
	// copyCells at once over another path: 16 KiB, so that what is new is soon sent.
	copyCells = 8
	// endCells is what of a silent flow is copied with one path: 16 KiB are 12
	// packets, and a timer is needed only for the last 3 of a connection.
	endCells = 8
	// endAfter of the round trip is how long that waits: a burst of losses has
	// passed, and often something new has come. leastEnd keeps short lines from
	// copying all they carry.
	endAfter = 4
	leastEnd = 2 * time.Millisecond
	// overdueCells is the most of a message that is sent again when it is
	// overdue, from its end: what comes before was followed by enough.
	overdueCells = 512
	// stuckAfter it is overdue also while a stream has cells of it that it cannot
	// write: its connection may be dead while others live.
	stuckAfter = time.Second
	// mostTries doublings of the time that a message is waited for: with 100 ms,
	// 4 s. Then the path is long dead.
	mostTries = 6
)

// overdue is how long after it was written a message should be acknowledged, of
// a round trip rtt: 1.25 of it, and what processors may add.
func overdue(rtt time.Duration, tries int) time.Duration {
	return (rtt + rtt/4 + leastEnd) << min(max(tries-1, 0), mostTries)
}

// watch notes a channel whose messages may have to be sent again.
func (s *scheduler) watch(ch *Channel) {
	if ch.watchable() && !slices.Contains(s.watched, ch) {
		s.watched = append(s.watched, ch)
	}
}

func (s *scheduler) unwatch(ch *Channel) {
	if i := slices.Index(s.watched, ch); i >= 0 {
		s.watched = slices.Delete(s.watched, i, i+1)
	}
}

// watchable tells whether something is on its way that must not wait for a loss.
func (ch *Channel) watchable() bool {
	return ch.err == nil && ch.out.received < ch.out.last && (ch.class == Urgent || ch.flow.tail)
}

// tailIdle tells whether a VM stands still and what it waits for is all on its way.
func (s *scheduler) tailIdle() bool {
	for _, f := range s.queues[Bulk].flows {
		if f.tail {
			return false
		}
	}
	return slices.ContainsFunc(s.watched, func(ch *Channel) bool { return ch.class == Bulk })
}

// nextCopy waits for cells of messages of a class that c shall carry although they
// are on their way, and is like next in all else.
func (l *Link) nextCopy(c *carrier, class Class, ps []piece) []piece {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrote(Bulk, ps)
	ps = ps[:0]
	for !c.ended {
		if l.set == c.set && c.set.ready {
			now := time.Since(l.born)
			var wait time.Duration
			if ps, wait = l.again(c, class, now, ps); len(ps) > 0 {
				return ps
			}
			l.later(&l.sched.copiers[class], now, wait)
		}
		l.sched.copiers[class].work.Wait()
	}
	return nil
}

// again takes what of a class c shall carry although it is on its way already. When
// there is nothing yet, wait says how long the first takes; 0: nothing comes. The
// caller holds mu.
func (l *Link) again(c *carrier, class Class, now time.Duration, ps []piece) (_ []piece, wait time.Duration) {
	s := &l.sched
	if len(s.watched) == 0 {
		return ps, 0
	}
	s.watched = slices.DeleteFunc(s.watched, func(ch *Channel) bool { return !ch.watchable() })
	if class == Bulk && !s.tailIdle() {
		return ps, 0
	}
	for _, ch := range s.watched {
		if ch.class != class || !ch.openSent {
			continue
		}
		x := spare{l: l, c: c, ch: ch, now: now}
		if class == Bulk {
			x.twin()
		} else {
			x.early()
		}
		x.late()
		if len(x.ps) > 0 {
			return append(ps, x.ps...), 0
		}
		if x.wait > 0 && (wait == 0 || x.wait < wait) {
			wait = x.wait
		}
	}
	return ps, wait
}

// A spare looks for what of a channel a connection may carry again.
type spare struct {
	l    *Link
	c    *carrier
	ch   *Channel
	now  time.Duration
	ps   []piece
	wait time.Duration // until something is due; 0: nothing is
}

// due tells whether it is time, and notes how long it is until then.
func (x *spare) due(at time.Duration) bool {
	if at > x.now && (x.wait == 0 || at-x.now < x.wait) {
		x.wait = at - x.now
	}
	return at <= x.now
}

// twin takes what another path carries; with one path, the end of what another
// connection does.
func (x *spare) twin() {
	o := &x.ch.out
	if x.l.sched.paths > 1 {
		for i := len(o.msgs) - 1; i >= int(o.received-o.done); i-- {
			if x.take(o.msgs[i], copyCells, x.elsewhere(o.msgs[i])) {
				return
			}
		}
		return
	}
	m := o.msgs[len(o.msgs)-1]
	rtt := x.l.ackTime(m)
	if m.held > 0 || rtt == 0 || !x.due(m.at+max(rtt/endAfter, leastEnd)) {
		return
	}
	last := len(m.owner) - 1
	x.take(m, endCells, func(i int) bool {
		return i > last-endCells && m.owner[i] != x.c.id && !m.carriesCopy(i, 0)
	})
}

// elsewhere tells of a cell whether only another path carries it.
func (x *spare) elsewhere(m *outMsg) func(int) bool {
	id, there := uint32(0), false // cells that follow each other often have one owner
	return func(i int) bool {
		if m.carriesCopy(i, 0) {
			return false
		}
		if m.owner[i] != id {
			id = m.owner[i]
			o := x.l.set.carrier(id)
			there = o == nil || o.path != x.c.path
		}
		return there
	}
}

// late takes the first message that is not acknowledged, if it is overdue.
func (x *spare) late() {
	o := &x.ch.out
	m := o.msgs[o.received-o.done]
	rtt := x.l.ackTime(m)
	if len(x.ps) > 0 || m.left > 0 || rtt == 0 {
		return
	}
	at := m.at + overdue(rtt, m.tries)
	if m.held > 0 {
		at += stuckAfter
	}
	last := len(m.owner) - 1
	if !x.due(at) || m.owner[last] == x.c.id || m.carriesCopy(last, x.c.id) {
		return
	}
	if x.take(m, overdueCells, func(int) bool { return true }) {
		if m.since == 0 && m.held == 0 {
			m.since = m.at
		}
		m.tries++
		m.at = x.now
	}
}

// take makes chunks of the last cells of m that may be sent again, most at most.
func (x *spare) take(m *outMsg, most int, may func(int) bool) bool {
	for most > 0 {
		offset, n := m.lastSpan(min(most, frame.MaxChunk/frame.Cell), may)
		if n < 0 {
			break
		}
		f := x.ch.flow
		chunk := frame.Chunk{Channel: x.ch.id, Seq: m.seq, Total: uint32(len(m.data)), Offset: uint32(offset), Len: uint32(n)}
		size := n + chunk.HeadLen()
		if w := x.l.account.charge(f, Bulk, x.now, size); w > 0 {
			x.due(x.now + w)
			break
		}
		q := &x.l.sched.queues[Bulk]
		q.turn.join(f, Bulk, q.alone(f))
		q.turn.served(f, Bulk, size, x.l.sched.weights)
		f.copy += int64(n)
		x.l.copied += int64(n)
		m.copied(x.c.id, offset, n)
		x.ps = append(x.ps, piece{Chunk: chunk, data: m.data[offset : offset+n], flow: f, msg: m, copy: true})
		most -= cells(n)
		upTo, before := offset/frame.Cell, may
		may = func(i int) bool { return i < upTo && before(i) }
	}
	return len(x.ps) > 0
}

// lastSpan is the last cells that may be sent again and follow each other without
// a gap, most at most. n is below 0 if there are none.
func (m *outMsg) lastSpan(most int, may func(int) bool) (offset, n int) {
	able := func(i int) bool { return m.owner[i] != unsent && m.owner[i] != arrived && may(i) }
	end := len(m.owner)
	for end > 0 && !able(end-1) {
		end--
	}
	begin := end
	for begin > 0 && end-begin < most && able(begin-1) {
		begin--
	}
	if begin == end {
		return 0, -1
	}
	offset = begin * frame.Cell
	return offset, min(end*frame.Cell, len(m.data)) - offset
}

// copied marks a span as carried once more.
func (m *outMsg) copied(by uint32, offset, n int) {
	if m.second == nil {
		m.second = make([]uint32, len(m.owner))
	}
	for i := offset / frame.Cell; i < offset/frame.Cell+cells(n); i++ {
		m.second[i] = by
	}
}

// carriesCopy tells whether a connection carries a copy of a cell; 0 is for any.
func (m *outMsg) carriesCopy(i int, id uint32) bool {
	return m.second != nil && m.second[i] != 0 && (id == 0 || m.second[i] == id)
}

// forget makes the copies that others carry take the place of what a lost
// connection did, and forgets its own copies.
func (m *outMsg) forget(lost uint32) {
	for i, by := range m.second {
		switch {
		case by == lost:
			m.second[i] = 0
		case m.owner[i] == lost && by != 0:
			m.owner[i], m.second[i] = by, 0
		}
	}
}

// ackTime is the round trip of a message and its acknowledgement, which comes
// over the priority connection; 0 while it is not known. The caller holds mu.
func (l *Link) ackTime(m *outMsg) time.Duration {
	back := l.set.priority.path.rtt
	there := back
	if c := l.set.carrier(m.owner[len(m.owner)-1]); c != nil {
		there = c.path.rtt
	}
	if there == 0 || back == 0 {
		return 0
	}
	return there/2 + back/2
}

// carrier finds a connection of the set by its number; nil if it is none.
func (s *set) carrier(id uint32) *carrier {
	if s.priority.id == id {
		return s.priority
	}
	for c := range s.others {
		if c.id == id {
			return c
		}
	}
	return nil
}

// wrote notes that a stream has written what it took, and has those look who may
// have to send it again. The caller holds mu.
func (l *Link) wrote(class Class, ps []piece) {
	if class == Bulk {
		l.account.written(ps)
	}
	tail := false
	for _, p := range ps {
		if !p.copy {
			p.msg.at = time.Since(l.born)
		}
		tail = tail || p.flow.tail
	}
	if tail {
		l.sched.copiers[Bulk].work.Broadcast()
	}
	if class == Urgent && len(ps) > 0 {
		l.sched.copiers[Urgent].work.Broadcast()
	}
	free(ps)
}

// release is the end of a stream that could not write what it took.
func (l *Link) release(ps []piece) {
	l.mu.Lock()
	defer l.mu.Unlock()
	free(ps)
}

// free lets go of what a stream held. The caller holds link.mu.
func free(ps []piece) {
	for _, p := range ps {
		if !p.copy {
			p.msg.held -= cells(int(p.Len))
		}
	}
	clear(ps) // do not keep the messages alive
}
