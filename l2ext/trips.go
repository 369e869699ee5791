package l2ext

import (
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// What the way of a guest's traffic costs depends on how far its site is from its home. A
// gateway knows how far all others are from itself; how far a third site is from home that one
// says itself.

// tripTime is how long what a site has said of it counts: it says so with each digest.
const tripTime = absentAfter

// trip is what a site has said.
type trip struct {
	to  string
	rtt time.Duration
	at  time.Time
}

// sendTrip tells a site how far home is from here.
func (m *Manager) sendTrip(seg *segment, site string) {
	home, p := seg.Policy.Home, m.peer(site)
	if p == nil || !p.takesTrips.Load() || home == "" || home == site || home == m.cfg.Site || m.cfg.RTT == nil {
		return
	}
	if rtt, ok := m.cfg.RTT(home); ok {
		m.enqueue(seg, site, announce.Message{Kind: announce.Trip, VNI: seg.VNI, Site: home, RTT: rtt})
	}
}

// takeTrip notes it.
func (m *Manager) takeTrip(now time.Time, seg *segment, from string, msg announce.Message) {
	seg.mu.Lock()
	defer seg.mu.Unlock()
	seg.trips[from] = trip{msg.Site, msg.RTT, now}
}

// tripView shows what counts, by sites. It needs seg.mu.
func (s *segment) tripView(now time.Time) map[[2]string]time.Duration {
	trips := make(map[[2]string]time.Duration)
	for from, t := range s.trips {
		if now.Sub(t.at) < tripTime {
			trips[[2]string{from, t.to}] = t.rtt
		}
	}
	return trips
}

// RTT between two other sites, if one of them has told.
func (v View) RTT(a, b string) (rtt time.Duration, ok bool) {
	if rtt, ok = v.trips[[2]string{a, b}]; !ok {
		rtt, ok = v.trips[[2]string{b, a}]
	}
	return rtt, ok
}
