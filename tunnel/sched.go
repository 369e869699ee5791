package tunnel

import (
	"slices"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// A scheduler says which cells a data stream carries next. Streams come for
// work when they have room, so that a slow connection takes less: striping by
// work stealing. Link.mu guards it.
type scheduler struct {
	queues [2]classQueue // by Class
	// cheapest is the cost of the cheapest path that carries bulk; mixed: there
	// are paths that cost more.
	cheapest int
	mixed    bool
	// paths is how many carry bulk.
	paths   int
	copiers [2]classQueue // the streams that carry copies of messages of each Class, see again.go
	watched []*Channel    // those of which messages may have to be sent again
	weights Weights       // of the classes of flows; none is 0
}

// A classQueue is the flows that have something to send in one class.
type classQueue struct {
	flows []*Flow
	order []*Flow    // pick's copy of flows, kept so that no chunk allocates
	turn  turn       // whose it is
	work  *sync.Cond // signalled once for each stream that might find work
	timer *time.Timer
	due   time.Duration // when timer fires, by the link's time; 0: it does not run
}

func (s *scheduler) init(mu *sync.Mutex) {
	for i := range s.queues {
		s.queues[i].work = sync.NewCond(mu)
		s.copiers[i].work = sync.NewCond(mu)
	}
}

func (s *scheduler) wakeAll() {
	for i := range s.queues {
		s.queues[i].work.Broadcast()
		s.copiers[i].work.Broadcast()
	}
}

// enter puts a channel into the ring of its flow, if it has something to send.
func (s *scheduler) enter(ch *Channel) {
	s.watch(ch)
	if ch.out.queued || ch.err != nil || ch.out.next() == nil {
		return
	}
	q, f := &s.queues[ch.class], ch.flow
	if len(f.rings[ch.class]) == 0 {
		q.turn.join(f, ch.class, q.alone(f))
		q.flows = append(q.flows, f)
	}
	ch.out.queued = true
	f.rings[ch.class] = append(f.rings[ch.class], ch)
	s.wake(q)
}

// alone tells whether no other flow of its class has something to send.
func (q *classQueue) alone(f *Flow) bool {
	return !slices.ContainsFunc(q.flows, func(o *Flow) bool { return o != f && o.class() == f.class() })
}

// wake tells one stream that there is work. When not every stream may do it, all
// of them look.
func (s *scheduler) wake(q *classQueue) {
	if s.mixed {
		q.work.Broadcast()
		return
	}
	q.work.Signal()
}

// leave takes a channel out of the ring of its flow.
func (s *scheduler) leave(ch *Channel) {
	if !ch.out.queued {
		return
	}
	ch.out.queued = false
	q, f := &s.queues[ch.class], ch.flow
	r := f.rings[ch.class]
	if i := slices.Index(r, ch); i >= 0 {
		f.rings[ch.class] = slices.Delete(r, i, i+1)
	}
	if len(f.rings[ch.class]) == 0 {
		if i := slices.Index(q.flows, f); i >= 0 {
			q.flows = slices.Delete(q.flows, i, i+1)
		}
	}
}

// A piece is a chunk to be sent. Its data borrows from the message.
type piece struct {
	frame.Chunk
	data []byte
	flow *Flow
	msg  *outMsg
	copy bool // it is on its way already
}

// batchLen bounds what one stream takes at once: with 64 KiB, headers and
// wake-ups cost little.
const batchLen = frame.MaxChunk

// batch is what a stream takes at once now: what it carries in 20 ms. What it
// has taken no other stream can carry, so that a slow connection would hold up
// the order. 16 KiB are enough work for a wake-up; but no more than 2.5 ms of
// the goodput, because the streams of a connection come for work together, and
// capped flows must get their turn in time.
func (l *Link) batch() int {
	streams := int64(dataStreams * max(len(l.set.others)-1, 1))
	least := min(max(l.good.rate/400, 4<<10), 16<<10)
	return int(min(max(l.good.rate/50/streams, least), batchLen))
}

// next waits for cells that c shall carry, puts them in place of what the stream
// has written, and marks them as c's. It returns none when c has ended.
func (l *Link) next(c *carrier, class Class, ps []piece) []piece {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrote(class, ps)
	ps = ps[:0]
	q := &l.sched.queues[class]
	for {
		if c.ended {
			return nil
		}
		if l.set == c.set && c.set.ready {
			now := time.Since(l.born)
			l.account.settle(now, l.bulkUsed())
			var wait time.Duration
			room := l.batch()
			for room > 0 {
				var p piece
				var ok bool
				if p, ok, wait = l.pick(q, c, class, now, room); !ok {
					break
				}
				ps = append(ps, p)
				room -= len(p.data) + p.HeadLen()
			}
			l.later(q, now, wait)
			if len(ps) > 0 {
				l.sched.wake(q) // there may be work for another stream
				return ps
			}
		}
		q.work.Wait()
	}
}

// later has the streams look again after wait, or earlier if that was asked for
// before: a capped flow may send then, or a message is to be sent again. 0: never.
func (l *Link) later(q *classQueue, now, wait time.Duration) {
	if wait <= 0 || q.due > now && q.due <= now+wait {
		return
	}
	q.due = now + wait
	if q.timer == nil {
		q.timer = time.AfterFunc(wait, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			q.due = 0
			if q == &l.sched.copiers[Bulk] || q == &l.sched.copiers[Urgent] { // not every one may do it
				q.work.Broadcast()
				return
			}
			l.sched.wake(q)
		})
		return
	}
	q.timer.Reset(wait)
}

// pick takes one chunk of the flow whose turn it is among those whose cap
// permits one now. When none may, wait says how long the first has to.
func (l *Link) pick(q *classQueue, c *carrier, class Class, now time.Duration, room int) (p piece, ok bool, wait time.Duration) {
	slices.SortFunc(q.flows, func(a, b *Flow) int { return q.turn.before(a, b, class) })
	q.order = append(q.order[:0], q.flows...) // front may take flows out
	defer clear(q.order)                      // hold none that has ended
	for _, f := range q.order {
		if class == Bulk && !f.all && !f.tail && c.path.conf.Cost > l.sched.cheapest {
			continue
		}
		ch, m := l.sched.front(f, class)
		if ch == nil {
			continue
		}
		most := max(room/frame.Cell, 1)
		if r := f.cap.Rate(); r > 0 {
			// 16 ms of it: less is lost when streams come rarely because others
			// fill the link, as the cap lets little be made up for at once.
			most = min(max(int(r/64/frame.Cell), 1), most)
		}
		offset, n := m.span(most)
		chunk := frame.Chunk{Channel: ch.id, Seq: m.seq, Total: uint32(len(m.data)), Offset: uint32(offset), Len: uint32(n)}
		size := n + chunk.HeadLen()
		if w := l.account.charge(f, class, now, size); w > 0 {
			if wait == 0 || w < wait {
				wait = w
			}
			continue
		}
		m.give(c.id, offset, n)
		if class == Bulk {
			f.spread(n, c.path.conf.Cost > l.sched.cheapest)
		}
		p = piece{Chunk: chunk, data: m.data[offset : offset+n], flow: f, msg: m}
		m.at = now
		q.turn.served(f, class, size, l.sched.weights)
		l.sched.rotate(ch, class)
		return p, true, 0
	}
	return piece{}, false, wait
}

// front is the first channel of the flow that may send, and its message. It
// takes channels out that have no more to send.
func (s *scheduler) front(f *Flow, class Class) (*Channel, *outMsg) {
	for range len(f.rings[class]) {
		ch := f.rings[class][0]
		m := ch.out.next()
		if m != nil && ch.openSent {
			return ch, m
		}
		s.rotate(ch, class)
	}
	return nil, nil
}

// rotate puts a channel that was served last, or out when it has no more.
func (s *scheduler) rotate(ch *Channel, class Class) {
	if ch.out.next() == nil {
		s.leave(ch)
		ch.out.changed.fire() // one more may fit
		return
	}
	r := ch.flow.rings[class]
	copy(r, r[1:])
	r[len(r)-1] = ch
}

// requeue takes back what a lost connection carried. The caller holds mu.
func (l *Link) requeue(c *carrier) {
	for _, ch := range l.channels {
		ch.out.requeue(c.id)
		l.sched.enter(ch)
	}
}
