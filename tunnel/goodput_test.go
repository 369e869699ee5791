package tunnel

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// long makes tests move as much as a real move does. Under the race detector
// that takes a minute.
var long = flag.Bool("tunnel.long", false, "move 70 MB where a test moves 8, and try 1 Gbit/s")

// lineDemo is the line of "longhaul demo": 200 Mbit/s, 60 ms, 0.05 % lost, and
// a queue of one bandwidth-delay product.
var lineDemo = testwan.Line{Delay: 30 * time.Millisecond, Rate: 25_000_000, Loss: 0.0005, Queue: 1_500_000}

// TestColdStart moves what a VM's move does, over a link that was idle, either
// way, and wants the line to be used from the start.
func TestColdStart(t *testing.T) {
	t.Parallel()
	clean := lineDemo
	clean.Loss, clean.Queue = 0, 750_000
	for _, tt := range []struct {
		name   string
		line   testwan.Line
		rate   int64 // cap, 0 for none
		window int64
		back   bool    // sent by the end that did not dial
		least  float64 // part of the line, over 70 MB
		long   bool    // only with -tunnel.long
	}{
		{"demo", lineDemo, 24_000_000, 8 << 20, false, 0.85, true},
		{"demo, small window", lineDemo, 24_000_000, 4 << 20, false, 0.85, true},
		{"demo, way home", lineDemo, 24_000_000, 4 << 20, true, 0.85, false},
		{"no cap", lineDemo, 0, 8 << 20, false, 0.8, true},
		{"clean, no cap", clean, 0, 8 << 20, true, 0.85, false},
	} {
		if tt.long && !*long {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			rate := func(c *Config) { c.Rate = tt.rate }
			inLab(t, tt.line, options{a: rate, b: rate}, func(t *testing.T, l *lab) {
				l.up()
				from, to := l.open(Spec{BackBulk: true})
				if tt.back {
					from, to = to, from
				}
				time.Sleep(2 * time.Second)
				from.SetWindow(tt.window)
				size, least := int64(8_000_000), tt.least-0.3 // the start weighs more
				if *long {
					size, least = 70_000_000, tt.least
				}
				full := 0.955 * float64(tt.rate) // 1427 of 1494 bytes at the most
				if tt.rate == 0 {
					full = 0.955 * float64(tt.line.Rate)
				}
				took := pour(t, from, to, size)
				got := float64(size) / took.Seconds() / full
				s := from.Link().State()
				t.Logf("%.1f %% of the line, over %v; %d connections, lost %d of %d", 100*got, took, s.Conns, s.PacketsLost, s.PacketsSent)
				if got < least {
					t.Errorf("%.1f %% of the line, want %.0f", 100*got, 100*least)
				}
				if !*long {
					return
				}
				took = pour(t, from, to, 2*size)
				got = float64(2*size) / took.Seconds() / full
				t.Logf("then %.1f %%", 100*got)
				if got < 0.92 {
					t.Errorf("then %.1f %% of the line, want 92", 100*got)
				}
			})
		})
	}
}

// pour sends n bytes in messages as a move has them, and tells how long the
// last took to arrive.
func pour(t *testing.T, from, to *Channel, n int64) time.Duration {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	go func() {
		for left, i := n, 0; left > 0; i++ {
			m := min(int64(50_000+i*37%36*10_000), left)
			if _, err := from.Send(ctx, make([]byte, m)); err != nil {
				return
			}
			left -= m
		}
	}()
	for n > 0 {
		m, err := to.Recv(ctx)
		if err != nil {
			t.Fatal(err)
		}
		to.Done(m.Seq)
		n -= int64(len(m.Data))
	}
	return time.Since(began)
}

// TestGoodput wants State.Goodput to follow the line within a second, and not
// to jump when a lost packet holds back the order.
func TestGoodput(t *testing.T) {
	t.Parallel()
	line := testwan.Line{Delay: 30 * time.Millisecond, Rate: 3_000_000, Loss: 0.002, Queue: 200_000}
	inLab(t, line, options{a: func(c *Config) { c.Conns = 8 }}, func(t *testing.T, l *lab) {
		l.up()
		link := l.a.Link("b")
		from, to := l.open(Spec{})
		from.SetWindow(2 << 20)
		time.Sleep(2 * time.Second)
		if s := link.State(); s.Goodput != 0 {
			t.Errorf("idle: %d", s.Goodput)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		flood(ctx, from, to, 200<<10)
		for _, rate := range []int64{2_000_000, 500_000, 2_000_000} {
			link.SetRate(rate)
			// A second over which it is measured, and one message at the lowest rate.
			time.Sleep(1600 * time.Millisecond)
			var seen []int64
			for range 10 {
				time.Sleep(200 * time.Millisecond)
				got := link.State().Goodput
				seen = append(seen, got/1000)
				if want := 0.945 * float64(rate); float64(got) < 0.85*want || float64(got) > 1.15*want {
					t.Errorf("goodput %d at a cap of %d", got, rate)
				}
			}
			t.Logf("at %d: %d kB/s", rate/1000, seen)
		}
		l.wan.Cut()
		time.Sleep(1500 * time.Millisecond)
		if s := link.State(); s.Goodput > 200_000 {
			t.Errorf("%d over a line that is cut", s.Goodput)
		}
		l.wan.Heal()
	})
}
