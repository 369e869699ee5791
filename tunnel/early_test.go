package tunnel

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// exchanges sends a message of 200 bytes every 25 ms and tells, in ascending order, how
// long each took to come back.
func (l *lab) exchanges(from, to *Channel, n int) []time.Duration {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	defer cancel()
	go sendBack(ctx, to)
	sent := make(chan time.Time, n)
	go func() {
		for range n {
			sent <- time.Now()
			if _, err := from.Send(ctx, make([]byte, 200)); err != nil {
				return
			}
			time.Sleep(25 * time.Millisecond)
		}
	}()
	took := make([]time.Duration, n)
	for i := range took {
		m, err := from.Recv(ctx)
		if err != nil {
			l.t.Fatal(err)
		}
		from.Done(m.Seq)
		took[i] = time.Since(<-sent)
	}
	slices.Sort(took)
	return took
}

// bursts loses a part of the packets, in bursts of so many on average, in each
// direction by itself.
func bursts(part, long float64) func(a, b netip.AddrPort, size int) bool {
	r := rand.New(rand.NewPCG(*seed, 0))
	within := make(map[netip.Addr]bool)
	return func(from, _ netip.AddrPort, _ int) bool {
		end := part / long / (1 - part) // a burst begins
		if within[from.Addr()] {
			end = 1 - 1/long // it goes on
		}
		within[from.Addr()] = r.Float64() < end
		return within[from.Addr()]
	}
}

// TestUrgentExchanges: what is asked and answered by short urgent messages takes hardly
// longer where packets are lost, beside bulk and alone. Sent once, of a hundred
// exchanges five take more than 1.7 round trips at 1 %.
func TestUrgentExchanges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		rate int64 // configured, 0 for none
		bulk bool  // beside
		long float64
	}{
		{"bulk", 1_000_000, true, 1},
		{"bulk, automatic", 0, true, 1},
		{"bulk, bursts of 3", 1_000_000, true, 3},
		{"alone", 1_000_000, false, 1},
		{"alone, automatic", 0, false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			line := testwan.Line{Delay: tailTrip / 2, Rate: 1_000_000, Queue: 100_000}
			rate := func(c *Config) { c.Rate = tt.rate }
			inLab(t, line, options{a: rate, b: rate}, func(t *testing.T, l *lab) {
				l.up()
				if tt.bulk {
					from, to := l.open(Spec{})
					flood(t.Context(), from, to, 64<<10)
				}
				from, to := l.open(Spec{Class: Urgent})
				l.wan.Lose(bursts(0.01, tt.long))
				time.Sleep(2 * time.Second) // until the rate is known
				l.lossy()
				took := l.exchanges(from, to, 300)
				t.Logf("median %v, 95 %% %v, 98 %% %v, 99 %% %v, all %v; %d bytes copied, %d came twice", took[150], took[285],
					took[294], took[297], took[299], l.a.Link("b").State().Copied, l.b.Link("a").State().Twice)
				if most := tailTrip * 3 / 2; took[285] > most {
					t.Errorf("95 %% take up to %v, want at most %v", took[285], most)
				}
			})
		})
	}
}

// lossy has both ends know that their paths lose packets.
func (l *lab) lossy() {
	for _, link := range []*Link{l.a.Link("b"), l.b.Link("a")} {
		link.mu.Lock()
		for _, p := range link.paths {
			p.loss.seen(time.Since(link.born))
		}
		link.mu.Unlock()
	}
}

// firstLost loses the first packet that carries a message of 900 bytes sent now, and
// what follows it within so long.
func (l *lab) firstLost(long time.Duration) {
	began := time.Now()
	l.wan.Lose(func(from, _ netip.AddrPort, n int) bool {
		return from.Addr() == netip.MustParseAddr(ipA) && n > 800 && time.Since(began) <= long
	})
}

// TestUrgentTwice: where packets are lost the loss of a short urgent message costs a
// sixteenth of a round trip; what is long is sent once, and so is all where nothing
// has been lost for a minute.
func TestUrgentTwice(t *testing.T) {
	t.Parallel()
	inLab(t, lineTail, options{}, func(t *testing.T, l *lab) {
		l.up()
		from, to := l.open(Spec{Class: Urgent})
		copied := func() int64 { return l.a.Link("b").State().Copied }
		time.Sleep(time.Second)
		l.arrival(from, to, make([]byte, 900))
		if copied() != 0 {
			t.Errorf("%d bytes copied where nothing has been lost", copied())
		}
		l.firstLost(time.Millisecond)
		t.Logf("the first that is lost: %v", l.arrival(from, to, make([]byte, 900)))
		for i := range 20 {
			time.Sleep(time.Second)
			was := copied()
			l.firstLost(time.Millisecond)
			took := l.arrival(from, to, make([]byte, 900))
			if most := tailTrip/2 + tailTrip/apart + own(900, lineTail.Rate); took > most {
				t.Errorf("message %d: %v, want at most %v", i, took, most)
			}
			if n := copied() - was; n != 900 {
				t.Errorf("message %d: %d bytes copied", i, n)
			}
		}
		l.wan.Lose(nil)
		time.Sleep(time.Second)
		was := copied()
		l.arrival(from, to, make([]byte, shortMessage+1))
		time.Sleep(time.Second)
		if copied() != was {
			t.Errorf("%d bytes of a message that is not short are copied", copied()-was)
		}
		l.arrival(from, to, make([]byte, shortMessage))
		if copied() != was+shortMessage {
			t.Errorf("%d bytes of a short message are copied", copied()-was)
		}
		time.Sleep(lossMemory)
		was = copied()
		l.arrival(from, to, make([]byte, 900))
		if copied() != was {
			t.Errorf("%d bytes copied where nothing has been lost for %v", copied()-was, lossMemory)
		}
	})
}

// TestUrgentTwoPaths: the second goes over the other path, so that all that the first's
// carries may be lost, unless the other costs more.
func TestUrgentTwoPaths(t *testing.T) {
	t.Parallel()
	for cost, tt := range []struct {
		lost time.Duration // how long the path of the first loses all
		most time.Duration
	}{
		{tailTrip / 2, tailTrip / 2}, // the other path's trip is shorter
		{time.Millisecond, tailTrip/2 + 2*tailTrip/apart},
	} {
		inTwoPaths(t, cost, func(t *testing.T, l *lab) {
			line, other := wide, narrow
			line.Loss, other.Loss = 0, 0
			l.wan.Set(line)
			l.line(ipA2, other)
			from, to := l.open(Spec{Class: Urgent})
			time.Sleep(time.Second)
			for i := range 10 {
				began := time.Now()
				l.wan.Lose(func(from, _ netip.AddrPort, n int) bool {
					byFirst := from.Addr() == netip.MustParseAddr(ipA) && time.Since(began) <= tt.lost
					return n > 800 && (byFirst || cost > 0 && from.Addr() == netip.MustParseAddr(ipA2))
				})
				took := l.arrival(from, to, make([]byte, 900))
				if most := tt.most + own(900, narrow.Rate); i > 0 && took > most {
					t.Errorf("cost %d, message %d: %v, want at most %v", cost, i, took, most)
				}
				time.Sleep(time.Second)
			}
		})
	}
}

// TestUrgentRough: short urgent messages come once and in order over a line that loses,
// doubles and reorders packets and is away four times, with copies of what was on its
// way before.
func TestUrgentRough(t *testing.T) {
	t.Parallel()
	line := testwan.Line{
		Delay: 20 * time.Millisecond, Rate: 1_000_000, Loss: 0.02, Reorder: 0.1, Jitter: 10 * time.Millisecond, Duplicate: 0.05,
	}
	inLab(t, line, options{}, func(t *testing.T, l *lab) {
		l.up()
		from, to := l.open(Spec{Class: Urgent})
		from.SetWindow(4 << 10) // a dozen of them, so that they take more than four seconds
		done := start(t.Context(), from, to, 3000, 900)
		for range 4 {
			time.Sleep(time.Second)
			l.wan.Cut()
			time.Sleep(10 * time.Second)
			l.wan.Heal()
			l.up()
			if len(done) > 0 {
				t.Fatal("the transfer is over too early")
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		copied, twice := l.a.Link("b").State().Copied, l.b.Link("a").State().Twice
		t.Logf("%d bytes copied, %d came twice", copied, twice)
		if copied == 0 || twice == 0 {
			t.Errorf("%d bytes copied, %d came twice", copied, twice)
		}
	})
}

// TestLosses: copies have their share of the line, and only while it loses packets.
func TestLosses(t *testing.T) {
	s := losses{share: 10_000}
	if s.room(time.Second); s.until != 0 {
		t.Errorf("a path that has lost nothing is taken for one that does until %v", s.until)
	}
	s.note(time.Minute, 3)
	s.note(time.Hour, 3)
	s.note(2*time.Hour, 1) // a connection has ended
	if s.until != time.Minute+lossMemory {
		t.Errorf("it loses packets until %v", s.until)
	}
	s.note(3*time.Hour, 2)
	if s.until != 3*time.Hour+lossMemory {
		t.Errorf("with another loss until %v", s.until)
	}
	began, sum := 4*time.Hour, 0
	for now := began; now <= began+10*time.Second; now += time.Millisecond {
		for s.room(now) {
			s.charge(300)
			sum += 300
		}
	}
	if least, most := 100_000, 100_000+2_500+300; sum < least || sum > most {
		t.Errorf("%d bytes in ten seconds, want %d to %d", sum, least, most)
	}
}

// TestUrgentRoom: a path that has no room for a copy leaves it to one that has, also if
// that is the first's own.
func TestUrgentRoom(t *testing.T) {
	t.Parallel()
	const n = 400
	inTwoPaths(t, 0, func(t *testing.T, l *lab) {
		line, other := wide, narrow
		line.Loss, other.Loss, line.Rate = 0, 0, 100_000_000
		l.wan.Set(line)
		l.line(ipA2, other)
		p := uplinks(0)
		p[0].Rate = 90_000_000
		l.setPaths(p)
		from, to := l.open(Spec{Class: Urgent})
		time.Sleep(2 * time.Second)
		l.lossy()
		was := l.a.Link("b").State().Copied
		l.each(from, to, n, 300, 5*time.Millisecond)
		if copied := l.a.Link("b").State().Copied - was; copied != 300*n {
			t.Errorf("%d bytes copied of %d messages of 300, want all: one path alone may carry 1.4 MB/s", copied, n)
		}
	})
}

// TestUrgentCapped: the copy of a message waits while its flow's cap is used up, and
// goes then if it is still of use.
func TestUrgentCapped(t *testing.T) {
	t.Parallel()
	inLab(t, lineTail, options{}, func(t *testing.T, l *lab) {
		l.up()
		l.lossy()
		time.Sleep(time.Second)
		from, to := l.open(Spec{Class: Urgent})
		f := l.a.Link("b").NewFlow("x")
		f.SetRate(20_000)
		from.SetFlow(f)
		const n = 50
		l.each(from, to, n, 900, 150*time.Millisecond) // with copies 14 kB/s
		if copied := l.a.Link("b").State().Copied; copied < 900*n*9/10 {
			t.Errorf("%d bytes copied of %d messages of 900", copied, n)
		}
	})
}

// each sends n messages of so many bytes, one each pause, and waits until all are there.
func (l *lab) each(from, to *Channel, n, size int, pause time.Duration) {
	l.t.Helper()
	came := make(chan error, 1)
	go func() {
		for range n {
			m, err := to.Recv(l.t.Context())
			if err != nil {
				came <- err
				return
			}
			to.Done(m.Seq)
		}
		came <- nil
	}()
	for range n {
		if _, err := from.Send(l.t.Context(), make([]byte, size)); err != nil {
			l.t.Fatal(err)
		}
		time.Sleep(pause)
	}
	if err := <-came; err != nil {
		l.t.Fatal(err)
	}
}

// TestUrgentNoLoss: urgent messages that a growing queue holds up are no sign of a loss.
func TestUrgentNoLoss(t *testing.T) {
	t.Parallel()
	line := testwan.Line{Delay: tailTrip / 2, Rate: 1_000_000, Queue: 400_000}
	inLab(t, line, options{}, func(t *testing.T, l *lab) {
		l.up()
		from, to := l.open(Spec{})
		flood(t.Context(), from, to, 64<<10)
		from, to = l.open(Spec{Class: Urgent})
		l.each(from, to, 600, 200, 50*time.Millisecond)
		link := l.a.Link("b")
		s := link.State()
		t.Logf("%d packets lost, %d bytes copied", s.PacketsLost, s.Copied)
		link.mu.Lock()
		defer link.mu.Unlock()
		for _, p := range link.paths {
			if s.PacketsLost == 0 && p.loss.until != 0 {
				t.Errorf("a path that has lost nothing is taken for one that does until %v", p.loss.until)
			}
		}
	})
}
