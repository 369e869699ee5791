package l2ext_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestWayToldAgain: how a site carries a segment is told to who has just come to have it, and
// again when the word was lost.
func TestWayToldAgain(t *testing.T) {
	inMode(t, l2ext.Direct)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 10 * time.Millisecond}, "a", "b")
		known := func(when string) {
			t.Helper()
			for site, m := range w.ms {
				if y := m.Segments()[0].Ways[0]; y.Mode != l2ext.Direct || !y.Addr.IsValid() {
					t.Errorf("%s: site %s knows %+v", when, site, y)
				}
			}
		}
		apply := func(site string, segments ...l2ext.Segment) {
			check(t, w.ms[site].Apply(t.Context(), segments))
		}
		known("at first")
		apply("b")
		w.pass(time.Minute)
		apply("b", segment("b", []string{"a", "b"}))
		w.settle()
		known("made anew at one site")

		apply("a")
		apply("b")
		w.wire.Mute(true)
		apply("a", segment("a", []string{"a", "b"}))
		apply("b", segment("b", []string{"a", "b"}))
		w.settle()
		w.wire.Mute(false)
		w.pass(11 * time.Second)
		known("after all was lost")
	})
}
