package tunnel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

var lineFast = testwan.Line{Delay: 10 * time.Millisecond, Rate: 125_000_000}

// flood sends until ctx ends, and consumes at the other end, where each message takes
// a while if that is given.
func flood(ctx context.Context, from, to *Channel, size int, each ...time.Duration) {
	go func() {
		for {
			if _, err := from.Send(ctx, make([]byte, size)); err != nil {
				return
			}
		}
	}()
	go func() {
		for {
			m, err := to.Recv(ctx)
			if err != nil {
				return
			}
			for _, d := range each {
				time.Sleep(d)
			}
			to.Done(m.Seq)
		}
	}()
}

// within fails unless got is within 5 % of want.
func within(t *testing.T, what string, got, want float64) {
	t.Helper()
	t.Logf("%s: %.0f of %.0f (%+.1f %%)", what, got, want, 100*(got/want-1))
	if got < 0.95*want || got > 1.05*want {
		t.Errorf("%s: got %.0f, want %.0f within 5 %%", what, got, want)
	}
}

func TestLinkRate(t *testing.T) {
	t.Parallel()
	inLab(t, lineFast, options{}, func(t *testing.T, l *lab) {
		l.up()
		link := l.a.Link("b")
		link.SetRate(250_000)
		from, to := l.open(Spec{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		flood(ctx, from, to, 100<<10)
		time.Sleep(2 * time.Second)
		for _, rate := range []int64{250_000, 750_000} {
			link.SetRate(rate)
			time.Sleep(time.Second)
			for range 2 { // any second
				before := link.State().WireSent
				time.Sleep(time.Second)
				within(t, fmt.Sprintf("link at %d", rate), float64(link.State().WireSent-before), float64(rate))
			}
		}
		var sum int64
		for range 60 { // a message more or less in one second is 13 %
			time.Sleep(200 * time.Millisecond)
			sum += link.State().Goodput
		}
		s := link.State()
		if got := float64(sum) / 60 / 750_000; got < 0.86 || got > 1.03 {
			t.Errorf("goodput %.3f of the cap", got)
		}
		t.Logf("goodput %.3f of the cap", float64(sum)/60/750_000)
		if s.Rate != 750_000 {
			t.Errorf("state %+v", s)
		}
		// What we count is what the line saw.
		var all int64
		for _, x := range []*Link{link, l.b.Link("a")} {
			all += x.State().WireSent
		}
		within(t, "counted, to what the line carried", float64(all), float64(l.wan.Stats().Bytes))
	})
}

func TestFlowRates(t *testing.T) {
	t.Parallel()
	for _, loss := range []float64{0, 0.01} {
		t.Run(fmt.Sprintf("loss=%v", loss), func(t *testing.T) {
			line := lineFast
			line.Loss = loss
			inLab(t, line, options{a: func(c *Config) { c.Conns = 16 }}, func(t *testing.T, l *lab) {
				l.up()
				link := l.a.Link("b")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				flow := link.NewFlow("move")
				flow.SetRate(500_000)
				for range 3 {
					from, to := l.open(Spec{Flow: flow})
					flood(ctx, from, to, 300<<10)
				}
				time.Sleep(time.Second)
				for _, rate := range []int64{500_000, 1_500_000} {
					flow.SetRate(rate)
					time.Sleep(time.Second)
					for range 2 {
						before, own := bulkSent(link), flow.WireSent()
						time.Sleep(time.Second)
						within(t, "flow on the wire", float64(bulkSent(link)-before), float64(rate))
						within(t, "flow's own count", float64(flow.WireSent()-own), float64(rate))
					}
				}
			})
		})
	}
}

// TestFairFlows: a flow with many channels gets no more than one with one, and
// a capped one does not hold up the others.
func TestFairFlows(t *testing.T) {
	t.Parallel()
	line := lineFast
	line.Rate = 2_500_000
	inLab(t, line, options{}, func(t *testing.T, l *lab) {
		l.up()
		link := l.a.Link("b")
		link.SetRate(2_000_000)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		one, many, capped := link.NewFlow("one"), link.NewFlow("many"), link.NewFlow("capped")
		capped.SetRate(300_000)
		for i, f := range []*Flow{one, many, many, many, capped, capped} {
			from, to := l.open(Spec{Flow: f})
			flood(ctx, from, to, 1000+i*100_000)
		}
		time.Sleep(3 * time.Second)
		a, b, c := one.WireSent(), many.WireSent(), capped.WireSent()
		time.Sleep(4 * time.Second)
		within(t, "one", float64(one.WireSent()-a)/4, 850_000)
		within(t, "many", float64(many.WireSent()-b)/4, 850_000)
		within(t, "capped", float64(capped.WireSent()-c)/4, 300_000)
	})
}

// TestTail: the move whose VM stands still goes before the others.
func TestTail(t *testing.T) {
	t.Parallel()
	line := lineFast
	line.Rate = 1_250_000
	inLab(t, line, options{}, func(t *testing.T, l *lab) {
		l.up()
		link := l.a.Link("b")
		link.SetRate(1_000_000)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		last, other := link.NewFlow("last"), link.NewFlow("other")
		for _, f := range []*Flow{last, other} {
			from, to := l.open(Spec{Flow: f})
			flood(ctx, from, to, 100_000)
		}
		rate := func(f *Flow) float64 {
			time.Sleep(time.Second)
			was := f.WireSent()
			time.Sleep(2 * time.Second)
			return float64(f.WireSent()-was) / 2
		}
		within(t, "beside another", rate(last), 500_000)
		last.SetTail(true)
		within(t, "its tail", rate(last), 1_000_000*32/33)
		last.SetTail(false)
		if got := rate(other); got < 480_000 { // it may be owed something
			t.Errorf("the other gets %.0f bytes a second afterwards", got)
		}
	})
}

// TestUrgentUnderBulk measures the round trip of small urgent messages while
// bulk fills the link's cap.
func TestUrgentUnderBulk(t *testing.T) {
	t.Parallel()
	line := testwan.Line{Delay: 20 * time.Millisecond, Rate: 2_500_000}
	inLab(t, line, options{}, func(t *testing.T, l *lab) {
		l.up()
		l.a.Link("b").SetRate(2_400_000)
		from, to := l.open(Spec{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		flood(ctx, from, to, 500<<10)
		ping, pong := l.open(Spec{Class: Urgent})
		go sendBack(ctx, pong)
		time.Sleep(time.Second)
		var trips []time.Duration
		for range 50 {
			trips = append(trips, roundTrip(t, ctx, ping, 200))
			time.Sleep(20 * time.Millisecond)
		}
		slices.Sort(trips)
		t.Logf("round trips: p50 %v, p98 %v; goodput %d", trips[25], trips[48], l.a.Link("b").State().Goodput)
		if trips[25] > 45*time.Millisecond || trips[48] > 60*time.Millisecond {
			t.Errorf("p50 %v, p98 %v over a line of 40ms", trips[25], trips[48])
		}
	})
}

// TestSlowReader: a channel that nobody reads stops at its window and holds up
// no other one; that is QEMU's multifd at a SYNC (hypervisor-wire.md, trap 9).
func TestSlowReader(t *testing.T) {
	t.Parallel()
	memory := func(c *Config) { c.Memory = 64 << 20 }
	inLab(t, lineFast, options{b: memory}, func(t *testing.T, l *lab) {
		l.up()
		stuck, unread := l.open(Spec{})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		const size = 1 << 20
		for i := 0; ; i++ {
			if _, err := stuck.Send(ctx, make([]byte, size)); err != nil {
				break
			}
			if n := stuck.Arriving(); i == 0 && n != size {
				t.Errorf("%d bytes arrive, just after %d were sent", n, size)
			}
		}
		if n, b := stuck.Unacked(); n < 10 || b > 16<<20 {
			t.Errorf("unacked %d messages, %d bytes", n, b)
		}
		if n := stuck.Arriving(); n != 0 {
			t.Errorf("%d bytes arrive, of a channel of which all has", n)
		}
		if s := stuck.Stalled(); !strings.HasPrefix(s, "b has received all") {
			t.Errorf("stalled: %q", s)
		}
		from, to := l.open(Spec{})
		began := time.Now()
		if err := transfer(t.Context(), from, to, 50, 100<<10); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("took %v beside the stuck channel", d)
		}
		// A window of our own is kept too.
		stuck.SetWindow(1000)
		for range 10 {
			m, err := unread.Recv(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			unread.Done(m.Seq)
		}
		time.Sleep(time.Second)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := stuck.Send(short, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("send beyond its own window: %v", err)
		}
	})
}

// TestLargeMessages: a flow has its cap although its messages are as large as the
// window, so that a second one would be beyond it. What is not acknowledged stays
// within the window and two of them.
func TestLargeMessages(t *testing.T) {
	t.Parallel()
	line := testwan.Line{Delay: 10 * time.Millisecond, Rate: 25_000_000}
	inLab(t, line, options{}, func(t *testing.T, l *lab) {
		l.up()
		const rate, size = 6_250_000, 512<<10 + 32
		flow := l.a.Link("b").NewFlow("move")
		flow.SetRate(rate)
		from, to := l.open(Spec{Flow: flow})
		from.SetWindow(512 << 10)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		flood(ctx, from, to, size, 15*time.Millisecond) // as a busy destination takes to decode one
		time.Sleep(time.Second)
		before := flow.WireSent()
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			if n, b := from.Unacked(); b > 512<<10+2*size {
				t.Errorf("%d messages, %d bytes, are not acknowledged", n, b)
			}
		}
		within(t, "flow", float64(flow.WireSent()-before), rate)
	})
}

// TestManyOpens opens channels up to the limit, twice over.
func TestManyOpens(t *testing.T) {
	t.Parallel()
	inLab(t, testwan.Line{Delay: 5 * time.Millisecond}, options{}, func(t *testing.T, l *lab) {
		for range 2 {
			var open []*Channel
			for {
				from, err := l.a.Link("b").Open(t.Context(), Spec{Header: make([]byte, 1000)})
				if err != nil {
					if !errors.Is(err, ErrTooMany) {
						t.Fatal(err)
					}
					break
				}
				open = append(open, from)
			}
			if len(open) != maxChannels {
				t.Errorf("%d channels", len(open))
			}
			for _, from := range open {
				to, err := l.b.Accept(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if to.ID()%3 == 0 {
					to.Abort("")
				} else {
					from.Abort("")
				}
			}
			time.Sleep(time.Second)
			for _, link := range []*Link{l.a.Link("b"), l.b.Link("a")} {
				link.mu.Lock()
				if len(link.channels) != 0 || link.granted != 0 || len(link.closedID.ranges) > 1 {
					t.Errorf("%d channels, granted %d, ended %v", len(link.channels), link.granted, link.closedID.ranges)
				}
				link.mu.Unlock()
			}
		}
	})
}
