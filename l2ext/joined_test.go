package l2ext_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// hub joins the LANs of all sites for a time.
func (w *world) hub(d time.Duration, sites ...string) {
	for began := time.Now(); time.Since(began) < d; w.pass(20 * time.Millisecond) {
		for _, from := range sites {
			for f := w.hosts[from].Receive("lan"); f != nil; f = w.hosts[from].Receive("lan") {
				for _, to := range sites {
					if to != from {
						check(w.t, w.hosts[to].Send("lan", f))
					}
				}
			}
		}
	}
}

// TestThreeLANsJoined has three LANs be one while the links are away, so that each site
// takes a host for its own, and the links come back: the sites agree where it is, and stay
// so, though the signs that a LAN is joined with the others come in turn.
func TestThreeLANsJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites := []string{"a", "b", "c"}
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, sites...)
		for _, s := range sites {
			w.wire.Isolate(s)
		}
		w.pass(2 * time.Minute) // what each knew of the others' probes is over
		for _, s := range sites {
			check(t, w.hosts[s].Send("lan", frameTo(ether.Broadcast, vmMAC, 100)))
		}
		w.hub(10*time.Second, sites...)
		for _, s := range sites {
			w.wire.Rejoin(s)
		}
		w.hub(30*time.Second, sites...)
		before := w.where(vmMAC)
		w.hub(30*time.Second, sites...)
		if after := w.where(vmMAC); after != before {
			t.Errorf("the host is at %s, and half a minute later at %s", before, after)
		}
		for _, s := range sites {
			if trips := w.countOf(s, l2ext.LoopTrips); trips > 6 {
				t.Errorf("site %s counts %d joints with two other LANs", s, trips)
			}
		}
	})
}
