package l2ext

import (
	"fmt"
	"time"
)

// A Line is what has become of what was sent to a site.
type Line struct {
	Delivered, Lost int64         // bytes on the wire, ever; what was lost may have been sent again
	RTT             time.Duration // least of late
	Unknown         string        // why none of it is known; "" if it is
}

// Bounds of a line that is lossy: one CUBIC connection of full segments gets some
// 1.2 segments / (RTT * sqrt(loss)) of it (Mathis 1997): at 100 ms and lossyAt 12
// Mbit/s, at cleanAt 24, whatever the line has.
const (
	lossyAt  = 0.0002
	cleanAt  = 0.00005
	leastRTT = 5 * time.Millisecond // below it a lost segment is made up for at once

	leastLost = 2 << 10  // bytes; two full packets. One loss is no share of anything
	enough    = 32 << 20 // bytes; 22 000 packets, of which 4 are lost at lossyAt
	memory    = 64 << 20 // bytes, after which the past counts half
	forgetful = time.Minute
)

// A lossMeter says whether a line is lossy. It is told the time.
type lossMeter struct {
	last      Line
	delivered float64 // bytes of late
	lost      float64
	halved    time.Time
	lossy     bool
	known     bool // last is of this line
}

// look takes in what has become of what was sent since the last look.
func (m *lossMeter) look(now time.Time, l Line) {
	before := m.last
	m.last = l
	if l.Unknown != "" {
		*m = lossMeter{last: l}
		return
	}
	if !m.known || l.Delivered < before.Delivered { // another connection's counts
		m.known = true
		return
	}
	m.delivered += float64(l.Delivered - before.Delivered)
	m.lost = max(m.lost+float64(l.Lost-before.Lost), 0) // what was thought lost may have come all the same
	switch share := m.share(); {
	case l.RTT < leastRTT:
		m.lossy = false
	case m.lost >= leastLost && share >= lossyAt:
		m.lossy = true
	case m.delivered >= enough && share < cleanAt:
		m.lossy = false
	}
	if m.delivered > memory || now.Sub(m.halved) >= forgetful {
		m.delivered, m.lost, m.halved = m.delivered/2, m.lost/2, now
	}
}

// share is that of the bytes which were lost of late.
func (m *lossMeter) share() float64 {
	if m.delivered+m.lost == 0 {
		return 0
	}
	return m.lost / (m.delivered + m.lost)
}

// why explains lossy, for people.
func (m *lossMeter) why() string {
	switch {
	case m.last.Unknown != "":
		return m.last.Unknown
	case !m.known || m.delivered+m.lost == 0:
		return "nothing is known of the line yet"
	case m.lossy:
		return fmt.Sprintf("the line loses %.3f %%", 100*m.share())
	case m.last.RTT < leastRTT:
		return "the line is short"
	}
	return fmt.Sprintf("the line loses little, %.3f %%", 100*m.share())
}
