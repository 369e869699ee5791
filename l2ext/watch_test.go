package l2ext_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestWatchedJobEnds has a third site watch the jobs of two others. It knows when they
// end, whichever way, from nobody but their source, and some time later also where the
// word was lost.
func TestWatchedJobEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 5 * time.Millisecond}, "a", "b", "c")
		ctx, a, b := t.Context(), w.ms["a"], w.ms["b"]
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		prepare := func(job string) {
			t.Helper()
			check(t, a.Prepare(ctx, job, nics, "b"))
			w.settle()
			w.want(vmMAC, "a: a 2 pending "+job+"; b: a 2 pending "+job+"; c: a 2 pending "+job)
		}
		prepare("given up") // as a rehearsal is
		check(t, a.Revoke(ctx, "given up"), b.Revoke(ctx, "given up"))
		w.settle()
		w.want(vmMAC, "a: a 2 confirmed; b: a 2 confirmed; c: a 2 confirmed")

		prepare("j")
		for _, foreign := range []announce.Message{
			{Kind: announce.Over, VNI: 100, Job: "j"},
			{Kind: announce.Prepare, VNI: 100, Job: "j", Site: "b", MACs: []announce.MAC{announce.MAC(hostOf("c"))}},
		} {
			text, err := foreign.Append(nil)
			check(t, err, w.ms["c"].HandleUrgent("b", text), a.HandleUrgent("c", text), a.HandleUrgent("b", text))
		}
		w.settle()
		w.want(vmMAC, "a: a 2 pending j; b: a 2 pending j; c: a 2 pending j")
		w.wire.Cut()
		check(t, a.Flip(ctx, "j"), b.Settle(ctx, "j", nics), a.Confirm(ctx, "j"), b.Confirm(ctx, "j"))
		w.settle()
		w.wire.Heal()
		w.pass(11 * time.Second) // a digest
		w.want(vmMAC, "a: b 3 confirmed j; b: b 3 confirmed j; c: b 3 flipped j")
		w.pass(11 * time.Minute)
		w.want(vmMAC, "a: b 3 confirmed j; b: b 3 confirmed j; c: b 3 confirmed j")
		for site, m := range w.ms {
			if n := m.Jobs(ctx); n != 0 {
				t.Errorf("site %s still knows %d jobs", site, n)
			}
		}
	})
}
