package tunnel

import (
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// A short urgent message, such as the request for a page that a VM stands still for,
// is sent twice while its line loses packets. A loss would else hold up the message,
// and all that its channel sends within a round trip after it, until QUIC has found it
// and has sent it again: 1.2 round trips. The second goes a little later over a bulk
// connection, on another path if there are two, and is a copy like any other
// (again.go): the far end drops what it has. There are none where nothing has been
// lost for lossMemory, and none over TCP, where the kernel alone sees losses.
const (
	// shortMessage is the most bytes of a message that is sent twice: it fits into
	// what is left of a packet, or into one of its own.
	shortMessage = 1 << 10
	// apart of the round trip is how much later the second goes, leastApart at least:
	// a burst of losses has passed, and what was sent meanwhile goes along. Over the
	// path of the first it waits twice as long, so that another path comes before it.
	apart      = 16
	leastApart = 2 * time.Millisecond
	// detour is how many round trips of the first's path one of another may take. By a
	// longer one the second would come when QUIC has sent the first again.
	detour = 2
	// lossMemory is long because a loss is seldom seen where little is sent, as in the
	// direction in which pages are asked for.
	lossMemory = time.Minute
	// earlyShare of what a line carries may be copies, and earlyDepth of that at once:
	// 4 ms of the line. Messages beyond it are sent once.
	earlyShare = 64
	earlyDepth = 250 * time.Millisecond
	// leastLine in bytes per second is what a line carries of which we know no more:
	// 10 Mbit/s. Who has little to send learns no rate.
	leastLine = 1_250_000
	// ownPacket in bytes is what a copy costs beside its chunk where nothing goes along.
	ownPacket = overhead4 + 40
)

// early takes the short messages that have waited long enough.
func (x *spare) early() {
	s, o := x.l.set, &x.ch.out
	if s.via == TCP || x.now >= s.priority.path.loss.until {
		return
	}
	for o.early = max(o.early, o.received); o.early < o.last; o.early++ {
		m := o.msgs[o.early-o.done]
		switch {
		case m.left > 0 || m.held > 0:
			return // the stream that writes it has us look again
		case len(m.data) > shortMessage || m.owner[0] == arrived || m.carriesCopy(0, 0):
			continue
		case !x.mayFollow(m):
			return
		case !x.c.path.loss.room(x.now):
			if x.roomElsewhere(m) {
				return // that path takes it
			}
			continue
		}
		if n := len(x.ps); !x.take(m, 1, func(int) bool { return true }) || len(x.ps) == n {
			return // its flow has to wait
		}
		x.c.path.loss.charge(len(m.data) + ownPacket)
	}
}

// mayFollow tells whether this connection may carry a short message after the one
// that does, and whether it is time; it notes how long it is until then.
func (x *spare) mayFollow(m *outMsg) bool {
	first, p := x.l.set.carrier(m.owner[0]), x.c.path
	if first == nil || !x.l.sched.leads(x.c, first) {
		return false
	}
	pause := max(first.path.rtt/apart, leastApart)
	if p == first.path && x.l.sched.paths > 1 {
		pause *= 2
	}
	return x.due(m.at + pause)
}

// leads tells whether a connection may carry copies of what first carries.
func (s *scheduler) leads(c, first *carrier) bool {
	return c != first && c.path.conf.Cost <= s.cheapest && c.path.rtt <= detour*first.path.rtt
}

// roomElsewhere tells whether another path has room for a copy of a message: sooner
// or, if it is the first's own, a little later.
func (x *spare) roomElsewhere(m *outMsg) bool {
	first := x.l.set.carrier(m.owner[0])
	for c := range x.l.set.others {
		if c.role == frame.Bulk && !c.ended && c.path != x.c.path && x.l.sched.leads(c, first) && c.path.loss.room(x.now) {
			return true
		}
	}
	return false
}

// losses is what a path loses, and what may be sent twice for it. Times are the
// link's. Link.mu guards it.
type losses struct {
	count uint64        // packets lost by the connections in use
	until time.Duration // until when it is a path that loses packets
	// share is what copies may use, bytes per second on the wire; level is what they
	// may use now, as of at. Below 0 is a debt.
	share, level float64
	at           time.Duration
}

// room tells whether a copy may be sent now; charge notes that one of n bytes on the
// wire is.
func (s *losses) room(now time.Duration) bool {
	most := s.share * earlyDepth.Seconds()
	s.level = min(s.level+s.share*(now-s.at).Seconds(), most)
	s.at = now
	return s.level > 0
}

func (s *losses) charge(n int) { s.level -= float64(n) }

// note is told how many packets the connections in use have lost.
func (s *losses) note(now time.Duration, count uint64) {
	if count > s.count {
		s.seen(now)
	}
	s.count = count // less than before when a connection has ended
}

// seen notes a loss.
func (s *losses) seen(now time.Duration) { s.until = now + lossMemory }

// lateTold notes the loss of which the acknowledgement of a short message tells that
// was overdue, before it is acted on: QUIC does not count the last packet of a burst,
// of which it knows by a timer only. What a queue holds up is overdue, too; but then
// QUIC's packets on the path take as long, on one connection or another. What was lost,
// or its acknowledgement, took 1.25 round trips until it was sent again, and one more.
// The caller holds mu.
func (l *Link) lateTold(ch *Channel, received uint64) {
	o := &ch.out
	if ch.class != Urgent || received <= o.received || o.received >= o.last || l.set == nil || l.set.via == TCP {
		return
	}
	m := o.msgs[o.received-o.done]
	first := l.set.carrier(m.owner[0])
	if m.since == 0 || first == nil || len(m.data) > shortMessage {
		return
	}
	var rtt time.Duration
	for _, c := range l.set.all() {
		if c.path == first.path {
			rtt = max(rtt, c.conn.ConnectionStats().LatestRTT)
		}
	}
	if now := time.Since(l.born); now-m.since > rtt*7/4+leastEnd {
		first.path.loss.seen(now)
	}
}

// noteLosses looks what paths lose and carry. The caller holds mu.
func (l *Link) noteLosses(now time.Duration) {
	if l.set == nil || l.set.via == TCP {
		return
	}
	lost := make(map[*path]uint64)
	for _, c := range l.set.all() {
		n, _ := c.lossCount()
		lost[c.path] += n
	}
	for p, n := range lost {
		p.loss.note(now, n)
		line := p.model.State()
		rate := line.Rate
		if rate == 0 {
			rate = max(line.Bandwidth, leastLine)
		}
		p.loss.share = float64(rate) / earlyShare
	}
}
