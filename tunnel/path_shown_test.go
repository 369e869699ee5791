package tunnel

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPathTellsWhy: of a path that is down both ends say why, and of one that is up none
// does.
func TestPathTellsWhy(t *testing.T) {
	t.Parallel()
	inTwoPaths(t, 0, func(t *testing.T, l *lab) {
		why := func(n running, peer string, of int) string {
			s := n.Link(peer).State().Paths
			i := slices.IndexFunc(s, func(p PathState) bool { return p.Name == uplinks(0)[of].Name })
			return s[i].Why
		}
		expect := func(when string, of int, a, b string) {
			t.Helper()
			time.Sleep(8 * time.Second)
			if gotA, gotB := why(l.a, "b", of), why(l.b, "a", of); !strings.Contains(gotA, a) || !strings.Contains(gotB, b) || (a == "") != (gotA == "") {
				t.Errorf("%s: %q at a, %q at b; want %q and %q", when, gotA, gotB, a, b)
			}
		}
		const silent = "no recent network activity"
		expect("at first", 0, "", "")
		expect("at first", 1, "", "")
		l.line(ipA2, away)
		expect("cut", 1, silent, silent)
		expect("beside the cut", 0, "", "")
		l.line(ipA2, narrow)
		expect("healed", 1, "", "")
		l.line(ipA, away) // often that with the urgent connection
		expect("cut", 0, silent, silent)
		expect("beside the cut", 1, "", "")
		l.line(ipA, wide)
		paths := uplinks(0)
		paths[1].Source = "no address"
		l.setPaths(paths)
		expect("badly configured", 1, "no address", "the path has changed")
	})
}

// TestPathRateIsShown: an operator sees whether the paths' rates are configured,
// those of the link or their own.
func TestPathRateIsShown(t *testing.T) {
	t.Parallel()
	inTwoPaths(t, 0, func(t *testing.T, l *lab) {
		link := l.a.Link("b")
		for _, tt := range []struct {
			one, two, all int64 // rates of the paths and of the link
			want          string
		}{
			{0, 0, 0, nameAutomatic},
			{1_000_000, 0, 0, nameMixed},
			{1_000_000, 500_000, 0, nameConfigured},
			{0, 0, 1_000_000, nameAutomatic}, // shared by what is found out
			{1_000_000, 500_000, 1_000_000, nameConfigured},
		} {
			paths := uplinks(0)
			paths[0].Rate, paths[1].Rate = tt.one, tt.two
			l.setPaths(paths)
			link.SetRate(tt.all)
			if got := link.State().Controller; got != tt.want {
				t.Errorf("rates %d, %d and %d: %q, want %q", tt.one, tt.two, tt.all, got, tt.want)
			}
		}
	})
}
