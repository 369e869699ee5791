package l2ext_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestTwinIsDropped starts a VM twice: the copy at the site that does not own it
// reaches nobody at the other sites, and an operator is told.
func TestTwinIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{Delay: 5 * time.Millisecond}, "a", "b", "c")
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		check(t, w.ms["b"].Settle(t.Context(), "j", nics), w.ms["b"].Confirm(t.Context(), "j"), w.ms["a"].Confirm(t.Context(), "j"))
		w.pass(2 * time.Second) // its last frames from a have arrived
		w.receive("c", "lan", vmMAC)
		for range 50 {
			check(t, w.hosts["a"].Send("vm", frameTo(hostOf("c"), vmMAC, 100)), w.hosts["a"].Send("vm", frameTo(ether.Broadcast, vmMAC, 100)))
			w.pass(10 * time.Millisecond)
		}
		if got := w.receive("c", "lan", vmMAC); len(got) != 0 {
			t.Errorf("c got %d frames of the twin", len(got))
		}
		if n := w.count("a", l2ext.DropOwner); n != 100 {
			t.Errorf("%d frames were dropped", n)
		}
		if p := w.ms["a"].Segments()[0].Problem; !strings.Contains(p, vmMAC.String()) || !strings.Contains(p, "site b") {
			t.Errorf("problem %q", p)
		}
		w.want(vmMAC, "a: b 3 confirmed j; b: b 3 confirmed j; c: b 3 confirmed j")
		// A gateway that does not see to it is not believed.
		w.ms["a"].Forge(100, "c", frameTo(hostOf("c"), vmMAC, 100), false)
		w.pass(10 * time.Second)
		w.ms["a"].Forge(100, "c", frameTo(hostOf("c"), vmMAC, 100), false)
		w.settle()
		if n, got := w.count("c", l2ext.DropOwner), w.receive("c", "lan", vmMAC); n != 1 || len(got) != 1 {
			t.Errorf("c dropped %d and delivered %d frames; one of the two was on its way", n, len(got))
		}
	})
}

// TestFrameBeforeItsBinding: a gateway that was restarted during a move may see a frame
// of the VM from where it runs before the binding that says so. What it tells an operator
// then ends with that binding; while there is a twin, it stays.
func TestFrameBeforeItsBinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{Delay: 5 * time.Millisecond}, "a", "b")
		w.ms["b"].Forge(100, "a", frameTo(hostOf("a"), vmMAC, 100), false)
		w.pass(5 * time.Second)
		if p := w.problem("a"); !strings.Contains(p, "sends from b as well") {
			t.Errorf("while the VM is at a: %q", p)
		}
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		check(t, w.ms["b"].Settle(t.Context(), "j", nics), w.ms["b"].Confirm(t.Context(), "j"), w.ms["a"].Confirm(t.Context(), "j"))
		w.pass(2 * time.Second)
		if p := w.problem("a"); p != "" {
			t.Errorf("when it has moved to b: %q", p)
		}
	})
}

// TestTwinsStayHome lets both copies of a VM announce themselves for long: it
// stays where a job has brought it, until an operator clears it.
func TestTwinsStayHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{}, "a", "b", "c")
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		check(t, w.ms["b"].Settle(t.Context(), "j", nics), w.ms["b"].Confirm(t.Context(), "j"), w.ms["a"].Confirm(t.Context(), "j"))
		w.pass(time.Minute) // the job's word counts no more than the eyes
		for i := range 30 {
			w.appear([]string{"a", "b"}[i%2], "vm", vmMAC, "10.0.0.9")
			w.pass(2 * time.Second)
		}
		for _, text := range strings.Split(w.where(vmMAC), "; ") {
			if !strings.Contains(text, ": b ") {
				t.Errorf("the VM is at %s", text)
			}
		}
		if b, _ := binding(w.ms["a"], vmMAC); b.State != l2ext.Frozen {
			t.Errorf("binding %+v", b)
		}
		check(t, w.ms["c"].Clear(t.Context(), "prod", vmMAC))
		w.settle()
		w.appear("a", "vm", vmMAC, "10.0.0.9")
		if got := w.where(vmMAC); !strings.HasPrefix(got, "a: a ") || !strings.Contains(got, "c: a ") {
			t.Errorf("after Clear it is at %s", got)
		}
		if w.ms["c"].Clear(t.Context(), "none", vmMAC) == nil || w.ms["c"].Clear(t.Context(), "prod", l2ext.MAC{2}) == nil {
			t.Error("what is not was cleared")
		}
	})
}

// TestJobEndsFreeze has a MAC freeze that moves too often without a job, and then a job move it: the job knows where it
// is, for all sites. It then goes without one where it is seen, like any other.
func TestJobEndsFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{}, "a", "b", "c")
		w.hosts["c"].Plug("br", "vm")
		check(t, w.ms["a"].Revoke(t.Context(), "j"), w.ms["b"].Revoke(t.Context(), "j"))
		frozen := func() (at string) {
			for _, site := range []string{"a", "b", "c"} {
				if b, _ := binding(w.ms[site], vmMAC); b.State == l2ext.Frozen {
					at += site
				}
			}
			return at
		}
		for i := 0; frozen() == "" && i < 20; i++ {
			w.appear([]string{"b", "a"}[i%2], "vm", vmMAC, "10.0.0.9")
			w.pass(2 * time.Second)
		}
		b, _ := binding(w.ms["a"], vmMAC)
		from, to := b.Site, map[string]string{"a": "b", "b": "a"}[b.Site]
		w.appear(to, "vm", vmMAC, "10.0.0.9") // until those who watch have counted as many
		if frozen() == "" {
			t.Fatal("nothing is frozen")
		}
		check(t, w.ms[from].Prepare(t.Context(), "k", nics, to), w.ms[from].Flip(t.Context(), "k"))
		w.settle()
		check(t, w.ms[to].Settle(t.Context(), "k", nics), w.ms[from].Confirm(t.Context(), "k"), w.ms[to].Confirm(t.Context(), "k"))
		w.settle()
		if at := frozen(); at != "" {
			t.Errorf("after the job it is frozen at %s", at)
		}
		w.pass(31 * time.Second)
		w.appear(from, "vm", vmMAC, "10.0.0.9")
		if got := w.where(vmMAC); strings.Count(got, ": "+from+" ") != 3 {
			t.Errorf("it has come back to %s, and is at %s", from, got)
		}
	})
}

func binding(m *l2ext.Manager, mac l2ext.MAC) (l2ext.Binding, bool) {
	for _, b := range m.Segments()[0].Bindings {
		if b.MAC == mac {
			return b, true
		}
	}
	return l2ext.Binding{}, false
}
