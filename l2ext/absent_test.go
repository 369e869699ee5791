package l2ext_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestSegmentAtOneSiteOnly takes a segment away from one of three sites, and adds it
// again: the others say so, but not while they cannot know.
func TestSegmentAtOneSiteOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		absent := func(when, a, c string) {
			t.Helper()
			for site, want := range map[string]string{"a": a, "c": c} {
				got := w.problem(site)
				if want == "" && got != "" || !strings.Contains(got, want) {
					t.Errorf("%s: site %s says %q, want %q", when, site, got, want)
				}
			}
		}
		spans := func(site string, others ...string) l2ext.Segment { return segment(site, append(others, site)) }
		w.pass(5 * time.Minute)
		absent("all have it", "", "")
		check(t, w.ms["b"].Apply(t.Context(), nil))
		w.pass(20 * time.Second)
		absent("b may be starting anew", "", "")
		w.pass(20 * time.Second)
		absent("b has it no more", "not at site b", "not at site b")
		w.wire.Isolate("b")
		w.settle()
		absent("b cannot be asked", "", "")
		w.pass(5 * time.Minute)
		absent("b cannot be asked for long", "", "")
		w.wire.Rejoin("b")
		w.pass(20 * time.Second)
		absent("b is back", "", "")
		w.pass(20 * time.Second)
		absent("b is back without it", "not at site b", "not at site b")
		check(t, w.ms["b"].Apply(t.Context(), []l2ext.Segment{spans("b", "c")}))
		w.settle()
		absent("b has it, and does not know of a", "not at site b", "")
		check(t, w.ms["b"].Apply(t.Context(), []l2ext.Segment{spans("b", "a", "c")}))
		w.settle()
		absent("all have it again", "", "")
		check(t, w.ms["b"].Apply(t.Context(), nil), w.ms["a"].Apply(t.Context(), nil))
		w.pass(time.Minute)
		check(t, w.ms["a"].Apply(t.Context(), []l2ext.Segment{spans("a", "b", "c")}))
		w.pass(20 * time.Second)
		absent("a has just got it", "", "not at site b")
		w.pass(20 * time.Second)
		absent("a has it, and has never heard of it from b", "", "not at site b")
		check(t, w.ms["a"].Apply(t.Context(), nil), w.ms["c"].Apply(t.Context(), nil))
		w.pass(time.Minute)
		check(t, w.ms["a"].Apply(t.Context(), []l2ext.Segment{spans("a", "b", "c")}))
		w.pass(time.Minute)
		if got := w.problem("a"); !strings.Contains(got, "not at site b, c") {
			t.Errorf("a alone has it: %q", got)
		}
	})
}

// TestNeverAtOneSite has a segment at one of three sites, of which one cannot be asked: the
// other is missed. As soon as the one is known to have it, only that is.
func TestNeverAtOneSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites := []string{"a", "b", "c"}
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, sites...)
		for _, s := range sites {
			check(t, w.ms[s].Apply(t.Context(), nil))
		}
		w.pass(time.Minute)
		w.wire.Isolate("b")
		w.settle()
		check(t, w.ms["a"].Apply(t.Context(), []l2ext.Segment{segment("a", sites)}))
		w.pass(30 * time.Second)
		if got := w.problem("a"); got != "" {
			t.Errorf("c may be about to get it: %q", got)
		}
		w.pass(10 * time.Second)
		if got := w.problem("a"); !strings.Contains(got, "not at site c:") {
			t.Errorf("c does not have it, b is away: %q", got)
		}
		w.wire.Rejoin("b")
		check(t, w.ms["b"].Apply(t.Context(), []l2ext.Segment{segment("b", sites)}))
		w.pass(time.Minute)
		if got := w.problem("a"); got != "" {
			t.Errorf("b has it, and c does other things: %q", got)
		}
	})
}

// TestUnheard: what a segment is stretched for is not known while a site cannot be asked, and neither before it has said
// what it knows.
func TestUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 20 * time.Millisecond
		w := newWorld(t, l2exttest.Line{Delay: delay}, "a", "b", "c")
		unheard := func(when, want string) {
			t.Helper()
			if got := strings.Join(w.ms["a"].Segments()[0].Unheard, " "); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		unheard("all have spoken", "")
		w.wire.Isolate("b")
		w.settle()
		w.appear("b", "lan", vmMAC, "10.0.0.9")
		w.pass(5 * time.Minute)
		unheard("b is away", "b")
		if w.dependents("a") != "" {
			t.Error("what is new at b is known")
		}
		w.wire.Rejoin("b")
		w.pass(delay / 2)
		unheard("b has yet to speak", "b")
		w.pass(2 * delay)
		unheard("b has spoken", "")
		if w.dependents("a") == "" {
			t.Error("what is new at b is not known")
		}
		check(t, w.ms["c"].Apply(t.Context(), nil))
		w.wire.Cut()
		w.stop["a"]() // and another one comes
		w.make("a")
		w.wire.Join(w.ms)
		w.start("a", []string{"a", "b", "c"})
		w.settle()
		unheard("a is alone", "b c")
		w.wire.Heal()
		w.pass(time.Second)
		unheard("c may be about to speak", "c")
		w.pass(time.Minute)
		unheard("c has no such segment", "")
	})
}
