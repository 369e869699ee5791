package lab

import "time"

// Gap is a time in which nothing came.
type Gap struct {
	At  time.Time     `json:"at"`     // when the last thing before it came
	For time.Duration `json:"for_ns"` // how long
}

// gaps finds the longest time without an arrival, and keeps those that stand
// out.
type gaps struct {
	last    time.Time
	longest Gap
	list    []Gap
}

// Bounds of the list of gaps: what is shorter is the machine's own noise, and
// a run of 20 moves has a few dozen.
const (
	minGap  = 50 * time.Millisecond
	maxGaps = 256
)

// begin starts the first gap.
func (g *gaps) begin(now time.Time) { g.last = now }

// arrived ends a gap and starts the next.
func (g *gaps) arrived(now time.Time) {
	gap := Gap{g.last, now.Sub(g.last)}
	g.last = now
	if gap.For > g.longest.For {
		g.longest = gap
	}
	if gap.For >= minGap && len(g.list) < maxGaps {
		g.list = append(g.list, gap)
	}
}

// longestBy is the longest gap, the open one included: up to end, or until now
// when end is zero.
func (g *gaps) longestBy(end time.Time) Gap {
	if end.IsZero() {
		end = time.Now()
	}
	if open := end.Sub(g.last); !g.last.IsZero() && open > g.longest.For {
		return Gap{g.last, open}
	}
	return g.longest
}
