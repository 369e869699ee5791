package tunnel

import (
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// An outbox holds what a channel sends until the peer has consumed it.
// Link.mu guards it.
type outbox struct {
	msgs     []*outMsg // in order, from done+1 to last
	last     uint64    // seq of the last message sent
	done     uint64    // the peer has consumed all up to here
	received uint64    // the peer has received all up to here
	unacked  int64     // cost of msgs
	pending  int64     // bytes of the messages after received
	granted  int64     // what the peer is ready to hold
	local    int64     // our own bound
	// cursor is an index into msgs: all before it have no cell to send.
	cursor   int
	early    uint64 // messages up to here need no second any more, see early.go
	fin      bool
	finAcked bool
	queued   bool      // is in its flow's ring
	moved    time.Time // when the peer last received or consumed something, or the first was sent
	changed  broadcast
}

// An outMsg is a message and who carries its cells.
type outMsg struct {
	seq   uint64
	data  []byte
	owner []uint32 // by cell: unsent, arrived, or the number of a connection
	left  int      // unsent cells
	first int      // all cells before it are not unsent
	one   [1]uint32

	// What follows is for sending it again, see again.go.
	second []uint32      // by cell: the connection that carries a copy of it, or 0; nil while none does
	held   int           // cells that streams have taken and not written yet, but for copies
	at     time.Duration // when a cell of it was last taken or written, or all of it again; the link's time
	tries  int           // how often no acknowledgement came in time
	since  time.Duration // what at was before the first time; 0: none was late, or it was taken back
}

const (
	unsent  = 0
	arrived = ^uint32(0)
)

func cost(n int) int64 { return int64(n) + messageCost }

// cells is the number of cells of a message of n bytes; an empty message has one.
func cells(n int) int { return max((n+frame.Cell-1)/frame.Cell, 1) }

// fits tells whether a message of n bytes may be sent now. When nothing waits for a
// stream any more, the oldest message does not count against our own bound: most of
// it may have arrived, and where messages are nearly as large as the bound, the line
// would be idle for a round trip and more after each.
func (o *outbox) fits(n int) bool {
	switch {
	case len(o.msgs) == 0:
		return true
	case o.unacked+cost(n) > o.granted:
		return false
	case o.unacked+cost(n) <= o.local:
		return true
	}
	return o.next() == nil && o.unacked-cost(len(o.msgs[0].data)) < o.local
}

func (o *outbox) push(data []byte) uint64 {
	if len(o.msgs) == 0 {
		o.moved = time.Now()
	}
	o.last++
	m := &outMsg{seq: o.last, data: data, left: cells(len(data))}
	if m.owner = m.one[:]; m.left > 1 {
		m.owner = make([]uint32, m.left)
	}
	o.msgs = append(o.msgs, m)
	o.unacked += cost(len(data))
	o.pending += int64(len(data))
	return o.last
}

func (o *outbox) clear() {
	o.msgs, o.unacked, o.pending, o.cursor = nil, 0, 0, 0
	o.changed.fire()
}

// next is the first message with a cell to send, or nil.
func (o *outbox) next() *outMsg {
	for ; o.cursor < len(o.msgs); o.cursor++ {
		if m := o.msgs[o.cursor]; m.left > 0 {
			return m
		}
	}
	return nil
}

// span is where the first unsent cell begins, and how many bytes the unsent
// cells have that follow it without a gap, up to most cells.
func (m *outMsg) span(most int) (offset, n int) {
	for m.owner[m.first] != unsent {
		m.first++
	}
	i := m.first
	for i < len(m.owner) && i-m.first < most && m.owner[i] == unsent {
		i++
	}
	offset = m.first * frame.Cell
	return offset, min(i*frame.Cell, len(m.data)) - offset
}

// give marks a span as carried by a connection.
func (m *outMsg) give(owner uint32, offset, n int) {
	for i := offset / frame.Cell; i < offset/frame.Cell+cells(n); i++ {
		m.owner[i] = owner
		m.left--
		m.held++
	}
}

// requeue takes back what a lost connection carried, unless the peer has it or
// another connection carries a copy.
func (o *outbox) requeue(owner uint32) {
	for i, m := range o.msgs {
		if m.seq <= o.received {
			continue
		}
		m.forget(owner)
		for c, x := range m.owner {
			if x == owner {
				m.owner[c] = unsent
				m.left++
				m.since = 0
				m.first = min(m.first, c)
				o.cursor = min(o.cursor, i)
				o.early = min(o.early, m.seq-1)
			}
		}
	}
}

// gotAll notes that the peer has the whole message.
func (m *outMsg) gotAll() {
	for i := range m.owner {
		m.owner[i] = arrived
	}
	m.left = 0
	m.second = nil
}

// ack notes what the peer says. It returns how many bytes have newly arrived
// and whether more has been consumed. What was never sent is a violation.
func (o *outbox) ack(a frame.Ack) (bytes int64, more bool, err error) {
	if a.Received > o.last || (a.Flags&frame.FlagFin != 0 && !o.fin) {
		return 0, false, errProtocol
	}
	for ; o.received < a.Received; o.received++ {
		m := o.msgs[o.received-o.done]
		bytes += int64(len(m.data))
		m.gotAll()
	}
	o.pending -= bytes
	o.granted = int64(min(a.Window, 1<<62))
	if a.Done > o.done {
		n := int(a.Done - o.done)
		for i, m := range o.msgs[:n] {
			o.unacked -= cost(len(m.data))
			o.msgs[i] = nil
		}
		o.msgs = o.msgs[n:]
		o.cursor = max(o.cursor-n, 0)
		o.done = a.Done
		more = true
	}
	o.finAcked = o.finAcked || a.Flags&frame.FlagFin != 0
	if bytes > 0 || more {
		o.moved = time.Now()
	}
	o.changed.fire()
	return bytes, more, nil
}

// skip notes what the peer has received out of order.
func (o *outbox) skip(ranges []frame.Range) {
	for _, r := range ranges {
		for s := max(r.First, o.done+1); s <= min(r.Last, o.last); s++ {
			o.msgs[s-o.done-1].gotAll()
		}
	}
}

// ended tells whether the peer has consumed all and knows that it was all.
func (o *outbox) ended() bool { return o.finAcked && o.done == o.last }
