package tunnel

import (
	"math"
	"time"
)

// When the MTU of a path shrinks without a word, packets that are larger vanish and the path
// is well otherwise. Bulk stands still then: QUIC goes on sending large packets, each time
// after twice as long. Pings of full size (carrier.go) need 20 s to tell, because on a thin
// line whose queue is full their answers may; what is acknowledged tells it sooner.
//
// While large packets leave and none is acknowledged, small pings follow them. One that is
// answered at once, while of the large packets that had left before it none has been
// acknowledged even then, is a lost round. What loses packets whatever their size is no reason
// for several of them: an outage makes one as it ends, and when packets are lost at random, so
// many large ones do not vanish together. Nor is a queue that has room for small packets only:
// pings wait in it. (One that has room for one large packet may be taken for a hole; small
// packets pass it better indeed.)
const (
	lostRounds = 3
	// lostLarge packets have left in the lost rounds, at least: where a fifth of all
	// packets is lost, so many are once in 400 000 times.
	lostLarge = 8
	// leastHole is how long all of them must have vanished, and twice as long as what is
	// under way takes to leave.
	leastHole = time.Second
	// thinRate, in bytes per second: where less is permitted large packets wait at our own
	// socket for seconds, and pings do not.
	thinRate = 250_000
	// answerSlack, and a quarter of the least round trip, is what the answer to a ping may
	// take beside that where no queue stands.
	answerSlack = 25 * time.Millisecond
)

// A hole is what is known of a path's large packets. Link.mu guards it. Times are since the
// link was made, 0 for never.
type hole struct {
	epoch  int64         // of the path's model
	since  time.Duration // when large packets were first seen to have left without an answer
	nonce  uint64        // of the last small ping
	asked  time.Duration // when it was sent; 0: its round is over
	heard  time.Duration // when it was answered
	before int64         // large packets that had left before that
	rounds int           // that were lost
	lost   int64         // large packets that had left before the ping of the last of them
}

// look tells whether large packets vanish, or else whether a small ping is to be sent. left
// large packets have left in this epoch; rtt is the path's least round trip.
func (h *hole) look(now, rtt time.Duration, left, epoch int64) (found, ask bool) {
	if epoch != h.epoch || left == 0 {
		*h = hole{epoch: epoch, nonce: h.nonce}
		return false, false
	}
	if h.since == 0 {
		h.since = now
	}
	within := rtt + rtt/4 + answerSlack
	switch {
	case h.asked == 0:
	case h.heard == 0 && now-h.asked > within, h.heard-h.asked > within:
		h.asked = 0
	case h.heard != 0 && now-h.heard >= watchEvery: // acknowledgements may come a little later
		h.rounds, h.lost, h.asked = h.rounds+1, h.before, 0
	}
	if h.rounds >= lostRounds && h.lost >= lostLarge && now-h.since >= leastHole {
		return true, false
	}
	if h.asked == 0 && left > h.lost && now-h.since >= rtt {
		h.nonce++
		h.asked, h.heard, h.before = now, 0, left
		return false, true
	}
	return false, false
}

// answered notes the answer to a small ping.
func (h *hole) answered(nonce uint64, now time.Duration) {
	if nonce == h.nonce && h.heard == 0 {
		h.heard = now
	}
}

// smallNonce and what it has been added to is the nonce of small pings.
const smallNonce = 1 << 62

// watchLarge finds out whether the path's MTU has shrunk, and begins anew with small packets
// if so. The caller holds mu.
func (l *Link) watchLarge(p *path, first *carrier, now time.Time) {
	left, epoch := p.model.Unheard()
	m := p.model.State()
	if lower(l.bucket.Rate(), m.Rate) < thinRate {
		left = 0
	}
	at, leaves := now.Sub(l.born), time.Duration(float64(m.InFlight)/float64(max(m.Pace, 1))*float64(time.Second))
	switch found, ask := p.hole.look(at, m.RTT, left, epoch); {
	case found && at-p.hole.since >= 2*leaves:
		l.shrunk(p)
	case ask:
		first.ask(smallNonce + p.hole.nonce)
	}
}

// lower is the lower of two rates, of which 0 is none.
func lower(a, b int64) int64 {
	if a == 0 {
		a = math.MaxInt64
	}
	if b == 0 {
		b = math.MaxInt64
	}
	return min(a, b)
}

// shrunk ends the connections over a path whose MTU is less than it was; at both ends those
// that come after them begin with small packets (lost). The caller holds mu.
func (l *Link) shrunk(p *path) {
	s := l.set
	p.small, p.hole = time.Now().Add(smallFor), hole{nonce: p.hole.nonce}
	l.node.log.Warn("large packets are not answered, the path's MTU may have shrunk",
		"site", l.site, "path", p.name, "peer", s.first(p).conn.RemoteAddr().String())
	for _, c := range s.all() {
		if c.path == p {
			c.end(errNoPong, codeNoPong)
		}
	}
	if s.priority.path == p {
		l.blame(errNoPong, s.addr)
		l.drop(errNoPong, codeDead)
		return
	}
	l.reckonCost()
}
