package congestion

import (
	"cmp"
	"testing"
	"time"
)

// TestStartupQueue: startup makes no queue worth the name on a line whose queue is
// long, loses nothing where it is short, and is not ended by a burst of losses. Without
// trains it fills the queue.
func TestStartupQueue(t *testing.T) {
	long(t)
	for _, tt := range []struct {
		cell
		queue time.Duration // longest
		cold  float64       // least share of the line over 3 s
	}{
		{cell{200, 100, 1, 0, 0, 0, false}, ms(22), 0.84},
		{cell{200, 100, 1, 0.01, 0, 0, false}, ms(25), 0.83},
		{cell{500, 100, 0.5, 0, 0, 0, false}, ms(22), 0.82},
		{cell{500, 100, 0.5, 0.01, 10, 0, false}, ms(25), 0.78},
		{cell{100, 50, 0.5, 0, 0, 0, false}, ms(12), 0.93},
	} {
		runs := uint64(10)
		if tt.loss == 0 {
			runs = 2 // no chance in it
		}
		for n := range runs {
			delay := time.Duration(n%2) * maxAckDelay // each seed with both
			s, got := startUp(tt.cell, *seed+n/2, delay, false)
			if s.mostQueue > tt.queue || got < tt.cold || float64(s.dropped) > 0.001*float64(s.queued) {
				t.Errorf("%+v, seed %d, acknowledged %v late: %.3f of the line, a queue of %v, %d of %d packets dropped; want %.3f, %v",
					tt.cell, *seed+n/2, delay, got, s.mostQueue, s.dropped, s.queued, tt.cold, tt.queue)
			}
		}
	}
	// What trains are for.
	if s, got := startUp(cell{200, 100, 1, 0, 0, 0, false}, *seed, 0, true); s.mostQueue < ms(95) {
		t.Errorf("without trains: %.3f of the line, a queue of %v", got, s.mostQueue)
	}
}

// startUp is the first 3 s of bulk: what it has made of the line, and its share of it.
func startUp(c cell, seed uint64, ackDelay time.Duration, plain bool) (*sim, float64) {
	s, cs := started(c, seed, ackDelay, plain)
	s.run(3 * time.Second)
	return s, s.share(total(cs), 3*time.Second)
}

// started begins bulk on a line whose RTT is known, as after a handshake, with trains or
// plainly without.
func started(c cell, seed uint64, ackDelay time.Duration, plain bool) (*sim, []*conn) {
	s, p := newSim(c.line(), seed), c.path()
	p.model.plain = plain
	warm := newConn(s, p, Priority)
	warm.left = 10
	warm.ackDelay = ackDelay
	warm.try()
	s.run(time.Second)
	s.mostQueue, s.dropped, s.queued = 0, 0, 0
	cs := group(s, p, 4)
	for _, x := range cs {
		x.ackDelay = ackDelay
	}
	return s, cs
}

// TestStartupAnew: a startup that begins anew, because probes have found more, feels its
// way by trains also where the rate before it was a configured one, which the line did
// not have or which is no more: the queue does not fill, though the rate doubles.
func TestStartupAnew(t *testing.T) {
	for _, tt := range []struct {
		name          string
		rtt           int
		first, second float64 // configured, Mbit/s; 0: none
		from, to      float64 // the line's rate, Mbit/s
		queue         time.Duration
	}{
		{"the line has less", 100, 400, 400, 40, 160, ms(20)},
		{"the line has less, and is shorter", 50, 400, 400, 40, 160, ms(12)},
		{"no rate any more", 100, 20, 0, 120, 120, ms(20)},
	} {
		l := cell{int64(tt.to), tt.rtt, 1, 0, 0, 0, false}.line()
		s, p := newSim(l, *seed), New(int64(tt.first*mbit))
		s.line.rate = int64(tt.from * mbit)
		cs := group(s, p, 4)
		s.run(12 * time.Second)
		p.SetRate(int64(tt.second * mbit))
		s.line.rate = int64(tt.to * mbit)
		s.mostQueue, s.dropped = 0, 0
		anew := false
		for range 400 {
			s.run(ms(10))
			anew = anew || p.model.phase == startup
		}
		before := total(cs)
		s.run(time.Second)
		got := s.share(total(cs)-before, time.Second)
		t.Logf("%s: %.3f of the line, a queue of %v, %d packets dropped", tt.name, got, s.mostQueue, s.dropped)
		if !anew || got < 0.95 || s.mostQueue > tt.queue || s.dropped > 0 {
			t.Errorf("%s, seed %d: startup anew: %v; %.3f of the line, a queue of %v, %d packets dropped; want %v",
				tt.name, *seed, anew, got, s.mostQueue, s.dropped, tt.queue)
		}
	}
}

// TestStartupAnewShort: a startup that begins anew where there are no trains does not wait
// for what they tell: without growth, here for a configured rate, it ends as any other.
func TestStartupAnewShort(t *testing.T) {
	for _, tt := range []struct {
		rtt   int
		plain bool
	}{{10, false}, {15, false}, {30, true}} {
		s, p := newSim(cell{1000, tt.rtt, 1, 0, 0, 0, false}.line(), *seed), New(400*mbit)
		p.model.plain = tt.plain
		s.line.rate = 200 * mbit
		cs := group(s, p, 4)
		s.run(6 * time.Second)
		s.line.rate = 1000 * mbit
		rounds := 0
		for range 2000 {
			s.run(ms(1))
			if p.model.phase == startup {
				rounds = max(rounds, p.model.inPhase)
			}
		}
		before := total(cs)
		s.run(time.Second)
		got := float64(total(cs)-before) / (400 * mbit)
		t.Logf("%+v: %d rounds, %.3f of the rate", tt, rounds, got)
		if rounds == 0 || rounds > flatRounds+1 || got < 0.97 {
			t.Errorf("%+v, seed %d: %d rounds, %.3f of the rate", tt, *seed, rounds, got)
		}
	}
}

// TestStartupTogether: a receiver that takes what has come in a while before it
// acknowledges it at once, as with UDP_GRO and where processors are busy, does not make
// a fast line look slow, even where it holds the last packet of a train back.
func TestStartupTogether(t *testing.T) {
	for _, tt := range []struct {
		cell
		poll, ackDelay time.Duration
		cold           float64 // least share of the line over 3 s
	}{
		{cell{200, 100, 0.5, 0, 0, 0, false}, ms(2), 0, 0.82},
		{cell{200, 100, 0.5, 0, 0, 0, false}, ms(3), maxAckDelay, 0.82},
		{cell{500, 100, 0.5, 0, 0, 0, false}, ms(2), maxAckDelay, 0.79},
		{cell{1000, 100, 0.5, 0, 0, 0, false}, ms(1), maxAckDelay, 0.76},
		{cell{1000, 50, 0.5, 0, 0, 0, false}, ms(3), maxAckDelay, 0.86},
	} {
		s, cs := started(tt.cell, *seed, tt.ackDelay, false)
		s.line.poll = tt.poll
		s.run(3 * time.Second)
		got := s.share(total(cs), 3*time.Second)
		t.Logf("%+v, together in %v: %.3f of the line, a queue of %v", tt.cell, tt.poll, got, s.mostQueue)
		if got < tt.cold {
			t.Errorf("%+v, seed %d, together in %v, acknowledged %v late: %.3f of the line, want %.3f", tt.cell, *seed, tt.poll, tt.ackDelay, got, tt.cold)
		}
	}
}

// TestLongLines: trains of a line so long that they come rarely are not taken for single
// packets of somebody who has nothing more to send.
func TestLongLines(t *testing.T) {
	for _, tt := range []struct {
		cell
		cold float64 // least share of the line over 10 s
	}{
		{cell{100, 400, 0.5, 0.001, 0, 0, false}, 0.78},
		{cell{50, 600, 0.5, 0, 0, 0, false}, 0.7},
		{cell{1, 300, 1, 0, 0, 0, false}, 0.9},
	} {
		s, cs := started(tt.cell, *seed, maxAckDelay, false)
		s.run(10 * time.Second)
		if got := s.share(total(cs), 10*time.Second); got < tt.cold {
			t.Errorf("%+v, seed %d: %.3f of the line, want %.3f", tt.cell, *seed, got, tt.cold)
		}
	}
}

// TestPoliced: a line whose policer lets bursts pass, and so tells trains that it is
// much faster than it is, or drops of them, is used, and startup wastes at most 40 %
// more than it does without trains, and later probes at most twice as much.
func TestPoliced(t *testing.T) {
	for _, depth := range []int64{50_000, 500_000, 2_000_000} {
		for _, rate := range []int64{50, 100, 300} {
			for _, delay := range []time.Duration{0, maxAckDelay} {
				l := cell{1000, 50, 0.5, 0, 0, 0, false}.line()
				l.police, l.depth = rate*mbit, depth
				got, dropped, after := policed(l, delay, false)
				_, without, afterWithout := policed(l, delay, true)
				if got < 0.97 || float64(dropped) > 1.4*float64(without) || after > 2*afterWithout {
					t.Errorf("%d Mbit/s, bursts of %d, acknowledged %v late: %.3f; %d packets dropped in 3 s, %d after; without trains %d, %d",
						rate, depth, delay, got, dropped, after, without, afterWithout)
				}
			}
		}
	}
}

// policed runs a path on a line with a policer, with trains or plainly without: the share
// of the policer's rate that arrives, and the packets dropped, in 3 s and in 3 s after.
func policed(l line, ackDelay time.Duration, plain bool) (share float64, dropped, after int) {
	s, p := newSim(l, *seed), New(0)
	p.model.plain = plain
	cs := group(s, p, 4)
	for _, x := range cs {
		x.ackDelay = ackDelay
	}
	s.run(3 * time.Second)
	before, dropped := total(cs), s.dropped
	s.run(3 * time.Second)
	return float64(total(cs)-before) / 3 / float64(l.police), dropped, s.dropped - dropped
}

// TestStartupLosses: startup ends by loss also where bulk is sent continuously, as on
// lines too short for trains. If it did not, 2116, 850 and 1257 packets would be dropped
// in place of 936, 538 and 803.
func TestStartupLosses(t *testing.T) {
	for _, tt := range []struct {
		cell
		police, depth int64   // Mbit/s and bytes
		most          int     // packets dropped in the first second
		least         float64 // share of the line
	}{
		{cell{1000, 5, 0.1, 0, 0, 0, false}, 0, 0, 1100, 0.95},
		{cell{300, 10, 0.1, 0, 0, 0, false}, 0, 0, 650, 0.95},
		{cell{1000, 10, 1, 0, 0, 0, false}, 300, 50_000, 1000, 0.95},
	} {
		l := tt.line()
		l.police, l.depth = tt.police*mbit, tt.depth
		s := newSim(l, *seed)
		cs := group(s, New(0), 4)
		s.run(time.Second)
		got := float64(total(cs)) / float64(cmp.Or(l.police, l.rate))
		t.Logf("%+v, policed %d: %d of %d packets dropped; %.3f of the line", tt.cell, tt.police, s.dropped, s.queued, got)
		if s.dropped > tt.most || got < tt.least {
			t.Errorf("want %d, %.3f", tt.most, tt.least)
		}
	}
}
