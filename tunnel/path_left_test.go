package tunnel

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// TestRenamedPaths: the end that is dialed forgets what the other has no more, whatever
// carries the link and whether the urgent connection was on it; else it would refuse the
// fifth name for good, and show four that do not exist.
func TestRenamedPaths(t *testing.T) {
	t.Parallel()
	for _, via := range []Carrier{QUIC, TCP} {
		t.Run(string(via), func(t *testing.T) {
			inTCPLab(t, wide, via, via, func(t *testing.T, l *lab) {
				l.line(ipA2, narrow)
				for i := range 3 * maxPaths {
					both := uplinks(0)
					both[i%2].Name = fmt.Sprintf("new-%d", i)
					l.setPaths(both)
					for n, want := 0, []string{both[0].Name, both[1].Name}; ; n++ {
						names, up := []string(nil), true
						for _, p := range l.b.Link("a").State().Paths {
							names, up = append(names, p.Name), up && p.Conns > 0
						}
						slices.Sort(names)
						slices.Sort(want)
						if up && slices.Equal(names, want) {
							break
						}
						if n > 400 {
							t.Fatalf("change %d: %v at b, want %v; %+v", i, names, want, l.b.Link("a").State().Paths)
						}
						time.Sleep(100 * time.Millisecond)
					}
				}
			})
		})
	}
}

// TestPathRemovedUnheard: a path that was removed while it was down stays known to the
// end that is dialed, until its place is needed.
func TestPathRemovedUnheard(t *testing.T) {
	t.Parallel()
	inLab(t, wide, options{}, func(t *testing.T, l *lab) {
		l.line(ipA2, narrow)
		for i := range 2 * maxPaths {
			both := uplinks(0)
			both[1].Name = fmt.Sprintf("new-%d", i)
			l.setPaths(both)
			for n := 0; conns(l.b, "a")[both[1].Name] == 0; n++ {
				if n > 600 {
					t.Fatalf("no connection over %s; %+v", both[1].Name, l.b.Link("a").State().Paths)
				}
				time.Sleep(100 * time.Millisecond)
			}
			l.line(ipA2, away)
			time.Sleep(5 * time.Second)
			l.setPaths(both[:1])
			time.Sleep(5 * time.Second)
			if n := len(l.b.Link("a").State().Paths); n != min(i+2, maxPaths) {
				t.Errorf("%d paths at b after %d", n, i)
			}
			l.line(ipA2, narrow)
		}
	})
}

// TestTooManyPaths: a peer that names ever more paths gets no further than four.
func TestTooManyPaths(t *testing.T) {
	n, err := New(config("a", testwan.Site{}))
	if err != nil {
		t.Fatal(err)
	}
	l := newLink(n, "b")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set = &set{others: make(map[*carrier]struct{})}
	for i := range 10 {
		p, err := l.pathNamed(string(rune('a' + i)))
		if err == nil {
			l.set.priority = &carrier{path: p}
			l.set.others[l.set.priority] = struct{}{}
		}
		if (err == nil) != (i < maxPaths) {
			t.Errorf("path %d: %v", i, err)
		}
	}
	for _, p := range []Peer{
		{Site: "b", Paths: make([]Path, maxPaths+1)}, {Site: "b", Paths: []Path{{Name: "x"}, {Name: "x"}}},
		{Site: "b", Paths: []Path{{Rate: -1}}}, {Site: "b", Paths: []Path{{Cost: -1}}}, {Site: "a"},
	} {
		if p.check("a") == nil {
			t.Errorf("%+v is taken", p)
		}
	}
}

// TestSilentPathStays: when both paths were silent, and one is back, the end that is dialed
// still knows that there is another.
func TestSilentPathStays(t *testing.T) {
	t.Parallel()
	for _, first := range []string{ipA, ipA2} {
		inTwoPaths(t, 1, func(t *testing.T, l *lab) {
			time.Sleep(10 * time.Second)
			other := map[string]string{ipA: ipA2, ipA2: ipA}[first]
			l.line(first, away)
			time.Sleep(time.Second)
			l.line(other, away)
			time.Sleep(20 * time.Second)
			l.line(first, narrow)
			time.Sleep(3 * leftAfter)
			state := l.b.Link("a").State()
			known := make(map[string]bool)
			for _, p := range state.Paths {
				known[p.Name] = p.Conns > 0
			}
			_, wide := known["wide"]
			_, narrow := known["narrow"]
			if !state.Up || !wide || !narrow || known["wide"] == known["narrow"] {
				t.Errorf("%s silent first: b is up %v and knows %+v", first, state.Up, state.Paths)
			}
		})
	}
}
