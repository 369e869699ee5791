package tunnel

import (
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

const (
	// growRTT is the round trip below which NewReno recovers from a loss fast
	// enough, so that more connections gain nothing.
	growRTT = 5 * time.Millisecond
	// growPause between steps: handshakes and slow start of what was added.
	growPause = time.Second
	// firstWindow is what a connection may send at first, in packets of
	// fullPacket bytes on the wire (quic-go, initialCongestionWindow).
	firstWindow = 32
	fullPacket  = largePacket + overhead4
)

// growth decides how many bulk connections a link with NewReno has. It only grows: a
// connection costs little, and the next move needs it again.
type growth struct {
	want  int
	told  int       // what the end that dials has been asked for
	at    time.Time // when it was last looked at
	lost  uint64    // packets lost until then
	used  int64     // bytes on the wire by chunks until then
	pause time.Time // no step before
}

// fit makes the number of connections fit the line: so many that they fill the
// cap by slow start within two round trips. The caller holds mu.
func (l *Link) fit() {
	rate, rtt := l.bucket.Rate(), l.set.priority.conn.ConnectionStats().MinRTT
	if l.node.cfg.Conns != 0 || rate == 0 || rtt < growRTT || !l.stock() {
		return
	}
	packets := int64(rtt.Seconds()*float64(rate)) / fullPacket
	l.grow.ask(int(min(packets/(2*firstWindow), maxConns)))
	l.grown()
}

// grown has what is missing dialed, by whichever end dials. The caller holds mu.
func (l *Link) grown() {
	if l.set.dialed {
		poke(l.wake)
	} else if l.grow.want > l.grow.told {
		poke(l.set.priority.wake)
	}
}

// ask notes that n connections are needed.
func (g *growth) ask(n int) { g.want = min(max(g.want, n), maxConns) }

// compose appends what the end that dials needs to know.
func (g *growth) compose(b []byte, dialed bool) []byte {
	if dialed || g.want <= g.told {
		return b
	}
	g.told = g.want
	return frame.Grow{Conns: uint8(g.want)}.Append(b)
}

// measure settles what has been sent since it last did. The caller holds mu.
func (l *Link) measure(now time.Time) {
	used := l.bulkUsed()
	sent := used - l.grow.used
	l.grow.used = used
	var pending int64
	for _, ch := range l.channels {
		if ch.class == Bulk {
			pending += ch.out.pending
		}
	}
	if l.set == nil {
		l.good.tick(now, sent, pending)
		return
	}
	g := &l.grow
	all, slack := l.lossy()
	lost := all - min(g.lost, all) // less than before when a connection has ended
	l.good.tick(now, sent-int64(lost)*fullPacket, pending)
	full := l.bucket.Rate() > 0 && float64(sent)/now.Sub(g.at).Seconds() > 0.9*float64(l.bucket.Rate())
	g.at, g.lost = now, all
	if l.node.cfg.Conns == 0 && l.set.ready && l.stock() {
		l.fit()
		if lost > 0 && slack && !full && l.sched.backlog(now.Sub(l.born)) {
			g.step(now)
			l.grown()
		}
	}
}

// lossy counts packets lost by the bulk connections. slack: no queue stands in
// front of the line, so that losses and not the line limit what they send.
func (l *Link) lossy() (lost uint64, slack bool) {
	var least, smooth time.Duration
	var n int
	for _, c := range l.set.all() {
		if c.role == frame.Bulk {
			s := c.conn.ConnectionStats()
			its, _ := c.lossCount()
			lost += its
			least += s.MinRTT
			smooth += s.SmoothedRTT
			n++
		}
	}
	if n == 0 || least/time.Duration(n) < growRTT {
		return lost, false
	}
	return lost, smooth < least+least/4
}

// backlog tells whether bulk waits that no cap of a flow holds back.
func (s *scheduler) backlog(now time.Duration) bool {
	for _, f := range s.queues[Bulk].flows {
		if f.cap.Take(now, shaper.Bulk, 0) == 0 {
			return true
		}
	}
	return false
}

// step doubles the connections.
func (g *growth) step(now time.Time) {
	if g.want < maxConns && !now.Before(g.pause) {
		g.ask(2 * g.want)
		g.pause = now.Add(growPause)
	}
}
