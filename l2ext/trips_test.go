package l2ext_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// noStreams can open none.
type noStreams struct{}

func (noStreams) OpenStream(context.Context, string) (l2ext.Stream, error) {
	return nil, errors.New("none")
}

func (noStreams) Line(string) l2ext.Line { return l2ext.Line{} }

// TestTrips has three sites of which one is home. Each knows how far the other two are from itself, and by
// what they tell how far they are from each other: as long as they tell it.
func TestTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const far = 70 * time.Millisecond
		w := emptyWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond})
		w.first = l2ext.Policy{Home: "c"}
		w.change = func(c *l2ext.Config) {
			c.Streams = noStreams{} // by whose ability they tell that they take a trip
			if c.Site == "b" {
				c.RTT = func(site string) (time.Duration, bool) { return far, site == "c" }
			}
		}
		w.begin([]string{"a", "b", "c"})
		w.pass(15 * time.Second)
		between := func() (time.Duration, bool) { return w.ms["a"].Segments()[0].RTT("c", "b") }
		if rtt, ok := between(); rtt != far || !ok {
			t.Errorf("from b to c takes %v, %t", rtt, ok)
		}
		if rtt, ok := w.ms["a"].Segments()[0].RTT("a", "c"); ok {
			t.Errorf("a has told itself that it takes %v", rtt)
		}
		w.wire.Isolate("b")
		w.pass(time.Minute)
		if rtt, ok := between(); ok {
			t.Errorf("b is away, and from there to c takes %v", rtt)
		}
		// One that speaks of itself, or of a site that is not on the segment, is refused.
		w.wire.Rejoin("b")
		for _, to := range []string{"b", "z"} {
			msg, err := announce.Message{Kind: announce.Trip, VNI: 100, Site: to, RTT: time.Second}.Append(nil)
			check(t, err)
			if err := w.ms["a"].HandleUrgent("b", msg); err == nil {
				t.Errorf("b may tell of a trip to %s", to)
			}
		}
	})
}
