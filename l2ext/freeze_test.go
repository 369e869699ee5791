package l2ext_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// freezing is a world of three sites in which two claim the MAC of a VM in turn until it is frozen at b.
// It is at a, which has counted one move less.
func freezing(t *testing.T) *world {
	t.Helper()
	w := emptyWorld(t, l2exttest.Line{Delay: 5 * time.Millisecond})
	w.change = func(c *l2ext.Config) { c.Streams = noStreams{} } // by whose ability they tell what they take
	sites := []string{"a", "b", "c"}
	w.begin(sites)
	w.toSwitch(sites...)
	check(t, w.ms["a"].Revoke(t.Context(), "j"), w.ms["b"].Revoke(t.Context(), "j"))
	w.pass(31 * time.Second) // its word counts no more
	w.freeze()
	return w
}

// freeze has b and a claim the VM in turn, five times.
func (w *world) freeze() {
	w.t.Helper()
	for i := range 5 {
		w.appear([]string{"b", "a"}[i%2], "vm", vmMAC, "10.0.0.9")
		w.pass(2 * time.Second)
	}
	w.wantFrozen("after five moves", "a: frozen [b]; b: frozen [b]; c: frozen [b]")
}

func (w *world) wantFrozen(when, want string) {
	w.t.Helper()
	var all []string
	for _, site := range []string{"a", "b", "c"} {
		b, _ := binding(w.ms[site], vmMAC)
		all = append(all, fmt.Sprintf("%s: %s %v", site, b.State, b.FrozenAt))
	}
	if got := strings.Join(all, "; "); got != want {
		w.t.Errorf("%s\ngot  %s\nwant %s", when, got, want)
	}
}

const thawed = "a: confirmed []; b: confirmed []; c: confirmed []"

// TestFreezeIsSeen: that a MAC is frozen at b is seen at all sites, and can be ended at each of them.
func TestFreezeIsSeen(t *testing.T) {
	for _, site := range []string{"a", "b", "c"} {
		t.Run("cleared at "+site, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := freezing(t)
				for _, s := range []string{"a", "c"} {
					if p := w.problem(s); !strings.Contains(p, vmMAC.String()+" is frozen at site b, and stays at a") {
						t.Errorf("problem at %s: %q", s, p)
					}
				}
				check(t, w.ms[site].Clear(t.Context(), "prod", vmMAC))
				if b, _ := binding(w.ms[site], vmMAC); b.State != l2ext.Confirmed {
					t.Errorf("where it was cleared it is %s", b.State)
				}
				w.pass(2 * time.Second)
				w.wantFrozen("when it is cleared", thawed)
				w.pass(15 * time.Second) // digests change nothing
				w.wantFrozen("for long", thawed)
				for _, s := range []string{"a", "c"} {
					if p := w.problem(s); p != "" {
						t.Errorf("problem at %s: %q", s, p)
					}
				}
				w.appear("b", "vm", vmMAC, "10.0.0.9")
				if got := w.where(vmMAC); strings.Count(got, ": b ") != 3 {
					t.Errorf("it has appeared at b, and is at %s", got)
				}
			})
		})
	}
}

// TestFreezeEnds by itself, for all sites, and so does one that a job ends.
func TestFreezeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := freezing(t)
		w.pass(9 * time.Minute)
		w.wantFrozen("after nine minutes", "a: frozen [b]; b: frozen [b]; c: frozen [b]")
		w.pass(time.Minute)
		w.wantFrozen("after ten minutes", thawed)
		w.freeze()
		check(t, w.ms["a"].Prepare(t.Context(), "k", nics, "b"))
		w.settle()
		w.wantFrozen("while a job prepares", "a: pending [b]; b: pending [b]; c: pending [b]")
		if got := w.dependents("a"); !strings.Contains(got, vmMAC.String()+" is being moved by job k") {
			t.Errorf("while a job prepares, on the segment depend: %s", got)
		}
		check(t, w.ms["a"].Flip(t.Context(), "k"))
		w.settle()
		check(t, w.ms["b"].Settle(t.Context(), "k", nics), w.ms["a"].Confirm(t.Context(), "k"), w.ms["b"].Confirm(t.Context(), "k"))
		w.pass(2 * time.Second)
		w.wantFrozen("after the job", thawed)
	})
}

// TestFreezeWhileCut: where the site at which a MAC is frozen cannot be told, who clears it elsewhere is told which
// that is. When it is back, all know again what is so.
func TestFreezeWhileCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := freezing(t)
		w.wire.Isolate("b")
		w.settle()
		if err := w.ms["a"].Clear(t.Context(), "prod", vmMAC); !errors.Is(err, l2ext.ErrUntold) || !strings.Contains(fmt.Sprint(err), "frozen at site b") {
			t.Errorf("while b is cut off: %v", err)
		}
		w.wantFrozen("while b is cut off", "a: frozen [b]; b: frozen [b]; c: frozen [b]")
		w.wire.Rejoin("b")
		w.pass(15 * time.Second)
		w.wantFrozen("when it is back", "a: frozen [b]; b: frozen [b]; c: frozen [b]")
		w.wire.Isolate("b")
		w.settle()
		check(t, w.ms["b"].Clear(t.Context(), "prod", vmMAC)) // the others have nothing to clear
		w.wire.Rejoin("b")
		w.settle()
		w.wantFrozen("when b has cleared it alone", thawed)
	})
}
