package tunnel

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// TestController: our controller decides at both ends, and fills a long line
// with losses.
func TestController(t *testing.T) {
	t.Parallel()
	line := testwan.Line{Delay: 100 * time.Millisecond, Rate: 2_500_000, Loss: 0.01, Queue: 500_000}
	const (
		payload = 0.93 // of a byte on the wire
		most    = 1.1
		looks   = 3 // a second apart: what one has may have waited behind a lost packet before
	)
	for _, tt := range []struct {
		name  string
		c     func(*Config)
		want  string
		least float64 // goodput, as a share of what the line carries,
		most  float64 // and at most
	}{
		{"automatic", func(*Config) {}, nameAutomatic, 0.8, most},
		{"configured", func(c *Config) { c.Rate = line.Rate }, nameConfigured, 0.9, most},
		{"stock", func(c *Config) { c.NewReno = true }, nameStock + ": as configured", 0.05, most},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inLab(t, line, options{a: tt.c, b: tt.c}, func(t *testing.T, l *lab) {
				l.up()
				from, to := l.open(Spec{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				flood(ctx, from, to, 100<<10)
				time.Sleep(time.Second)
				var s State
				sum := 0.0
				for range looks {
					time.Sleep(time.Second)
					s = l.a.Link("b").State()
					sum += float64(s.Goodput)
				}
				if got := sum / looks / payload / float64(line.Rate); got < tt.least || got > tt.most {
					t.Errorf("goodput %.2f of the line, want %v to %v; %+v", got, tt.least, tt.most, s.Paths)
				}
				for _, link := range []*Link{l.a.Link("b"), l.b.Link("a")} {
					if s := link.State(); s.Controller != tt.want {
						t.Errorf("at %s: %q, want %q", link.node.cfg.Site, s.Controller, tt.want)
					}
				}
				if lost := float64(s.PacketsLost) / float64(s.PacketsSent); lost < 0.003 || lost > 0.1 {
					t.Errorf("%d of %d packets lost", s.PacketsLost, s.PacketsSent)
				}
				if n := s.Paths[0].Model.Members; tt.name != "stock" && n != s.Conns {
					t.Errorf("the path has %d members of %d connections", n, s.Conns)
				}
			})
		})
	}
}

// TestReconnect: connections that are gone leave the path, and those that come
// after them find it.
func TestReconnect(t *testing.T) {
	t.Parallel()
	line := testwan.Line{Delay: 10 * time.Millisecond, Rate: 1_000_000}
	inLab(t, line, options{}, func(t *testing.T, l *lab) {
		l.up()
		from, to := l.open(Spec{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		flood(ctx, from, to, 100<<10)
		time.Sleep(2 * time.Second)
		l.wan.Cut()
		time.Sleep(IdleTimeout + 3*time.Second)
		for _, link := range []*Link{l.a.Link("b"), l.b.Link("a")} {
			if s := link.State(); s.Paths[0].Model.Members != 0 || s.Paths[0].Model.InFlight != 0 {
				t.Errorf("at %s, cut: %+v", link.node.cfg.Site, s.Paths)
			}
		}
		l.wan.Heal()
		time.Sleep(10 * time.Second)
		if s := l.a.Link("b").State(); s.Paths[0].Model.Members != s.Conns || s.Goodput < 750_000 || s.Controller != nameAutomatic {
			t.Errorf("healed: %d connections, goodput %d, %s, %+v", s.Conns, s.Goodput, s.Controller, s.Paths)
		}
	})
}

// TestOneEndStock: a gateway whose quic-go is not as we know it works with one
// whose is, and says so.
func TestOneEndStock(t *testing.T) {
	t.Parallel()
	line := testwan.Line{Delay: 10 * time.Millisecond, Rate: 1_000_000}
	inLab(t, line, options{b: func(c *Config) { c.NewReno = true }}, func(t *testing.T, l *lab) {
		l.up()
		from, to := l.open(Spec{})
		if err := transfer(t.Context(), from, to, 20, 100<<10); err != nil {
			t.Fatal(err)
		}
		a, b := l.a.Link("b"), l.b.Link("a")
		if x, y := a.State().Controller, b.State().Controller; x != nameAutomatic || !strings.HasPrefix(y, nameStock) {
			t.Errorf("%q and %q", x, y)
		}
		a.mu.Lock()
		a.unseated = errors.New("quic-go has changed")
		a.mu.Unlock()
		if x := a.State().Controller; x != nameStock+": quic-go has changed" {
			t.Errorf("%q", x)
		}
	})
}
