package l2ext_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
	loopprobe "github.com/longhaul-project/longhaul/l2ext/probe"
)

// oneWay carries what one LAN port gets to another, as a cable does of which the other
// way is broken, until a site knows of it or a time has passed.
func (w *world) oneWay(from, to string, knows string, patience time.Duration) (known bool) {
	for plugged := time.Now(); time.Since(plugged) < patience; w.pass(20 * time.Millisecond) {
		for f := w.hosts[from].Receive("lan"); f != nil; f = w.hosts[from].Receive("lan") {
			check(w.t, w.hosts[to].Send("lan", f))
		}
		if strings.Contains(w.problem(knows), "joined by another way") {
			return true
		}
	}
	return false
}

// knownWithin is how soon a cable is known at both ends: a period of the probes, and
// what the lines of these tests need.
const knownWithin = 1200 * time.Millisecond

// TestLateSegment has one of two sites get the segment when the other has said already
// how its probes are signed: it believes them all the same.
func TestLateSegment(t *testing.T) {
	for late, early := range map[string]string{"a": "b", "b": "a"} {
		t.Run(late, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := emptyWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond})
				sites := []string{"a", "b"}
				w.make("a")
				w.make("b")
				w.wire.Join(w.ms)
				w.start(early, sites)
				w.runWire()
				w.pass(2 * time.Second)
				w.start(late, sites)
				w.pass(2 * time.Second)
				if !w.oneWay(early, late, late, knownWithin) {
					t.Errorf("site %s does not know of the cable; counts %v", late, w.ms[late].Segments()[0].Counts)
				}
			})
		})
	}
}

// TestOneWayCable has probes pass a cable in one way only: both sites know of it.
func TestOneWayCable(t *testing.T) {
	for from, to := range map[string]string{"a": "b", "b": "a"} {
		t.Run("from "+from, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b")
				w.pass(2 * time.Second)
				if !w.oneWay(from, to, from, knownWithin) {
					t.Errorf("site %s does not know of the cable", from)
				}
			})
		})
	}
}

// TestOneWayCableStays is the same for longer than a site is believed that only says so: the cable shows only at the one
// end, which names the probes that it brings. The other end's broadcast stays shut, or the LANs get two copies of it.
func TestOneWayCableStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, func(c *l2ext.Config) { c.Streams = noStreams{} }, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b")
		for plugged := time.Now(); time.Since(plugged) < 12*time.Minute; w.pass(time.Second) {
			for f := w.hosts["b"].Receive("lan"); f != nil; f = w.hosts["b"].Receive("lan") {
				check(t, w.hosts["a"].Send("lan", f))
			}
			if p := w.problem("b"); time.Since(plugged) > 2*time.Second && !strings.Contains(p, "shut at this site") {
				t.Fatalf("after %v: problem %q", time.Since(plugged), p)
			}
		}
		w.pass(62 * time.Second)
		if p := w.problem("b"); p != "" {
			t.Errorf("when the cable is out: problem %q", p)
		}
	})
}

// TestClaimedLoop has a site say, over and over, that its LAN is joined with that of a site with a higher name, of which
// nothing shows there. That one does not shut its broadcast for ever, and still does when there is a cable.
func TestClaimedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b")
		claims := []announce.Message{
			{Kind: announce.Loop, VNI: 100, Site: "a"}, {Kind: announce.Cable, VNI: 100, Site: "a"}, // or a probe that it makes up
			{Kind: announce.Cable, VNI: 100, Site: "a", Nonce: 1}, {Kind: announce.Cable, VNI: 100, Site: "a", Nonce: 1 << 40},
		}
		var shut time.Duration
		for i := range 2 * 360 {
			claim, err := claims[i%len(claims)].Append(nil)
			check(t, err, w.ms["b"].HandleUrgent("a", claim))
			w.pass(10 * time.Second)
			if strings.Contains(w.problem("b"), "shut at this site") {
				shut += 10 * time.Second
			}
		}
		if shut < 10*time.Minute || shut > 15*time.Minute {
			t.Errorf("broadcast was shut for %v of 2 hours", shut)
		}
		if p := w.problem("b"); !strings.Contains(p, "of which nothing shows here") {
			t.Errorf("problem %q", p)
		}
		for w.hosts["a"].Receive("lan") != nil { // old probes
		}
		if !w.oneWay("a", "b", "b", knownWithin) || !strings.Contains(w.problem("b"), "shut at this site") {
			t.Errorf("with a cable: problem %q", w.problem("b"))
		}
	})
}

// TestProbeRepeated has a guest repeat a probe that a cable has brought: it tells nothing any more, and broadcast is opened as
// if it had not been.
func TestProbeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		w.pass(61 * time.Second) // the keys are new
		for w.hosts["a"].Receive("lan") != nil {
		}
		w.pass(2 * time.Second)
		probe := w.hosts["a"].Receive("lan")
		if !loopprobe.Is(probe) {
			t.Fatalf("no probe: % x", probe)
		}
		for n := range 11 {
			check(t, w.hosts["b"].Send("lan", probe))
			w.pass(5 * time.Second)
			if p := w.problem("b"); !strings.Contains(p, "shut at this site") {
				t.Fatalf("after %d: problem %q", n, p)
			}
		}
		w.pass(6 * time.Second)
		if p := w.problem("b"); p != "" {
			t.Errorf("problem %q", p)
		}
	})
}

// TestProbeSentBack has a guest send its own gateway's probes back while the LAN is joined
// with that of another site: the joint stays known.
func TestProbeSentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b")
		w.pass(2 * time.Second)
		if !w.oneWay("b", "a", "a", knownWithin) {
			t.Fatal("site a does not know of the cable")
		}
		w.pass(time.Second)
		for f := w.hosts["a"].Receive("lan"); f != nil; f = w.hosts["a"].Receive("lan") {
			check(t, w.hosts["a"].Send("lan", f))
		}
		w.settle()
		if p := w.problem("a"); !strings.Contains(p, "joined by another way") || w.countOf("a", l2ext.LoopTrips) != 1 {
			t.Errorf("problem %q, %d trips", p, w.countOf("a", l2ext.LoopTrips))
		}
	})
}

// TestSegmentMadeAnew takes a segment away and makes it anew under the same key: the probes
// that follow go on in number, so that sites which have seen others take none for an old one.
func TestSegmentMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b")
		last := func() (nonce uint64) {
			w.pass(6 * time.Second)
			for f := w.hosts["a"].Receive("lan"); f != nil; f = w.hosts["a"].Receive("lan") {
				if p, err := loopprobe.Parse(f); err == nil {
					nonce = p.Nonce
				}
			}
			return nonce
		}
		before := last()
		check(t, w.ms["a"].Apply(t.Context(), nil))
		check(t, w.ms["a"].Apply(t.Context(), []l2ext.Segment{segment("a", []string{"a", "b"})}))
		if after := last(); before == 0 || after <= before {
			t.Errorf("its last probe has number %d, that of the one before had %d", after, before)
		}
	})
}
