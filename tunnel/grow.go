package tunnel

import (
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

const (
	// startFactor is the bytes on the wire for each byte of chunks while none
	// have been measured: 1494 for the about 1410 that a packet carries.
	startFactor = 1.06
	// goodputOver is the time over which goodput is smoothed.
	goodputOver = 2 * time.Second
	// measureEvery is how often losses and goodput are looked at; several round
	// trips of any line.
	measureEvery = time.Second
	// growRTT is the round trip below which NewReno recovers from a loss fast
	// enough, so that more connections gain nothing.
	growRTT = 5 * time.Millisecond
	// growPause between steps: slow start takes about ten round trips.
	growPause = 2 * time.Second
)

// A rateMeter smooths a rate. The zero value works.
type rateMeter struct {
	rate  int64 // bytes per second
	bytes int64 // since the last tick
	at    time.Time
	exact float64
}

func (m *rateMeter) add(n int64) { m.bytes += n }

// tick takes in what has come since the last one: an exponential average.
func (m *rateMeter) tick(now time.Time) {
	if past := now.Sub(m.at).Seconds(); past > 0 {
		weight := min(past/goodputOver.Seconds(), 1)
		m.exact += weight * (float64(m.bytes)/past - m.exact)
	}
	m.rate, m.bytes, m.at = int64(m.exact), 0, now
}

// growth decides how many bulk connections a link has.
type growth struct {
	want    int
	at      time.Time // when it was last looked at
	lost    uint64    // packets lost until then
	payload int64     // bytes of chunks given to streams until then
	wire    int64     // bytes of bulk on the wire until then
	pause   time.Time // no step before
}

// measure looks at the last second. The caller holds mu.
func (l *Link) measure(now time.Time) {
	g := &l.grow
	if now.Sub(g.at) < measureEvery || !l.set.ready {
		return
	}
	past := now.Sub(g.at).Seconds()
	g.at = now
	wire := l.wire[shaper.Bulk].sent.Load()
	l.learnFactor(wire-g.wire, l.payload-g.payload)
	full := l.bucket.Rate() > 0 && float64(wire-g.wire)/past > 0.9*float64(l.bucket.Rate())
	g.wire, g.payload = wire, l.payload

	lost, slack := l.lossy()
	lossy := lost > g.lost
	g.lost = lost
	if l.node.cfg.Conns == 0 && l.set.dialed && lossy && slack && !full && l.sched.backlog() {
		g.step(now)
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
			lost += s.PacketsLost
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

// backlog tells whether bulk waits that no cap holds back.
func (s *scheduler) backlog() bool {
	for _, f := range s.queues[Bulk].flows {
		if f.cap.Rate() == 0 {
			return true
		}
	}
	return false
}

// step adds half as many connections as there are.
func (g *growth) step(now time.Time) {
	if g.want >= maxConns || now.Before(g.pause) {
		return
	}
	g.want = min(g.want+max(g.want/2, 1), maxConns)
	g.pause = now.Add(growPause)
}

// learnFactor follows what packets and retransmissions add to chunks.
func (l *Link) learnFactor(wire, payload int64) {
	// Under 256 KiB a second, pings would count for too much.
	if payload < 256<<10 {
		return
	}
	f := min(max(float64(wire)/float64(payload), 1.03), 1.5)
	l.factor += (f - l.factor) / 2
}
