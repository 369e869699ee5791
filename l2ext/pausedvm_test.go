package l2ext_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestPausedWhileItMoves has an operator pause a VM that moves, and resume it. Its STOP was taken for that of
// the switchover, and is taken back; when it stops for good the network follows as if that had not been.
func TestPausedWhileItMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 20 * time.Millisecond
		w := switching(t, l2exttest.Line{Delay: delay}, "a", "b", "c")
		ctx, a, b := t.Context(), w.ms["a"], w.ms["b"]
		for n := range 2 { // once is chance
			check(t, a.Flip(ctx, "j"))
			w.settle()
			w.say("c", 10*n)
			w.pass(2 * delay)
			check(t, a.Revoke(ctx, "j"), a.Prepare(ctx, "j", nics, "b"))
			w.settle()
			w.say("c", 10*n+1)
			w.pass(2 * delay)
			if got := w.told("a", "vm"); !slices.Equal(got, []int{10 * n, 10*n + 1}) {
				t.Errorf("at its source the VM got %v", got)
			}
			if got := w.where(vmMAC); strings.Count(got, " pending j") != 3 || strings.Count(got, ": a ") != 3 {
				t.Errorf("the VM is at %s", got)
			}
			if s := w.hosts["b"].String(); !strings.Contains(s, "muted") {
				t.Errorf("host b is\n%s", s)
			}
		}
		check(t, a.Flip(ctx, "j"))
		w.settle()
		for n := range 5 {
			w.say("c", n)
		}
		w.pass(2 * delay)
		if n := w.count("b", l2ext.Parked); n != 7 {
			t.Errorf("%d frames were parked", n)
		}
		check(t, b.Settle(ctx, "j", nics))
		check(t, w.hosts["b"].Send("vm", frameTo(hostOf("c"), vmMAC, 100)))
		w.settle()
		if g, err := a.Gap(ctx, "j"); err != nil || g.After < 0 || g.Held != 5 {
			t.Errorf("gap %+v, %v", g, err)
		}
		check(t, a.Confirm(ctx, "j"), b.Confirm(ctx, "j"))
		w.settle()
		if got := w.told("b", "vm"); !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
			t.Errorf("at its destination the VM got %v", got)
		}
		if got := w.where(vmMAC); strings.Count(got, ": b ") != 3 || strings.Count(got, " confirmed j") != 3 {
			t.Errorf("the VM is at %s", got)
		}
		if s := w.hosts["b"].String(); strings.Contains(s, "muted") {
			t.Errorf("host b is\n%s", s)
		}
	})
}

// TestRevokedForGood: a job that its destination has revoked itself is not begun anew there, whatever its source says
// later: its port may be another VM's by then.
func TestRevokedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{}, "a", "b")
		ctx, a, b := t.Context(), w.ms["a"], w.ms["b"]
		check(t, a.Flip(ctx, "j"))
		w.settle()
		check(t, a.Revoke(ctx, "j"))
		w.settle()
		check(t, b.Revoke(ctx, "j"), a.Prepare(ctx, "j", nics, "b"))
		w.settle()
		if s := w.hosts["b"].String(); strings.Contains(s, "muted") {
			t.Errorf("host b is\n%s", s)
		}
		if b.Settle(ctx, "j", nics) == nil {
			t.Error("it was settled")
		}
	})
}
