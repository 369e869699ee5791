package l2ext_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
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
		if g, err := w.gap("a", "j"); err != nil || g.After < 0 || g.Held != 5 {
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

// TestPausedBehindACut is the same with the link cut from the flip on, at most until after the next one: what is lost of that by
// which the source tells of it is made up for by what comes later.
func TestPausedBehindACut(t *testing.T) {
	const (
		whilePaused = iota // it is back before the VM runs again
		whileItRuns        // or before it stops again
		whenStopped        // or after that
	)
	for name, back := range map[string]int{"back while it is paused": whilePaused, "back while it runs": whileItRuns, "back when it has stopped": whenStopped} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := switching(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
				ctx, a, b := t.Context(), w.ms["a"], w.ms["b"]
				at := func(moment int) {
					if moment == back {
						w.wire.Heal()
					}
					w.settle()
				}
				check(t, a.Flip(ctx, "j"))
				w.settle()
				w.wire.Cut()
				at(whilePaused)
				check(t, a.Revoke(ctx, "j"), a.Prepare(ctx, "j", nics, "b"))
				at(whileItRuns)
				if s := w.hosts["b"].String(); back <= whileItRuns && !strings.Contains(s, "muted") {
					t.Errorf("before the second stop host b is\n%s", s)
				}
				check(t, a.Flip(ctx, "j"))
				at(whenStopped)
				if s := w.hosts["b"].String(); !strings.Contains(s, "muted") {
					t.Errorf("host b is\n%s", s)
				}
				w.say("c", 1)
				w.settle()
				if n := w.count("b", l2ext.Parked); n != 1 {
					t.Errorf("%d frames were parked", n)
				}
				check(t, b.Settle(ctx, "j", nics))
				check(t, w.hosts["b"].Send("vm", frameTo(hostOf("c"), vmMAC, 100)))
				w.settle()
				if g, err := w.gap("a", "j"); err != nil || g.After < 0 || g.Held != 1 {
					t.Errorf("gap %+v, %v", g, err)
				}
				check(t, a.Confirm(ctx, "j"), b.Confirm(ctx, "j"))
				w.settle()
				if got := w.told("b", "vm"); !slices.Equal(got, []int{1}) {
					t.Errorf("at its destination the VM got %v", got)
				}
				if got := w.where(vmMAC); strings.Count(got, ": b ") != 3 || strings.Count(got, " confirmed j") != 3 {
					t.Errorf("the VM is at %s", got)
				}
			})
		})
	}
}

// TestSecondPrepareIsLost: the second flip alone makes up for it.
func TestSecondPrepareIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b")
		ctx, a, b := t.Context(), w.ms["a"], w.ms["b"]
		check(t, a.Flip(ctx, "j"))
		w.settle()
		check(t, a.Revoke(ctx, "j"))
		w.settle()
		w.wire.Mute(true)
		check(t, a.Prepare(ctx, "j", nics, "b"))
		w.settle()
		w.wire.Mute(false)
		check(t, a.Flip(ctx, "j"))
		w.settle()
		w.say("a", 1)
		w.settle()
		check(t, w.hosts["b"].Send("vm", frameTo(hostOf("a"), vmMAC, 100))) // it runs, before anybody says so
		w.settle()
		if got := w.told("b", "vm"); !slices.Equal(got, []int{1}) {
			t.Errorf("the VM got %v", got)
		}
		check(t, b.Settle(ctx, "j", nics))
	})
}

// secondStopIsLost has the VM stop, go on, and stop again, of which the others hear nothing.
func (w *world) secondStopIsLost(a *l2ext.Manager) {
	w.t.Helper()
	ctx := w.t.Context()
	check(w.t, a.Flip(ctx, "j"))
	w.settle()
	check(w.t, a.Revoke(ctx, "j"))
	w.settle()
	w.wire.Mute(true)
	check(w.t, a.Prepare(ctx, "j", nics, "b"), a.Flip(ctx, "j"))
	w.settle()
	w.wire.Mute(false)
}

// TestSecondPrepareAndFlipAreLost: that the VM runs at its destination is enough. Its network is whole at once, and no later
// word of the lost flip takes broadcasts from it again.
func TestSecondPrepareAndFlipAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		ctx, a, b := t.Context(), w.ms["a"], w.ms["b"]
		w.secondStopIsLost(a)
		w.hosts["a"].Unplug("br", "vm")
		check(t, b.Settle(ctx, "j", nics))
		check(t, w.hosts["b"].Send("vm", frameTo(hostOf("c"), vmMAC, 100)))
		w.settle()
		if f := w.hosts["c"].Receive("lan"); f == nil {
			t.Error("the third site got nothing of the VM")
		}
		for _, s := range []string{"a", "b", "c"} {
			w.say(s, int(s[0]))
		}
		w.pass(100 * time.Millisecond)
		if got := w.told("b", "vm"); !slices.Equal(got, []int{'b', 'a', 'c'}) {
			t.Errorf("the VM got %v", got)
		}
		check(t, a.Confirm(ctx, "j"), b.Confirm(ctx, "j"))
		w.pass(time.Minute) // and all that the sites tell each other again
		if got := w.where(vmMAC); strings.Count(got, ": b ") != 3 || strings.Count(got, " confirmed j") != 3 {
			t.Errorf("the VM is at %s", got)
		}
		if s := w.hosts["b"].String(); strings.Contains(s, "muted") {
			t.Errorf("host b is\n%s", s)
		}
	})
}

// TestAllButTheEndIsLost is the same where Settle does not come either, as the gateway was busy: that the job is over opens
// the VM's port for good, and the next digest brings the rest.
func TestAllButTheEndIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b")
		ctx, a, b := t.Context(), w.ms["a"], w.ms["b"]
		w.secondStopIsLost(a)
		check(t, a.Confirm(ctx, "j"), b.Confirm(ctx, "j"))
		w.pass(11 * time.Second) // a digest, and a tick
		w.want(vmMAC, "a: b 6 confirmed j; b: b 6 confirmed j")
		w.say("a", 1)
		w.pass(100 * time.Millisecond)
		if got := w.told("b", "vm"); !slices.Equal(got, []int{1}) {
			t.Errorf("the VM got %v", got)
		}
		if s := w.hosts["b"].String(); strings.Contains(s, "muted") {
			t.Errorf("host b is\n%s", s)
		}
	})
}

// TestOldWordOfAJob: a third site that was cut off comes with what held before. It neither begins a job's gap nor ends the job.
func TestOldWordOfAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{}, "a", "b", "c")
		ctx, a, b := t.Context(), w.ms["a"], w.ms["b"]
		old := func(seq uint64, site string) []byte {
			r := announce.Record{MAC: announce.MAC(vmMAC), Cause: announce.Moved, Seq: seq, Site: site, Job: "j"}
			msg, err := announce.Message{Kind: announce.Update, VNI: 100, Records: []announce.Record{r}}.Append(nil)
			check(t, err)
			return msg
		}
		check(t, a.Flip(ctx, "j"))
		w.settle()
		check(t, a.Revoke(ctx, "j"), a.Prepare(ctx, "j", nics, "b"))
		w.settle()
		w.want(vmMAC, "a: a 5 pending j; b: a 5 pending j; c: a 5 pending j")
		check(t, b.HandleUrgent("c", old(3, "b")))
		w.settle()
		w.want(vmMAC, "a: a 5 pending j; b: a 5 pending j; c: a 5 pending j")
		check(t, a.Flip(ctx, "j"))
		check(t, a.HandleUrgent("c", old(5, "a")))
		w.pass(20 * time.Millisecond)
		check(t, b.Settle(ctx, "j", nics), w.hosts["b"].Send("vm", frameTo(hostOf("b"), vmMAC, 100)))
		w.settle()
		if g, err := w.gap("a", "j"); err != nil || g.After < 20*time.Millisecond || g.After > 25*time.Millisecond {
			t.Errorf("gap %+v, %v", g, err)
		}
		check(t, a.Confirm(ctx, "j"))
	})
}

// TestPrepareOfAForgottenJob: a source that was cut off for long tells once more of a job that its destination has ended and forgotten.
func TestPrepareOfAForgottenJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{}, "a", "b", "c")
		ctx, a, b := t.Context(), w.ms["a"], w.ms["b"]
		w.wire.Isolate("a")
		check(t, b.Settle(ctx, "j", nics), b.Confirm(ctx, "j"))
		w.pass(15 * time.Minute)
		w.wire.Rejoin("a")
		w.settle()
		if n := b.Jobs(ctx); n != 0 {
			t.Errorf("the destination knows %d jobs", n)
		}
		check(t, a.Confirm(ctx, "j"))
		w.settle()
		w.want(vmMAC, "a: b 3 confirmed j; b: b 3 confirmed j; c: b 3 confirmed j")
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
