package congestion

import (
	"cmp"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"
)

var starts = flag.Int("starts", 0, "TestStarts takes so many seeds of each line, for 10 s each; 0: a few, for 3 s")

// losses that lines have by themselves, as a share and the mean length of bursts.
var losses = []struct{ loss, burst float64 }{{0, 0}, {0.0001, 0}, {0.001, 0}, {0.01, 0}, {0.01, 5}, {0.01, 10}}

// TestStarts is cold starts on lines of all rates, lengths and losses, each with many
// seeds, and receivers that acknowledge at once and late in turn. It logs what startup
// makes of each line:
//
//	go test ./tunnel/congestion -run TestStarts -v -starts 20
func TestStarts(t *testing.T) {
	long(t)
	for _, tt := range []struct {
		rate  int64
		rtts  []int
		seeds int // without -starts
	}{
		{10, []int{20, 50, 100, 150}, 4}, {100, []int{20, 50, 100, 150}, 2},
		{200, []int{100}, 1}, {500, []int{100}, 1}, {1000, []int{100}, 0},
	} {
		seeds, d, rtts := tt.seeds, 3*time.Second, tt.rtts
		if *starts > 0 {
			seeds, d, rtts = *starts, 10*time.Second, []int{20, 50, 100, 150}
		}
		for _, rtt := range rtts {
			for _, l := range losses {
				var many []start
				for n := range uint64(seeds) {
					c := cell{tt.rate, rtt, 0.5, l.loss, l.burst, 0, false}
					many = append(many, coldStart(c, *seed+n, time.Duration(n%2)*maxAckDelay, d))
				}
				if len(many) > 0 {
					judgeStarts(t, many)
				}
			}
		}
	}
}

// A start is what came of one.
type start struct {
	cell
	seed         uint64
	took         time.Duration
	cold, steady float64       // share of the line, over all the time and over its second half
	t90          time.Duration // until 100 ms have brought 90 % of what the line lets through; took: never
	wasted       float64       // dropped by the queue, as a share of what 10 s carry
	queue        time.Duration // longest
}

// coldStart is the first time of bulk on a line whose RTT is known.
func coldStart(c cell, seed uint64, ackDelay, d time.Duration) start {
	s, cs := started(c, seed, ackDelay, false)
	x := start{cell: c, seed: seed, took: d, t90: d}
	began, half := s.now, int64(0)
	var arrived []int64 // after each 10 ms
	for s.now < began+d {
		s.run(ms(10))
		arrived = append(arrived, total(cs))
		last := len(arrived) - 1
		if last >= 10 && x.t90 == d && s.share(arrived[last]-arrived[last-10], ms(100)) >= 0.9*(1-c.loss) {
			x.t90 = s.now - began
		}
		if s.now-began == d/2 {
			half = total(cs)
		}
	}
	x.cold, x.steady = s.share(total(cs), d), s.share(total(cs)-half, d/2)
	x.wasted = s.share(int64(s.dropped)*(simPacket+simOverhead), 10*time.Second)
	x.queue = s.mostQueue
	return x
}

// judgeStarts holds starts on one line with many seeds against what is asked: the line
// is full after seven round trips, at most 2 % of what 10 s carry are wasted, 3 % where
// the first window is most of that, and its queue does not fill where there are trains
// that can be measured. The worst must have half of the line: in a first window that
// loses a third there is nothing to measure.
func judgeStarts(t *testing.T, many []start) {
	t.Helper()
	by := func(of func(start) float64) (median, most float64) {
		slices.SortFunc(many, func(a, b start) int { return cmp.Compare(of(a), of(b)) })
		return of(many[(len(many)-1)/2]), of(many[len(many)-1])
	}
	t90, t90Most := by(func(s start) float64 { return s.t90.Seconds() })
	wasted, wastedMost := by(func(s start) float64 { return 100 * s.wasted })
	queue, queueMost := by(func(s start) float64 { return 1000 * s.queue.Seconds() })
	slow, slowMost := by(func(s start) float64 { return -s.steady })
	cold, coldLeast := by(func(s start) float64 { return -s.cold })
	worst := many[len(many)-1]
	line := fmt.Sprintf("%4d Mbit/s %3d ms %5.2f %%x%-2.0f %3d starts of %v: cold %.3f (%.3f, seed %d), steady %.3f (%.3f), 90 %% after %.2f (%.2f) s, wasted %.2f (%.2f) %%, queue %.1f (%.1f) ms",
		worst.rate, worst.rtt, 100*worst.loss, max(worst.burst, 1), len(many), worst.took, -cold, -coldLeast, worst.seed,
		-slow, -slowMost, t90, t90Most, wasted, wastedMost, queue, queueMost)
	t.Log(line)
	least := 1 - worst.loss - 7*float64(worst.rtt)/1000/worst.took.Seconds()
	long := worst.rtt >= 50 && worst.rate >= 100
	waste := 2.0
	if worst.rate < 100 {
		waste = 3
	}
	if -cold < least-0.03 || -coldLeast < least/2 || wastedMost > waste || long && queue > 0.75*worst.cell.queue*float64(worst.rtt) {
		t.Errorf("%s; want cold %.3f (%.3f), wasted %.0f %%, queue %.1f ms", line, least-0.03, least/2, waste, 0.75*worst.cell.queue*float64(worst.rtt))
	}
}
