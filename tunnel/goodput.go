package tunnel

import "time"

const (
	// goodputTicks over which goodput is averaged, of tickEvery each: a second.
	goodputTicks = 5
	// leastOverhead is what packets add to chunks at least: 1494 bytes on the
	// wire carry 1418 of them. A little too low is harmless, see tick.
	leastOverhead = 1.05
	// aheadFades each tick, so that errors do not add up. Most of ahead is right,
	// and what fades of it is told later: more than this makes the rate swing.
	aheadFades = 0.02
)

// A goodput measures how fast messages arrive at the peer. The peer tells only
// what is complete and in order: one lost packet holds back all that follows it
// for a round trip, and then megabytes come at once. So we also reckon what
// has arrived but was not told yet, from what packets have left: between two
// ticks that is right, and over a longer time what the peer tells is. Link.mu
// guards it.
type goodput struct {
	rate  int64 // bytes per second
	told  int64 // bytes of bulk that the peer has told of since the last tick
	other int64 // the same of urgent messages, which are not reckoned
	ahead int64 // bytes of bulk that have arrived and were not told, as we reckon
	total int64 // bytes of messages arrived

	// points are the last ticks, oldest first; at most goodputTicks and one.
	points []goodputPoint
}

// A goodputPoint is the total at a tick.
type goodputPoint struct {
	at    time.Time
	total int64
	idle  bool // nothing was under way
}

// arrived notes what the peer has told of.
func (g *goodput) arrived(class Class, n int64) {
	if class == Bulk {
		g.told += n
	} else {
		g.other += n
	}
}

// tick takes in what has come since the last one. wire is the bytes of bulk
// that have left since then, less those of packets found lost; pending the
// bytes of bulk that the peer has not told of.
func (g *goodput) tick(now time.Time, wire, pending int64) {
	was := g.ahead
	sent := max(int64(float64(wire)/leastOverhead), 0)
	idle := pending == 0 && g.told+g.other == 0
	g.ahead = int64((1 - aheadFades) * float64(was+sent-g.told))
	g.ahead = min(max(g.ahead, 0), pending)
	// When little is left, as after the end, ahead may fall faster than the peer tells.
	g.total += max(g.told+g.other+g.ahead-was, 0)
	g.told, g.other = 0, 0

	g.points = append(g.points, goodputPoint{now, g.total, idle})
	if len(g.points) > goodputTicks+1 {
		g.points = append(g.points[:0], g.points[1:]...)
	}
	from := g.points[0]
	if !idle {
		// What came before does not say how the line does now.
		for _, p := range g.points {
			if p.idle {
				from = p
			}
		}
	}
	if past := now.Sub(from.at).Seconds(); past > 0 {
		g.rate = int64(float64(g.total-from.total) / past)
	}
}
