package l2ext

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Bounds of what makes host routes: commands of the operator, which may fail, or hang.
const (
	routesAtOnce   = 8                // that run at the same time
	routesOfOne    = 4                // of these, of one segment: another's must not wait for it
	routeTime      = 10 * time.Second // that one takes: a router that is asked for a route answers in seconds, or never
	routeAgain     = time.Second      // after which one that has failed is tried again, twice that after the next failure,
	routeAgainMost = time.Minute      // and so on up to this
	routesEnd      = 20 * time.Second // for all that are taken away when the gateway ends; what is left then is the next one's
)

// What Config.Route is asked for.
const (
	arrive = "arrive"
	depart = "depart"
)

// routeRunner makes the routes that are wished, several at a time, but what is for one host one after
// the other: for its MAC, or for an IP that goes from one to another. It belongs to runRoutes.
type routeRunner struct {
	have    map[HostRoute]*routeState // that may be there
	kept    map[HostRoute]bool        // what Config.KeepRoutes was told last
	running int
	byName  map[string]int     // of these, by segment
	busy    map[routeHost]bool // hosts for which one runs
	ended   chan routeEnd      // unbuffered: who ends waits for the runner
	last    bool               // the gateway ends: nothing is tried twice
}

// routeState is one route.
type routeState struct {
	wanted  bool
	stays   bool // an earlier run has made it, and its guest may still be here
	made    bool // this run has made it, and nobody has taken it away since
	running bool
	failed  int       // times in a row
	next    time.Time // not before then
	err     error     // the last failure
}

// routeHost is who a route is for: a MAC of a segment, or an IP.
type routeHost struct {
	segment string
	mac     MAC
	ip      string
}

// hosts are both.
func (r HostRoute) hosts() [2]routeHost {
	return [2]routeHost{{segment: r.Segment, mac: r.MAC}, {segment: r.Segment, ip: r.IP.String()}}
}

// routeEnd is how a call of Config.Route has ended.
type routeEnd struct {
	route HostRoute
	what  string
	err   error
}

func newRouteRunner(left []HostRoute) *routeRunner {
	n := &routeRunner{have: make(map[HostRoute]*routeState), byName: make(map[string]int), busy: make(map[routeHost]bool), ended: make(chan routeEnd)}
	for _, l := range left {
		n.have[l] = &routeState{stays: true}
	}
	n.kept = n.all()
	return n
}

func (n *routeRunner) all() map[HostRoute]bool {
	all := make(map[HostRoute]bool, len(n.have))
	for r := range n.have {
		all[r] = true
	}
	return all
}

// runRoutes follows the wishes, which come every second, until ctx ends; then it takes all
// routes away.
func (m *Manager) runRoutes(ctx context.Context) {
	n := m.routes.runner
	for {
		m.startRoutes(ctx, time.Now())
		select {
		case <-ctx.Done():
			m.endRoutes(context.WithoutCancel(ctx))
			return
		case wish := <-m.routes.wish:
			n.take(wish)
			m.keepRoutes()
			m.tellRoutes()
		case e := <-n.ended:
			m.routeEnded(time.Now(), e)
		}
	}
}

// endRoutes takes all away, and tries none twice.
func (m *Manager) endRoutes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, routesEnd)
	defer cancel()
	n := m.routes.runner
	for n.running > 0 { // by the end of their context
		m.routeEnded(time.Now(), <-n.ended)
	}
	for _, s := range n.have {
		s.failed, s.next = 0, time.Time{}
	}
	n.last = true
	n.take(routeWish{})
	for m.startRoutes(ctx, time.Now()); n.running > 0; m.startRoutes(ctx, time.Now()) {
		m.routeEnded(time.Now(), <-n.ended)
	}
	m.keepRoutes()
}

// take notes what is wished from now on.
func (n *routeRunner) take(wish routeWish) {
	for r := range wish.want {
		if n.have[r] == nil {
			n.have[r] = &routeState{} // it may be there from now on, whatever becomes of us
		}
	}
	for r, s := range n.have {
		if before := s.what(); s.become(wish.want[r], wish.leave[r]) != before {
			s.failed, s.next, s.err = 0, time.Time{}, nil // something else may well work
		}
	}
}

// become notes what is wished of a route, and returns what is to be done about it.
func (s *routeState) become(wanted, stays bool) string {
	s.wanted, s.stays = wanted, stays
	return s.what()
}

// what is to be done about a route; "" for nothing.
func (s *routeState) what() string {
	switch {
	case s.wanted && !s.made:
		return arrive
	case !s.wanted && !s.stays:
		return depart
	}
	return ""
}

// due are the routes about which something is to be done now: those that have not failed first, and
// of these what is to be taken away.
func (n *routeRunner) due(now time.Time) (all []HostRoute) {
	for r, s := range n.have {
		if s.what() != "" && !s.running && !now.Before(s.next) && !(n.last && s.failed > 0) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b HostRoute) int {
		x, y := n.have[a], n.have[b]
		return cmp.Or(cmp.Compare(min(x.failed, 1), min(y.failed, 1)), -cmp.Compare(x.what(), y.what()),
			cmp.Compare(a.Segment, b.Segment), a.IP.Compare(b.IP), bytes.Compare(a.MAC[:], b.MAC[:]))
	})
	return all
}

// startRoutes starts as many as may run.
func (m *Manager) startRoutes(ctx context.Context, now time.Time) {
	n := m.routes.runner
	if n.running == routesAtOnce || ctx.Err() != nil {
		return
	}
	for _, r := range n.due(now) {
		hosts := r.hosts()
		if n.byName[r.Segment] == routesOfOne || n.busy[hosts[0]] || n.busy[hosts[1]] {
			continue
		}
		s := n.have[r]
		what := s.what()
		s.running = true
		n.running++
		n.byName[r.Segment]++
		n.busy[hosts[0]], n.busy[hosts[1]] = true, true
		go func() { // endRoutes waits for it
			ctx, cancel := context.WithTimeout(ctx, routeTime)
			defer cancel()
			n.ended <- routeEnd{r, what, m.cfg.Route(ctx, what, r)}
		}()
		if n.running == routesAtOnce {
			return
		}
	}
}

// routeEnded notes how one has ended.
func (m *Manager) routeEnded(now time.Time, e routeEnd) {
	n, r := m.routes.runner, e.route
	s, hosts := n.have[r], r.hosts()
	s.running = false
	n.running--
	if n.byName[r.Segment]--; n.byName[r.Segment] == 0 {
		delete(n.byName, r.Segment)
	}
	delete(n.busy, hosts[0])
	delete(n.busy, hosts[1])
	if e.err != nil {
		m.routeFailed(now, s, e)
		return
	}
	m.log.Info("host route", "stage", e.what, "segment", r.Segment, "mac", r.MAC, "ip", r.IP)
	s.failed, s.next, s.err, s.made = 0, time.Time{}, nil, e.what == arrive
	if e.what == arrive {
		return
	}
	for o, other := range n.have { // what took this one away may have taken that of another MAC with its IP
		if o.Segment == r.Segment && o.IP == r.IP {
			other.made = false
		}
	}
	if !s.wanted {
		delete(n.have, r)
	}
}

// routeFailed has one tried again, later each time.
func (m *Manager) routeFailed(now time.Time, s *routeState, e routeEnd) {
	s.made = s.made && e.what != depart // who knows
	s.failed, s.err = s.failed+1, e.err
	s.next = now.Add(min(routeAgain<<min(s.failed-1, 10), routeAgainMost))
	for _, seg := range m.segments() {
		if seg.Name == e.route.Segment {
			seg.counts.add(RouteFailures, 1)
		}
	}
	m.log.Warn("host route; will be tried again", "stage", e.what, "segment", e.route.Segment, "mac", e.route.MAC, "ip", e.route.IP, "err", e.err)
}

// tellRoutes notes what is wrong with the routes of each segment.
func (m *Manager) tellRoutes() {
	wrong := make(map[string][]HostRoute)
	for r, s := range m.routes.runner.have {
		if s.failed > 0 {
			wrong[r.Segment] = append(wrong[r.Segment], r)
		}
	}
	trouble := make(map[string]string, len(wrong))
	for segment, all := range wrong {
		r := slices.MinFunc(all, func(a, b HostRoute) int { return cmp.Or(a.IP.Compare(b.IP), bytes.Compare(a.MAC[:], b.MAC[:])) })
		s := m.routes.runner.have[r]
		trouble[segment] = fmt.Sprintf("host_route fails for %d hosts, such as %v (%s): %v", len(all), r.IP, s.what(), s.err)
		if len(all) == 1 {
			trouble[segment] = fmt.Sprintf("host_route fails for %v (%s): %v", r.IP, s.what(), s.err)
		}
	}
	m.routes.mu.Lock()
	defer m.routes.mu.Unlock()
	m.routes.trouble = trouble
}

// keepRoutes has those kept that the next run has to look after, should this one die.
func (m *Manager) keepRoutes() {
	n := m.routes.runner
	all := n.all()
	if m.cfg.KeepRoutes == nil || maps.Equal(all, n.kept) {
		return
	}
	if err := m.cfg.KeepRoutes(slices.Collect(maps.Keys(all))); err != nil {
		m.log.Warn("host routes are not kept on disk; will be tried again: should the gateway die, they stay", "err", err)
		return
	}
	n.kept = all
}
