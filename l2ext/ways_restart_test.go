package l2ext_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestDirectAfterRestart restarts a gateway in mode direct, whose hosts' frames the kernel
// carries: it has them sent to the other site again as soon as that one has said where.
func TestDirectAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const line = 20 * time.Millisecond
		w := emptyWorld(t, l2exttest.Line{Delay: line})
		sites := []string{"a", "b"}
		wish := func(site string) {
			t.Helper()
			s := segment(site, sites)
			s.Mode = l2ext.Direct
			check(t, w.ms[site].Apply(t.Context(), []l2ext.Segment{s}))
		}
		w.begin(sites)
		wish("a")
		wish("b")
		w.appear("b", "lan", vmMAC, "10.0.0.9")
		w.pass(2 * time.Second)
		for try := range 10 { // at another moment between two ticks each
			w.wire.Cut()
			w.stop["a"]()
			w.make("a")
			w.wire.Join(w.ms)
			w.start("a", sites)
			wish("a")
			w.pass(time.Duration(try) * 100 * time.Millisecond)
			w.wire.Heal()
			began := time.Now()
			for !strings.Contains(w.hosts["a"].String(), "10.9.0.98") && time.Since(began) < 5*time.Second {
				w.pass(time.Millisecond)
			}
			if took := time.Since(began); took > 4*line+200*time.Millisecond {
				t.Errorf("try %d: it took %v\n%s", try, took, w.hosts["a"])
			}
			w.pass(2 * time.Second)
		}
	})
}
