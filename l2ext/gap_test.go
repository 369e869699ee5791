package l2ext_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// gap tells what a site knows of a job's gap, at the latest in a minute.
func (w *world) gap(site, job string) (l2ext.Gap, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	return w.ms[site].Gap(ctx, job)
}

// TestGapWhenSettledFirst: the gateway of the source is told of the STOP when the VM runs at its destination already, or
// nearly so. Its silence is measured all the same.
func TestGapWhenSettledFirst(t *testing.T) {
	const delay = 20 * time.Millisecond
	for name, late := range map[string]time.Duration{"both at once": delay / 2, "after its record": 2 * delay, "at the same time": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldWith(t, func(c *l2ext.Config) {
					c.RTT = func(string) (time.Duration, bool) { return 2 * delay, true }
				}, l2exttest.Line{Delay: delay}, "a", "b")
				w.toSwitch("a", "b")
				check(t, w.hosts["a"].Send("vm", frameTo(hostOf("a"), vmMAC, 100)))
				w.pass(30 * time.Millisecond)
				check(t, w.ms["b"].Settle(t.Context(), "j", nics))
				w.pass(late)
				check(t, w.ms["a"].Flip(t.Context(), "j"))
				w.pass(50*time.Millisecond - late)
				check(t, w.hosts["b"].Send("vm", frameTo(hostOf("a"), vmMAC, 100)))
				w.settle()
				g, err := w.gap("a", "j")
				check(t, err)
				// 50 from Settle on; before that 30, and the way of what the destination says of it
				if want := (l2ext.Gap{Before: 30*time.Millisecond + delay, After: 50 * time.Millisecond, SettledFirst: true}); g != want {
					t.Errorf("gap %+v, want %+v", g, want)
				}
				if got, want := g.Silence(2*delay), 80*time.Millisecond; got != want {
					t.Errorf("silence of %v, was %v", got, want)
				}
			})
		})
	}
}

// TestGapWhenFlippedFirst: the VM runs at its destination just after the flip has come. The way of the flip counts.
func TestGapWhenFlippedFirst(t *testing.T) {
	const delay = 20 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, func(c *l2ext.Config) {
			c.RTT = func(string) (time.Duration, bool) { return 2 * delay, true }
		}, l2exttest.Line{Delay: delay}, "a", "b", "c")
		w.toSwitch("a", "b", "c")
		check(t, w.hosts["a"].Send("vm", frameTo(hostOf("a"), vmMAC, 100)))
		w.pass(30 * time.Millisecond)
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.pass(delay + time.Millisecond)
		check(t, w.ms["b"].Settle(t.Context(), "j", nics))
		w.pass(4 * time.Millisecond)
		check(t, w.hosts["b"].Send("vm", frameTo(hostOf("a"), vmMAC, 100)))
		w.settle()
		g, err := w.gap("a", "j")
		check(t, err)
		if want := (l2ext.Gap{Before: 30 * time.Millisecond, After: 5 * time.Millisecond}); g != want {
			t.Errorf("gap %+v, want %+v", g, want)
		}
		if got, want := g.Silence(2*delay), 55*time.Millisecond; got != want {
			t.Errorf("silence of %v, was %v", got, want)
		}
	})
}

// TestGapOfAJobNotHeardOf: the link was away when the move was prepared. Its destination knows the source all the same, when
// the link is back.
func TestGapOfAJobNotHeardOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{}, "a", "b")
		check(t, w.ms["a"].Revoke(t.Context(), "j"), w.ms["b"].Revoke(t.Context(), "j"))
		w.settle()
		w.wire.Cut()
		check(t, w.ms["a"].Prepare(t.Context(), "k", nics, "b"), w.ms["b"].Expect(t.Context(), "k", nics))
		w.settle()
		w.wire.Heal()
		w.settle()
		check(t, w.ms["a"].Flip(t.Context(), "k"))
		w.settle()
		check(t, w.ms["b"].Settle(t.Context(), "k", nics), w.hosts["b"].Send("vm", frameTo(hostOf("a"), vmMAC, 100)))
		w.settle()
		if g, err := w.gap("a", "k"); err != nil || g.After != 500*time.Millisecond {
			t.Errorf("gap %+v, %v", g, err)
		}
	})
}
