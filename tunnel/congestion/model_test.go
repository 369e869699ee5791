package congestion

import (
	"fmt"
	"testing"
	"time"
)

const mbit = 1_000_000 / 8

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// A cell is a line, and what is known of it.
type cell struct {
	rate       int64   // Mbit/s
	rtt        int     // ms
	queue      float64 // in rate x RTT
	loss       float64
	burst      float64
	stall      int // ms
	configured bool
}

func (c cell) line() line {
	l := line{rate: c.rate * mbit, delay: ms(c.rtt) / 2, loss: c.loss, burst: c.burst, stall: ms(c.stall)}
	l.queue = int64(c.queue * float64(l.rate) * ms(c.rtt).Seconds())
	return l
}

func (c cell) path() *Path {
	if c.configured {
		return New(c.rate * mbit)
	}
	return New(0)
}

// share is bytes in d as a part of what the line carries.
func (s *sim) share(bytes int64, d time.Duration) float64 {
	return float64(bytes) / d.Seconds() / float64(s.line.rate)
}

// TestLines is one path alone on lines of all kinds: what arrives from a cold
// start, how soon the line is full, what a queue loses, and how long the queue is.
func TestLines(t *testing.T) {
	long(t)
	for _, tt := range []struct {
		cell
		cold, steady float64       // least share of the line over 5 s and over the last 3
		t90          time.Duration // most until 90 % over 100 ms
		waste        float64       // most share of packets dropped by the queue
		queue        time.Duration // longest mean
	}{
		{cell{100, 50, 0.5, 0, 0, 0, false}, 0.95, 0.99, ms(400), 0.01, ms(5)},
		{cell{100, 50, 0.5, 0.001, 0, 0, false}, 0.95, 0.99, ms(400), 0.01, ms(5)},
		{cell{100, 50, 0.5, 0.01, 0, 0, false}, 0.94, 0.97, ms(400), 0.01, ms(5)},
		{cell{100, 50, 0.5, 0.01, 10, 0, false}, 0.91, 0.93, ms(400), 0.01, ms(5)},
		{cell{100, 50, 0.5, 0.03, 0, 0, false}, 0.85, 0.88, ms(400), 0.01, ms(5)},
		{cell{100, 50, 0.1, 0, 0, 0, false}, 0.95, 0.98, ms(500), 0.02, ms(5)},
		{cell{100, 50, 2, 0, 0, 0, false}, 0.95, 0.99, ms(400), 0, ms(6)},
		{cell{100, 50, 0.5, 0.001, 0, 15, false}, 0.93, 0.97, ms(500), 0.01, ms(5)},
		{cell{300, 100, 0.5, 0.001, 0, 0, false}, 0.85, 0.98, ms(1000), 0.015, ms(15)},
		{cell{200, 2, 1, 0, 0, 0, false}, 0.97, 0.98, ms(200), 0.01, ms(2)},
		{cell{10, 200, 1, 0.001, 0, 0, false}, 0.87, 0.96, ms(600), 0.01, ms(40)},
		{cell{1, 100, 2, 0, 0, 0, false}, 0.75, 0.80, ms(400), 0.3, ms(150)}, // the first window is 17 times what it holds
		{cell{100, 50, 0.5, 0, 0, 0, true}, 0.97, 0.99, ms(200), 0, ms(1)},
		{cell{100, 50, 0.5, 0.01, 0, 0, true}, 0.96, 0.98, ms(200), 0, ms(1)},
		{cell{100, 50, 0.5, 0.01, 10, 15, true}, 0.94, 0.97, ms(300), 0, ms(2)},
		{cell{300, 100, 0.2, 0.001, 0, 0, true}, 0.96, 0.99, ms(200), 0, ms(1)},
	} {
		t.Run(fmt.Sprintf("%+v", tt.cell), func(t *testing.T) {
			s := newSim(tt.line(), *seed)
			cs := group(s, tt.path(), 4)
			var t90 time.Duration
			var before, at2 int64
			for s.now < 5*time.Second {
				s.run(ms(100))
				if t90 == 0 && s.share(total(cs)-before, ms(100)) >= 0.9*(1-tt.loss) {
					t90 = s.now
				}
				before = total(cs)
				if s.now == 2*time.Second {
					at2 = before
				}
			}
			cold, steady := s.share(before, 5*time.Second), s.share(before-at2, 3*time.Second)
			waste, queue := float64(s.dropped)/float64(s.queued), s.queueSum/time.Duration(s.queued)
			t.Logf("cold %.3f, steady %.3f, 90 %% after %v, wasted %.4f, mean queue %v", cold, steady, t90, waste, queue)
			if cold < tt.cold || steady < tt.steady || t90 == 0 || t90 > tt.t90 || waste > tt.waste || queue > tt.queue {
				t.Errorf("seed %d: want %.3f, %.3f, %v, %.4f, %v", *seed, tt.cold, tt.steady, tt.t90, tt.waste, tt.queue)
			}
		})
	}
}

// TestFairness is a path and a CUBIC flow on one line for a minute, in every
// order of coming: the path takes between 0.4 and 2 times a fair share.
func TestFairness(t *testing.T) {
	long(t)
	for _, c := range []cell{
		{40, 50, 0.2, 0, 0, 0, false}, {40, 50, 0.5, 0, 0, 0, false}, {40, 50, 1, 0, 0, 0, false},
		{40, 50, 2, 0, 0, 0, false}, {40, 20, 1, 0, 0, 0, false}, {20, 100, 1, 0, 0, 0, false},
	} {
		for _, first := range []string{"cubic", "path", "nobody"} {
			t.Run(fmt.Sprintf("%dMbit,%dms,queue=%v,first=%s", c.rate, c.rtt, c.queue, first), func(t *testing.T) {
				s := newSim(c.line(), *seed)
				var rival *cubic
				if first == "cubic" {
					rival = newCubic(s)
					s.run(10 * time.Second)
				}
				cs := group(s, New(0), 4)
				if first == "path" {
					s.run(10 * time.Second)
				}
				if rival == nil {
					rival = newCubic(s)
				}
				ours, theirs := total(cs), rival.delivered
				s.run(time.Minute)
				ours, theirs = total(cs)-ours, rival.delivered-theirs
				fair, used := 2*float64(ours)/float64(ours+theirs), s.share(ours+theirs, time.Minute)
				t.Logf("%.2f of a fair share; both use %.3f of the line", fair, used)
				if fair < 0.4 || fair > 2 || used < 0.9 {
					t.Errorf("seed %d: %.2f of a fair share, line used %.3f", *seed, fair, used)
				}
			})
		}
	}
}

// TestTwoPaths: two of us do not starve each other, whoever was first.
func TestTwoPaths(t *testing.T) {
	c := cell{50, 50, 1, 0, 0, 0, false}
	s := newSim(c.line(), *seed)
	first := group(s, New(0), 4)
	s.run(5 * time.Second)
	second := group(s, New(0), 4)
	s.run(15 * time.Second)
	a, b := total(first), total(second)
	s.run(30 * time.Second)
	x, y := s.share(total(first)-a, 30*time.Second), s.share(total(second)-b, 30*time.Second)
	if min(x, y) < 0.2 || x+y < 0.95 {
		t.Errorf("seed %d: the first has %.2f of the line, the second %.2f", *seed, x, y)
	}
}

// TestChanges: a line becomes slower, faster, longer, and worse, and the path
// follows; with a configured rate it never exceeds that.
func TestChanges(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*line)
		within time.Duration // until it is used again
		least  float64       // share of the line in the second after that
		queue  time.Duration // most in the queue then
	}{
		{"a quarter", func(l *line) { l.rate /= 4 }, 4 * time.Second, 0.95, ms(30)},
		{"fourfold", func(l *line) { l.rate *= 4 }, 4 * time.Second, 0.9, ms(45)},
		{"longer", func(l *line) { l.delay *= 3 }, 14 * time.Second, 0.9, ms(60)},
		{"lossy", func(l *line) { l.loss = 0.04 }, 2 * time.Second, 0.85, ms(30)},
		{"very lossy", func(l *line) { l.loss = 0.1 }, 10 * time.Second, 0.6, ms(30)},
		{"small queue", func(l *line) { l.queue /= 20 }, 3 * time.Second, 0.9, ms(6)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(cell{80, 50, 1, 0, 0, 0, false}.line(), *seed)
			cs := group(s, New(0), 4)
			s.run(3 * time.Second)
			tt.change(&s.line)
			s.run(tt.within)
			before := total(cs)
			s.queueSum, s.queued = 0, 0
			s.run(time.Second)
			got, queue := s.share(total(cs)-before, time.Second), s.queueSum/time.Duration(s.queued)
			t.Logf("%.3f of the line, mean queue %v", got, queue)
			if got < tt.least || queue > tt.queue {
				t.Errorf("seed %d: %.3f of the line, mean queue %v; want %.3f, %v", *seed, got, queue, tt.least, tt.queue)
			}
		})
	}
}

// TestConfiguredTooHigh: a rate that the line does not have costs one round of
// losses; when the line gets it, it is used.
func TestConfiguredTooHigh(t *testing.T) {
	s := newSim(cell{40, 50, 1, 0.001, 0, 0, false}.line(), *seed)
	p := New(80 * mbit)
	cs := group(s, p, 4)
	s.run(time.Second)
	before, dropped := total(cs), s.dropped
	s.run(4 * time.Second)
	got := s.share(total(cs)-before, 4*time.Second)
	if got < 0.95 || dropped > 1500 || s.dropped-dropped > 200 {
		t.Errorf("seed %d: %.3f of the line; %d packets dropped in the first second, %d after it", *seed, got, dropped, s.dropped-dropped)
	}
	s.line.rate = 160 * mbit
	s.run(4 * time.Second)
	before = total(cs)
	s.run(time.Second)
	if got := float64(total(cs)-before) / (80 * mbit); got < 0.97 || got > 1 {
		t.Errorf("seed %d: %.3f of the rate when the line has more", *seed, got)
	}
}

// TestRateChanges: a new rate counts at once, in both directions, and so does
// the end of one.
func TestRateChanges(t *testing.T) {
	s := newSim(cell{100, 50, 1, 0, 0, 0, false}.line(), *seed)
	p := New(20 * mbit)
	cs := group(s, p, 4)
	for _, tt := range []struct{ rate, want float64 }{{20, 20}, {50, 50}, {10, 10}, {0, 100}, {30, 30}} {
		p.SetRate(int64(tt.rate * mbit))
		s.run(time.Second)
		if tt.rate == 0 {
			s.run(3 * time.Second)
		}
		before := total(cs)
		s.run(time.Second)
		if got := float64(total(cs)-before) / mbit; got < 0.97*tt.want || got > 1.003*tt.want {
			t.Errorf("rate %v Mbit: %.1f Mbit arrive, want %v", tt.rate, got, tt.want)
		}
	}
}

// TestTrickle: a sender with little to send learns nothing wrong, and fills
// the line soon when it has more.
func TestTrickle(t *testing.T) {
	for _, rtt := range []int{1, 50} {
		s := newSim(cell{100, rtt, 1, 0, 0, 0, false}.line(), *seed)
		p := New(0)
		x := newConn(s, p, Bulk)
		for range 100 {
			x.left += 1 + max(-x.left, 0) // the first makes -1 to 1
			x.try()
			s.run(ms(50))
		}
		x.left = -1
		x.try()
		s.run(time.Second)
		before := x.delivered
		s.run(time.Second)
		if got := s.share(x.delivered-before, time.Second); got < 0.95 {
			t.Errorf("RTT %d ms: %.3f of the line after a trickle; %+v", rtt, got, p.State())
		}
	}
}

// TestLateAcks: a receiver that acknowledges single packets late does not end
// startup; the first bulk after them has the line soon.
func TestLateAcks(t *testing.T) {
	for _, gap := range []int{1, 5, 20, 100} {
		s := newSim(cell{200, 100, 1, 0, 0, 0, false}.line(), *seed)
		p := New(0)
		x := newConn(s, p, Priority)
		x.left = 0
		x.ackDelay = ms(25)
		for range 2000 / gap {
			x.left++
			x.try()
			s.run(ms(gap))
		}
		if st := p.State(); st.Phase != "startup" {
			t.Errorf("a packet each %d ms: %+v", gap, st)
		}
		cs := group(s, p, 4)
		s.run(2 * time.Second)
		if got := s.share(total(cs), 2*time.Second); got < 0.75 {
			t.Errorf("a packet each %d ms, then bulk: %.3f of the line in 2 s; %+v", gap, got, p.State())
		}
	}
}

// TestThinLine: where a packet takes milliseconds, and receivers acknowledge late,
// the line is used all the same, whether its RTT is known, as after a handshake, or
// not.
func TestThinLine(t *testing.T) {
	for _, c := range []cell{
		{4, 20, 2, 0, 0, 0, false}, {4, 20, 2, 0, 0, 0, true}, {8, 20, 1, 0, 0, 0, false}, {8, 20, 1, 0, 0, 0, true}, {8, 100, 1, 0, 0, 0, true},
		{1, 20, 2, 0, 0, 0, false}, {1, 100, 2, 0, 0, 0, false}, {1, 300, 1, 0, 0, 0, false}, {2, 20, 1, 0, 0, 0, false}, {2, 100, 1, 0, 0, 0, false}, {5, 20, 2, 0, 0, 0, false},
	} {
		for _, cold := range []bool{true, false} {
			s := newSim(c.line(), *seed)
			p := c.path()
			if !cold {
				warm := newConn(s, p, Priority)
				warm.left = 2
				warm.ackDelay = maxAckDelay
				warm.try()
				s.run(time.Second)
			}
			cs := group(s, p, 4)
			for _, x := range cs {
				x.ackDelay = maxAckDelay
			}
			s.run(5 * time.Second)
			before := total(cs)
			s.run(30 * time.Second)
			least := 0.95
			if c.rate <= 2 && c.rtt == 20 { // three or four packets fill it, and its queue
				least = 0.88
			}
			if got := s.share(total(cs)-before, 30*time.Second); got < least {
				t.Errorf("%+v, cold %v: %.3f of the line; %+v", c, cold, got, p.State())
			}
		}
	}
}

// TestPriority: what is urgent passes the bulk of its own path, in the sender
// and, with a configured rate, in the network.
func TestPriority(t *testing.T) {
	for _, tt := range []struct {
		configured bool
		most       time.Duration
	}{{true, ms(52)}, {false, ms(50 + 30)}} {
		s := newSim(cell{100, 50, 1, 0, 0, 0, false}.line(), *seed)
		p := cell{100, 50, 1, 0, 0, 0, tt.configured}.path()
		group(s, p, 4)
		x := newConn(s, p, Priority)
		x.left = 0
		s.run(2 * time.Second)
		var worst time.Duration
		for range 100 {
			began := s.now
			x.left = 1
			x.try()
			s.run(ms(200))
			if x.left != 0 || x.inFlight() != 0 {
				t.Fatalf("not acknowledged after 200 ms")
			}
			worst = max(worst, x.done-began)
		}
		if worst > tt.most {
			t.Errorf("configured %v: %v for an urgent packet, want at most %v", tt.configured, worst, tt.most)
		}
	}
}

// TestPriorityIsCharged: bulk leaves room for what is urgent, and both together
// keep to the rate.
func TestPriorityIsCharged(t *testing.T) {
	s := newSim(cell{200, 50, 1, 0, 0, 0, false}.line(), *seed)
	p := New(100 * mbit)
	bulk := group(s, p, 4)
	x := newConn(s, p, Priority)
	x.left = 0
	for range 200 {
		x.left += 21 // about 50 Mbit/s
		x.try()
		s.run(ms(5))
	}
	before, urgent := total(bulk), x.delivered
	for range 400 {
		x.left += 21
		x.try()
		s.run(ms(5))
	}
	b, u := float64(total(bulk)-before)/2/mbit, float64(x.delivered-urgent)/2/mbit
	if u < 48 || b < 45 || b+u > 100.5 {
		t.Errorf("urgent %.1f Mbit/s of 50, bulk %.1f, rate 100", u, b)
	}
}

// TestBlackout: while nothing arrives little is sent, and afterwards the line
// is used again without a new start.
func TestBlackout(t *testing.T) {
	s := newSim(cell{80, 50, 1, 0, 0, 0, false}.line(), *seed)
	p := New(0)
	cs := group(s, p, 4)
	s.run(2 * time.Second)
	s.line.loss = 1
	s.run(time.Second)
	if st := p.State(); st.InFlight > st.Window+4*2*simPacket {
		t.Errorf("%d bytes in flight, window %d", st.InFlight, st.Window)
	}
	s.line.loss = 0
	for _, c := range cs { // quic-go's probes: two packets each, whatever the window says
		c.send()
		c.send()
		c.send()
		c.send()
	}
	s.run(2 * time.Second)
	before := total(cs)
	s.run(time.Second)
	if got := s.share(total(cs)-before, time.Second); got < 0.95 {
		t.Errorf("%.3f of the line; %+v", got, p.State())
	}
}

// TestFirstWindow: who may send only a little until the peer has answered, and all
// it can from then on, makes no queue on a line of exactly the configured rate: the
// wait was no stall.
func TestFirstWindow(t *testing.T) {
	for _, c := range []cell{{100, 50, 0.5, 0, 0, 0, true}, {100, 20, 1, 0, 0, 0, true}, {50, 50, 1, 0, 0, 0, true}} {
		s := newSim(c.line(), *seed)
		cs := group(s, c.path(), 4)
		for _, x := range cs {
			x.left = 256 << 10 / 4 / simPacket
		}
		s.run(ms(c.rtt))
		for _, x := range cs {
			x.left = -1
			x.try()
		}
		s.run(2 * time.Second)
		if s.mostQueue > shortCredit+ms(2) || s.dropped > 0 {
			t.Errorf("%+v: a queue of %v, %d packets dropped", c, s.mostQueue, s.dropped)
		}
	}
}
