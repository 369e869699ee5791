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
