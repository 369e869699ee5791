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

// plug puts a cable between two LANs, and goes on until both sites know.
func (w *world) plug(a, b string) {
	for w.problem(a) == "" || w.problem(b) == "" {
		w.pass(100 * time.Millisecond)
		w.backDoor(a, b)
	}
	w.settle()
}

// TestRestoreToNobody has a host of a site taken for one of another, by a cable, and the
// first site leave the segment before the cable is known: the host does not go back there.
func TestRestoreToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		w.appear("c", "lan", vmMAC, "10.0.0.9")
		w.pass(time.Minute)
		check(t, w.hosts["a"].Send("lan", frameTo(ether.Broadcast, vmMAC, 100)))
		w.settle()
		for _, site := range []string{"a", "b"} {
			check(t, w.ms[site].Apply(t.Context(), []l2ext.Segment{segment(site, []string{"a", "b"})}))
		}
		w.plug("a", "b")
		if got := w.where(vmMAC); !strings.Contains(got, "a: a ") || !strings.Contains(got, "b: a ") {
			t.Errorf("the host is at %s", got)
		}
	})
}

// TestRestoreNewHost has a host come up at a site a moment before a cable makes another
// site take it: it goes back where it was heard first.
func TestRestoreNewHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		w.pass(time.Minute)
		w.appear("c", "lan", vmMAC, "10.0.0.9")
		w.pass(time.Second)
		check(t, w.hosts["a"].Send("lan", frameTo(ether.Broadcast, vmMAC, 100)))
		w.settle()
		if got := w.where(vmMAC); strings.Count(got, ": a ") != 3 {
			t.Fatalf("before the joint is known: %s", got)
		}
		w.plug("a", "b")
		if got := w.where(vmMAC); strings.Count(got, ": c ") != 3 {
			t.Errorf("the host is at %s", got)
		}
	})
}
