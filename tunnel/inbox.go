package tunnel

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// memory counts message bytes that are held for one peer.
type memory struct {
	held  atomic.Int64
	twice atomic.Int64 // bytes that came although they were there
	max   int64
}

// An inbox puts the cells of messages together and the messages in order, until
// the application has consumed them.
type inbox struct {
	memory *memory

	mu       sync.Mutex // guards what follows; link.mu may be held above it
	limit    int64      // the most that we have allowed the peer to send beyond done
	advance  int64      // what it may send beyond that: it has been promised to all new channels together
	held     int64      // cost of the messages after done
	msgs     map[uint64]*inMsg
	ready    []Message // complete, in order, not yet taken
	received uint64    // all up to here are complete
	taken    uint64    // all up to here have been given out by Recv
	done     uint64    // all up to here have been consumed
	costs    []int64   // of the messages from done+1 to received
	fin      bool
	last     uint64 // with fin: seq of the last message
	told     uint64 // the done that the last ack has told
	toldFin  bool   // and whether it said that fin has come
	err      error
	changed  broadcast
}

// inMsg is a message that is not complete, or not in order.
type inMsg struct {
	data []byte
	have []bool // by cell
	left int    // missing cells
}

// A Message is one message as the peer sent it.
type Message struct {
	Seq  uint64 // 1 and up, without gaps
	Data []byte // the receiver's, see Recycle
}

func (in *inbox) init(m *memory, limit int64) {
	in.memory, in.limit = m, limit
	in.msgs = make(map[uint64]*inMsg)
}

// allow lets the peer send more.
func (in *inbox) allow(limit int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.limit = max(in.limit, limit)
}

// add puts a chunk in its place. It borrows data. progress: one more message,
// or more, can be taken.
func (in *inbox) add(c frame.Chunk, data []byte) (progress bool, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil {
		return false, nil
	}
	if c.Seq <= in.received {
		in.memory.twice.Add(int64(len(data)))
		return false, nil // late, or a duplicate
	}
	m := in.msgs[c.Seq]
	if m == nil {
		if m, err = in.begin(c); err != nil {
			return false, err
		}
	}
	if len(m.data) != int(c.Total) {
		return false, fmt.Errorf("%w: message %d had %d bytes and now has %d", errProtocol, c.Seq, len(m.data), c.Total)
	}
	first, was := int(c.Offset)/frame.Cell, m.left
	for i := first; i < first+cells(len(data)); i++ {
		if !m.have[i] {
			m.have[i] = true
			m.left--
		}
	}
	if m.left == was {
		in.memory.twice.Add(int64(len(data)))
		return false, nil
	}
	if len(data) > 0 {
		copy(m.data[c.Offset:], data)
	}
	if m.left > 0 || c.Seq != in.received+1 {
		return false, nil
	}
	for m := in.msgs[in.received+1]; m != nil && m.left == 0; m = in.msgs[in.received+1] {
		in.received++
		delete(in.msgs, in.received)
		in.ready = append(in.ready, Message{Seq: in.received, Data: m.data})
		in.costs = append(in.costs, cost(len(m.data)))
	}
	in.changed.fire()
	return true, nil
}

// begin makes room for a message whose first chunk has come.
func (in *inbox) begin(c frame.Chunk) (*inMsg, error) {
	if in.fin && c.Seq > in.last {
		return nil, fmt.Errorf("%w: message %d after the last, %d", errProtocol, c.Seq, in.last)
	}
	n := cost(int(c.Total))
	if in.held+n > max(in.limit, cost(frame.MaxMessage))+in.advance {
		return nil, fmt.Errorf("%w: a channel holds %d bytes and gets %d more, its window is %d", errProtocol, in.held, n, in.limit)
	}
	if in.memory.held.Add(n) > in.memory.max {
		in.memory.held.Add(-n)
		return nil, fmt.Errorf("%w: %d bytes of messages are held", errProtocol, in.memory.max)
	}
	in.held += n
	left := cells(int(c.Total))
	m := &inMsg{data: newBuffer(int(c.Total)), have: make([]bool, left), left: left}
	in.msgs[c.Seq] = m
	return m, nil
}

// finish notes which message is the last.
func (in *inbox) finish(last uint64) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.fin && in.last != last || last < in.received {
		return fmt.Errorf("%w: message %d is the last, after %d", errProtocol, last, in.received)
	}
	in.fin, in.last = true, last
	in.changed.fire()
	return nil
}

// fail ends the inbox at once: a reader must not take what came before an
// abort for all that there was.
func (in *inbox) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil {
		return
	}
	in.err = err
	in.memory.held.Add(-in.held)
	in.held, in.msgs, in.ready, in.costs = 0, nil, nil, nil
	in.fin = in.fin && in.taken == in.last // who has read all sees io.EOF
	in.changed.fire()
}

// consume notes that the application is done with all up to seq.
func (in *inbox) consume(seq uint64) (progress bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	seq = min(seq, in.taken)
	if in.err != nil || seq <= in.done {
		return false
	}
	var freed int64
	n := seq - in.done
	for _, c := range in.costs[:n] {
		freed += c
	}
	in.costs = in.costs[n:]
	in.held -= freed
	in.memory.held.Add(-freed)
	in.done = seq
	return true
}

// ack is what to tell the peer. It has to be sent.
func (in *inbox) ack(channel uint64) frame.Ack {
	in.mu.Lock()
	defer in.mu.Unlock()
	a := frame.Ack{Channel: channel, Received: in.received, Done: in.done, Window: uint64(in.limit)}
	if in.fin {
		a.Flags = frame.FlagFin
	}
	in.told, in.toldFin = in.done, in.fin
	return a
}

// resume is the same with what is complete out of order.
func (in *inbox) resume(channel uint64) frame.Resume {
	r := frame.Resume{Ack: in.ack(channel)}
	in.mu.Lock()
	defer in.mu.Unlock()
	r.Ranges = ranges(r.Received, in.msgs)
	return r
}

// ended tells whether all has come and has been consumed, and the peer was told.
// The application consumes without link.mu: what is done now may be more than
// what the ack of a moment ago said.
func (in *inbox) ended() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.toldFin && in.told == in.last
}

// Recv waits for the next message. After the last it returns io.EOF, if the
// peer called CloseSend. Each message is to be consumed with Done.
func (ch *Channel) Recv(ctx context.Context) (Message, error) {
	in := &ch.in
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		switch {
		case len(in.ready) > 0:
			m := in.ready[0]
			in.ready[0] = Message{}
			in.ready = in.ready[1:]
			in.taken = m.Seq
			return m, nil
		case in.fin && in.taken == in.last:
			return Message{}, io.EOF
		case in.err != nil:
			return Message{}, in.err
		case context.Cause(ctx) != nil:
			return Message{}, context.Cause(ctx)
		}
		changed := in.changed.next()
		in.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
		in.mu.Lock()
	}
}

// Done says that all messages up to seq have been consumed: the peer may forget
// them and send more. Seqs that Recv has not returned do not count.
func (ch *Channel) Done(seq uint64) {
	if !ch.in.consume(seq) {
		return
	}
	l := ch.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.channels[ch.id] == ch {
		ch.mark(needAck)
	}
}

// ranges lists the complete messages of an inbox that are out of order, above
// received, as a Resume has them.
func ranges(received uint64, msgs map[uint64]*inMsg) (rs []frame.Range) {
	var seqs []uint64
	for s, m := range msgs {
		if m.left == 0 && s > received+1 {
			seqs = append(seqs, s)
		}
	}
	slices.Sort(seqs)
	for _, s := range seqs {
		if n := len(rs); n > 0 && rs[n-1].Last+1 == s {
			rs[n-1].Last = s
		} else if n < frame.MaxRanges {
			rs = append(rs, frame.Range{First: s, Last: s})
		}
	}
	return rs
}
