package tunnel

import (
	"context"
	"strings"
	"testing"
	"time"
)

// urgent names the path of what is urgent, as each end has it.
func (l *lab) urgent() (names string) {
	for _, link := range []*Link{l.a.Link("b"), l.b.Link("a")} {
		for _, p := range link.State().Paths {
			if p.Urgent {
				names += p.Name + " "
			}
		}
	}
	return names
}

// TestCheaperIsBack: what is urgent leaves a path that costs more when the cheaper one is
// back or has become the cheaper one, and not for one that comes and goes; whose messages
// are under way hardly notice.
func TestCheaperIsBack(t *testing.T) {
	t.Parallel()
	inTwoPaths(t, 1, func(t *testing.T, l *lab) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		flow := l.a.Link("b").NewFlow("move")
		s := l.stream(ctx, flow)
		time.Sleep(3 * time.Second)
		expect := func(when string, calm, busy time.Duration, want string) {
			t.Helper()
			flow.SetRate(100_000) // nothing changes, and bytes are what a test costs
			_, before := s.take(calm)
			flow.SetRate(0)
			_, gap := s.take(busy)
			if got := l.urgent(); got != want || max(before, gap) > 3*time.Second {
				t.Errorf("%s: urgent over %q, want %q; nothing came for %v", when, got, want, max(before, gap))
			}
		}
		const calm, changes = cheaperFor - 5*time.Second, 12 * time.Second
		expect("at first", calm, changes, "wide wide ")
		l.line(ipA, away)
		expect("cut", 0, 6*time.Second, "narrow narrow ")
		for range 2 {
			l.line(ipA, wide)
			expect("back for a moment", cheaperFor/2-5*time.Second, 5*time.Second, "narrow narrow ")
			l.line(ipA, away)
			expect("cut again", 0, 6*time.Second, "narrow narrow ")
		}
		l.line(ipA, wide)
		expect("back", calm, changes, "wide wide ")
		costs := uplinks(0)
		costs[0].Cost = 2
		l.setPaths(costs)
		expect("dear", calm, changes, "narrow narrow ")
	})
}

// TestCheaperDuringTail: nothing changes while a VM waits for the last of its memory,
// whichever end sends that.
func TestCheaperDuringTail(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"a", "b"} {
		t.Run(from, func(t *testing.T) {
			inTwoPaths(t, 1, func(t *testing.T, l *lab) {
				link := l.a.Link("b")
				if from == "b" {
					link = l.b.Link("a")
				}
				flow := link.NewFlow("move")
				if _, err := link.Open(t.Context(), Spec{Flow: flow}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(cheaperFor + 10*time.Second)
				flow.SetTail(true)
				costs := uplinks(0)
				costs[0].Cost = 2
				l.setPaths(costs)
				for range 2 * cheaperFor / time.Second {
					if got := l.urgent(); got != "wide wide " {
						t.Fatalf("urgent over %q while a VM stands still", got)
					}
					time.Sleep(time.Second)
				}
				flow.SetTail(false)
				time.Sleep(cheaperFor + 10*time.Second)
				if got := l.urgent(); got != "narrow narrow " {
					t.Errorf("urgent over %q, when no VM stands still any more", got)
				}
			})
		})
	}
}

// TestCheaperDiesAgain: a cheaper path that works for a while each time is left alone for
// ever longer.
func TestCheaperDiesAgain(t *testing.T) {
	t.Parallel()
	inTwoPaths(t, 1, func(t *testing.T, l *lab) {
		time.Sleep(cheaperFor)
		changes, last := 0, l.urgent()
		for range 12 { // it is taken twice, and would be in all of them
			l.line(ipA, away)
			for i := range 100 {
				if i == 10 {
					l.line(ipA, wide)
				}
				time.Sleep(time.Second)
				if now := l.urgent(); strings.Count(now, " ") == 2 && now != last {
					changes, last = changes+1, now
				}
			}
		}
		if changes > 8 {
			t.Errorf("what is urgent has changed its path %d times in 20 minutes", changes)
		}
		mended := time.Now()
		for l.urgent() != "wide wide " {
			if time.Sleep(time.Second); time.Since(mended) > cheaperMost+time.Minute {
				t.Fatalf("urgent over %q half an hour after the cheaper path was mended", l.urgent())
			}
		}
		t.Logf("%d changes, the last %v after it was mended", changes, time.Since(mended))
	})
}
