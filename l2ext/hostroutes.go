package l2ext

import (
	"context"
	"maps"
	"net/netip"
	"slices"
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

// routes keeps the host routes of this site as the bindings want them.
type routes struct {
	have map[HostRoute]bool // that may be there: true when this run has made it. Of runRoutes
	kept map[HostRoute]bool // what Config.KeepRoutes was told last. Likewise
	wish chan routeWish     // 1: only the newest counts

	left  map[HostRoute]bool // of an earlier run, and not decided yet. Of the loop
	until time.Time          // when they go that nobody has asked for; likewise
}

// routeWish is what the bindings want.
type routeWish struct {
	want  map[HostRoute]bool
	leave map[HostRoute]bool // left by an earlier run, for a guest that may still be here
}

func newRoutes(left []HostRoute) *routes {
	r := &routes{have: make(map[HostRoute]bool), left: make(map[HostRoute]bool), wish: make(chan routeWish, 1)}
	for _, l := range left {
		r.have[l], r.left[l] = false, true
	}
	r.kept = allOf(r.have)
	return r
}

func allOf(have map[HostRoute]bool) map[HostRoute]bool {
	all := make(map[HostRoute]bool, len(have))
	for r := range have {
		all[r] = true
	}
	return all
}

// wishRoutes hands the routes that ought to be to run. It belongs to the loop.
func (m *Manager) wishRoutes() {
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
	m.decideLeft(time.Now(), want)
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

// runRoutes makes the routes that are wished, one after the other, until ctx
// ends; then it takes them all away. One that fails is tried again with the
// next wish, which comes every second.
func (m *Manager) runRoutes(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			m.setRoutes(context.WithoutCancel(ctx), routeWish{})
			return
		case wish := <-m.routes.wish:
			m.setRoutes(ctx, wish)
		}
	}
}

func (m *Manager) setRoutes(ctx context.Context, wish routeWish) {
	have := m.routes.have
	for r := range have {
		if !wish.want[r] && !wish.leave[r] && m.route(ctx, r, "depart") {
			delete(have, r)
		}
	}
	for r := range wish.want {
		if _, known := have[r]; !known {
			have[r] = false // but it may be there from now on, whatever becomes of us
		}
	}
	m.keepRoutes()
	for r := range wish.want {
		if !have[r] {
			have[r] = m.route(ctx, r, "arrive")
		}
	}
}

// keepRoutes has those kept that the next run has to look after, should this one die.
func (m *Manager) keepRoutes() {
	all := allOf(m.routes.have)
	if m.cfg.KeepRoutes == nil || maps.Equal(all, m.routes.kept) {
		return
	}
	if err := m.cfg.KeepRoutes(slices.Collect(maps.Keys(all))); err != nil {
		m.log.Warn("host routes are not kept on disk; will be tried again: should the gateway die, they stay", "err", err)
		return
	}
	m.routes.kept = all
}

func (m *Manager) route(ctx context.Context, r HostRoute, what string) bool {
	if err := m.cfg.Route(ctx, what, r); err != nil {
		m.log.Warn("host route; will be tried again", "stage", what, "segment", r.Segment, "mac", r.MAC, "ip", r.IP, "err", err)
		return false
	}
	m.log.Info("host route", "stage", what, "segment", r.Segment, "mac", r.MAC, "ip", r.IP)
	return true
}
