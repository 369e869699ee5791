package l2ext

import (
	"maps"
	"net/netip"
	"sync"
	"time"
)

// HostRoute is a route to one guest that has come to this site, away from the
// site at which the rest of the network finds it, or that has left again.
type HostRoute struct {
	Segment string
	MAC     MAC
	IP      netip.Addr
}

// routeGrace is how long a route that an earlier run has left stays when its guest is not
// known anywhere: the segment may be about to come, and of a guest that says nothing a
// bridge knows for so long (BR_DEFAULT_AGEING_TIME, include/linux/if_bridge.h).
const routeGrace = 5 * time.Minute

// routesRest is how long no wish follows another because of a job, see wishSoon.
const routesRest = probeFast

// routes keeps the host routes of this site as the bindings want them.
type routes struct {
	runner *routeRunner   // of runRoutes
	wish   chan routeWish // 1: only the newest counts

	left     map[HostRoute]bool // of an earlier run, and not decided yet. Of the loop
	until    time.Time          // when they go that nobody has asked for; likewise
	followed time.Time          // when there was a wish because of a job last; likewise
	due      bool               // a job has moved hosts since then; likewise

	mu      sync.Mutex        // guards what follows
	trouble map[string]string // by segment, what does not work
}

// routeWish is what the bindings want.
type routeWish struct {
	want  map[HostRoute]bool
	leave map[HostRoute]bool // left by an earlier run, for a guest that may still be here
}

func newRoutes(left []HostRoute) *routes {
	r := &routes{runner: newRouteRunner(left), left: make(map[HostRoute]bool), wish: make(chan routeWish, 1)}
	for _, l := range left {
		r.left[l] = true
	}
	return r
}

// problem is what an operator is told of the routes of a segment; "" if nothing.
func (r *routes) problem(segment string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trouble[segment]
}

// wishSoon is wishRoutes, now or within routesRest: that looks at all hosts, and the flips of an evacuation come
// one behind the other.
func (m *Manager) wishSoon(now time.Time) {
	if m.routes.due = now.Sub(m.routes.followed) < routesRest; !m.routes.due {
		m.routes.followed = now
		m.wishRoutes(now)
	}
}

// wishDue does what wishSoon has left.
func (m *Manager) wishDue(now time.Time) {
	if m.routes.due {
		m.wishSoon(now)
	}
}

// wishRoutes hands the routes that ought to be to run. It belongs to the loop.
func (m *Manager) wishRoutes(now time.Time) {
	m.routes.due = false
	if m.cfg.Route == nil {
		return
	}
	want := make(map[HostRoute]bool)
	for _, seg := range m.segments() {
		if !seg.wantsRoutes(m.cfg.Site) {
			continue
		}
		seg.mu.RLock()
		for mac, b := range seg.table.byMAC {
			if b.rec.Site != m.cfg.Site || b.withdrawn() || mac == seg.attached.Bridge {
				continue
			}
			for _, ip := range b.rec.IPs {
				if !ip.IsLinkLocalUnicast() {
					want[HostRoute{Segment: seg.Name, MAC: mac, IP: ip}] = true
				}
			}
		}
		seg.mu.RUnlock()
	}
	m.decideLeft(now, want)
	select {
	case <-m.routes.wish:
	default:
	}
	m.routes.wish <- routeWish{want: want, leave: maps.Clone(m.routes.left)} // has room: nobody else sends
}

// wantsRoutes tells whether guests away from home get routes here.
func (s *segment) wantsRoutes(self string) bool { return s.Policy.HostRoutes && s.Policy.Home != self }

// decideLeft forgets the routes of an earlier run of whose guests is known where they are
// now, and after routeGrace all: from then on the bindings say whether they stay.
func (m *Manager) decideLeft(now time.Time, want map[HostRoute]bool) {
	left := m.routes.left
	if len(left) == 0 {
		return
	}
	if m.routes.until.IsZero() {
		m.routes.until = now.Add(routeGrace)
	}
	if !now.Before(m.routes.until) {
		clear(left)
		return
	}
	maps.DeleteFunc(left, func(r HostRoute, _ bool) bool { return want[r] || m.isGone(r) })
}

// isGone tells that the guest of a route is at another site, or has another address than it had,
// or that its segment wants no routes.
func (m *Manager) isGone(r HostRoute) bool {
	for _, seg := range m.segments() {
		if seg.Name != r.Segment {
			continue
		}
		seg.mu.RLock()
		defer seg.mu.RUnlock()
		b := seg.table.byMAC[r.MAC]
		owner, known := seg.table.byIP[r.IP]
		return !seg.wantsRoutes(m.cfg.Site) || b != nil && (b.withdrawn() || b.rec.Site != m.cfg.Site) || known && owner != r.MAC
	}
	return false
}
