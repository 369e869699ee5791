package congestion

import (
	"flag"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 1, "seed of random tests")

func TestPackets(t *testing.T) {
	rng := rand.New(rand.NewPCG(*seed, 0))
	var p packets
	want := map[int64]int64{}
	var next int64
	for range 100_000 {
		if rng.IntN(5) < 3 && len(want) < 5000 {
			next += 1 + int64(rng.IntN(2)) // numbers are skipped
			p.add(next).size = next * 3
			want[next] = next * 3
			continue
		}
		n := next - int64(rng.IntN(6000))
		s, ok := p.take(n)
		if size, known := want[n]; ok != known || s.size != size {
			t.Fatalf("seed %d: packet %d: %+v, %v; want size %d, %v", *seed, n, s, ok, size, known)
		}
		delete(want, n)
	}
	if len(p.ring) > maxRing {
		t.Errorf("ring of %d", len(p.ring))
	}
	p.clear()
	if _, ok := p.take(next); ok {
		t.Error("a cleared ring has packets")
	}
}

// TestPacketsBound: packets that are never settled do not make it grow for ever.
func TestPacketsBound(t *testing.T) {
	var p packets
	for n := range int64(3 * maxRing) {
		p.add(n)
	}
	if len(p.ring) != maxRing {
		t.Errorf("ring of %d", len(p.ring))
	}
	if _, ok := p.take(3*maxRing - 1); !ok {
		t.Error("the newest is not there")
	}
	if _, ok := p.take(0); ok {
		t.Error("the oldest is still there")
	}
}

func TestMaxFilter(t *testing.T) {
	var f maxFilter
	for i, tt := range []struct{ add, want int64 }{{5, 5}, {9, 9}, {3, 9}, {4, 9}, {4, 9}, {4, 9}, {4, 9}, {4, 9}, {4, 9}, {4, 9}, {4, 9}, {4, 4}, {2, 4}} {
		f.next()
		f.add(tt.add)
		if got := f.value(); got != tt.want {
			t.Errorf("round %d: %d, want %d", i, got, tt.want)
		}
	}
	if f.limit(3); f.value() != 3 {
		t.Errorf("limited to 3: %d", f.value())
	}
}

// TestBudget asks as members do and holds what leaves against every stretch of
// time, at a steady clock and at one with stalls.
func TestBudget(t *testing.T) {
	const rate, size = 12_500_000.0, 1494
	for _, stall := range []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond} {
		var b budget
		b.setRate(0, rate)
		rng := rand.New(rand.NewPCG(*seed, 0))
		var left []time.Duration
		now := time.Duration(0)
		for now < 2*time.Second {
			for b.wait(now, Bulk) == 0 {
				b.charge(now, Bulk, size)
				left = append(left, now)
			}
			now += max(b.wait(now, Bulk), leastWait)
			if stall > 0 && rng.IntN(50) == 0 {
				now += stall
			}
		}
		for _, over := range []time.Duration{10 * time.Millisecond, time.Second} {
			j, most := 0, 0
			for i := range left {
				for left[i]-left[j] > over {
					j++
				}
				most = max(most, i-j+1)
			}
			limit := rate*(over.Seconds()+credit.Seconds()) + size
			if over < 100*time.Millisecond {
				limit = rate*(peakFactor*over.Seconds()+peakCredit.Seconds()) + size
			}
			if float64(most*size) > limit {
				t.Errorf("stall %v: %d bytes in %v, most is %.0f", stall, most*size, over, limit)
			}
		}
		if got := float64(len(left)*size) / 2 / rate; stall <= credit && got < 0.97 {
			t.Errorf("stall %v: %.3f of the rate", stall, got)
		}
	}
}

// TestLoose: before it has a path, a member lets a handshake pass and no more;
// what it hears of packets that it did not see sent changes nothing.
func TestLoose(t *testing.T) {
	m := NewMember()
	if !m.CanSend(looseWindow-1) || m.CanSend(looseWindow) || !m.HasBudget(-5) || m.Seen() {
		t.Error("a member without a path")
	}
	m.Sent(-5, 1, 1280, 1280, true)
	p := New(0)
	m.Join(p, Bulk, 1280, 42)
	m.Acked(time.Second, 1, 1280)
	m.Lost(2, 1280)
	m.Spurious(7)
	if s := p.State(); s.Delivered != 0 || s.Lost != 0 || s.InFlight != 0 || !m.Seen() {
		t.Errorf("%+v", s)
	}
	if c := m.Counters(); c != (Counters{1, 1, 1}) {
		t.Errorf("%+v", c)
	}
	m.Join(New(0), Priority, 1280, 42) // for good means for good
	m.Leave()
	m.Leave()
	if s := p.State(); s.Members != 0 {
		t.Errorf("%+v", s)
	}
}

// TestLeave: what a connection had in flight does not count when it has ended,
// even if it goes on talking.
func TestLeave(t *testing.T) {
	p := New(100 * mbit)
	a, b := NewMember(), NewMember()
	a.Join(p, Bulk, 1280, 42)
	b.Join(p, Bulk, 1280, 42)
	for i := range int64(10) {
		a.Sent(time.Second, i, 1000, 1000*(i+1), true)
		b.Sent(time.Second, i, 1000, 1000*(i+1), true)
	}
	a.Leave()
	a.CanSend(50_000)
	a.Sent(time.Second, 11, 1000, 51_000, true)
	if s := p.State(); s.InFlight != 10_000 || s.Members != 1 {
		t.Errorf("%+v", s)
	}
	b.Migrated()
	if s := p.State(); s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	p := New(0)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			m := NewMember()
			m.Join(p, Bulk, 1280, 42)
			defer m.Leave()
			for i := range int64(1000) {
				now := time.Duration(i) * time.Millisecond
				if m.CanSend(1000) && m.HasBudget(now) {
					m.Sent(now, i, 1000, 1000, true)
				}
				m.NextSend()
				if i%2 == 0 {
					m.Acked(now, i, 1000)
				} else {
					m.Lost(i, 1000)
				}
				m.SetPacketSize(1400)
				_ = m.Window()
			}
		})
	}
	wg.Go(func() {
		for i := range int64(100) {
			_ = p.State()
			p.SetRate(i % 3 * 1_000_000)
			if i%10 == 0 {
				p.Reset()
			}
		}
	})
	wg.Wait()
}

// TestStartupAfterCollapse: a startup that losses have ended has measured the line as
// any other: the next begins at what was found, not at the first window a round trip.
func TestStartupAfterCollapse(t *testing.T) {
	m := newModel(0)
	m.rtt.add(0, ms(20))
	m.bw.add(50_000)
	if got := m.pace(); got != m.firstPace() {
		t.Errorf("pace %d at first, want %d", got, m.firstPace())
	}
	m.collapse(ms(100), 50_000, 0.4, false)
	m.enterStartup(ms(200))
	if got, want := m.pace(), int64(m.gain()*50_000); got != want {
		t.Errorf("pace %d after a collapse, want %d", got, want)
	}
}
