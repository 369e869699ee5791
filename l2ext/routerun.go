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
	routesLeaving  = 32               // of one segment, that run, or have ended and left something: each is a process of the operator's, and hosts that wait
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
	byIP    map[routeHost][]HostRoute // these by their addresses: one, or a few while an address changes its guest
	kept    map[HostRoute]bool        // what Config.KeepRoutes was told last
	queue   map[string][]dueRoute     // by segment, what is to be done next, in order: made with each wish
	running int
	byName  map[string]int     // of these, by segment
	leaving map[string]int     // that have ended, by segment, and left something that may still have a hand in the route
	busy    map[routeHost]bool // hosts for which one runs, or is leaving
	ended   chan routeEnd      // unbuffered: who ends waits for the runner
	gone    chan HostRoute     // likewise, when nothing is left
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
	return [2]routeHost{{segment: r.Segment, mac: r.MAC}, r.address()}
}

func (r HostRoute) address() routeHost { return routeHost{segment: r.Segment, ip: r.IP.String()} }

// routeEnd is how a call of Config.Route has ended.
type routeEnd struct {
	route HostRoute
	what  string
	err   error
	left  bool // something, which is told of when it has gone
}

func newRouteRunner(left []HostRoute) *routeRunner {
	n := &routeRunner{
		have: make(map[HostRoute]*routeState), byIP: make(map[routeHost][]HostRoute),
		byName: make(map[string]int), leaving: make(map[string]int), busy: make(map[routeHost]bool),
		ended: make(chan routeEnd), gone: make(chan HostRoute),
	}
	for _, l := range left {
		n.meet(l).stays = true
	}
	n.kept = n.all()
	return n
}

// meet finds a route, which may be there from now on, whatever becomes of us.
func (n *routeRunner) meet(r HostRoute) *routeState {
	s := n.have[r]
	if s == nil {
		s = &routeState{}
		n.have[r] = s
		n.byIP[r.address()] = append(n.byIP[r.address()], r)
	}
	return s
}

// forget takes a route out that is there no more.
func (n *routeRunner) forget(r HostRoute) {
	delete(n.have, r)
	rest := slices.DeleteFunc(n.byIP[r.address()], func(o HostRoute) bool { return o == r })
	if n.byIP[r.address()] = rest; len(rest) == 0 {
		delete(n.byIP, r.address())
	}
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
		m.startRoutes(ctx)
		select {
		case <-ctx.Done():
			m.endRoutes(context.WithoutCancel(ctx))
			return
		case wish := <-m.routes.wish:
			n.take(wish)
			n.line(time.Now())
			m.keepRoutes()
			m.tellRoutes()
		case e := <-n.ended:
			m.routeEnded(time.Now(), e)
		case r := <-n.gone:
			n.left(r)
		}
	}
}

// endRoutes takes all away, and tries none twice.
func (m *Manager) endRoutes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, routesEnd)
	defer cancel()
	n := m.routes.runner
	for n.running > 0 { // by the end of their context
		m.awaitRoute()
	}
	for _, s := range n.have {
		s.failed, s.next = 0, time.Time{}
	}
	n.take(routeWish{})
	n.line(time.Now()) // once
	for m.startRoutes(ctx); n.running > 0 || len(n.leaving) > 0; m.startRoutes(ctx) {
		m.awaitRoute()
	}
	m.keepRoutes()
}

// awaitRoute waits until a call has ended, or what one has left has gone.
func (m *Manager) awaitRoute() {
	n := m.routes.runner
	select {
	case e := <-n.ended:
		m.routeEnded(time.Now(), e)
	case r := <-n.gone:
		n.left(r)
	}
}

// take notes what is wished from now on.
func (n *routeRunner) take(wish routeWish) {
	for r := range wish.want {
		n.meet(r)
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

// dueRoute is one about which something is to be done.
type dueRoute struct {
	HostRoute
	what  string
	again bool // it has failed
}

// compare has those that have not failed be first, and of these what is to be taken away.
func (d dueRoute) compare(o dueRoute) int {
	if d.again != o.again {
		if o.again {
			return -1
		}
		return 1
	}
	return cmp.Or(-cmp.Compare(d.what, o.what), cmp.Compare(d.Segment, o.Segment), d.IP.Compare(o.IP), bytes.Compare(d.MAC[:], o.MAC[:]))
}

// line makes the queue: once for each wish, as an evacuation brings thousands.
func (n *routeRunner) line(now time.Time) {
	n.queue = make(map[string][]dueRoute)
	for r, s := range n.have {
		if what := s.what(); what != "" && !s.running && !now.Before(s.next) {
			n.queue[r.Segment] = append(n.queue[r.Segment], dueRoute{HostRoute: r, what: what, again: s.failed > 0})
		}
	}
	for _, q := range n.queue {
		slices.SortFunc(q, dueRoute.compare)
	}
}

// pushIn puts a route first in the queue if something is to be done about it now that was not before.
func (n *routeRunner) pushIn(r HostRoute) {
	if what := n.have[r].what(); what != "" {
		n.queue[r.Segment] = slices.Insert(n.queue[r.Segment], 0, dueRoute{HostRoute: r, what: what})
	}
}

// pull takes out of the queue what is to be started now; ok is false for nothing. It passes over hosts for
// which one runs, which are few, and over segments of which as many run as may.
func (n *routeRunner) pull() (first dueRoute, ok bool) {
	at := 0
	for segment, q := range n.queue {
		if n.byName[segment] == routesOfOne || n.byName[segment]+n.leaving[segment] >= routesLeaving {
			continue
		}
		i := slices.IndexFunc(q, n.isFree)
		if i >= 0 && (!ok || q[i].compare(first) < 0) {
			first, at, ok = q[i], i, true
		}
	}
	if !ok {
		return first, false
	}
	q := n.queue[first.Segment]
	copy(q[1:at+1], q[:at]) // those that were passed over stay first
	if n.queue[first.Segment] = q[1:]; len(q) == 1 {
		delete(n.queue, first.Segment)
	}
	return first, true
}

// isFree tells that nothing runs for the hosts of a route.
func (n *routeRunner) isFree(d dueRoute) bool {
	hosts := d.hosts()
	return !n.busy[hosts[0]] && !n.busy[hosts[1]]
}

// startRoutes starts as many as may run.
func (m *Manager) startRoutes(ctx context.Context) {
	n := m.routes.runner
	for n.running < routesAtOnce && ctx.Err() == nil {
		d, ok := n.pull()
		if !ok {
			return
		}
		r, what, hosts := d.HostRoute, d.what, d.hosts()
		n.have[r].running = true
		n.running++
		n.byName[r.Segment]++
		n.busy[hosts[0]], n.busy[hosts[1]] = true, true
		go m.callRoute(ctx, what, r) // endRoutes waits for it
	}
}

// callRoute calls Config.Route, and tells when that has ended, and then when what it has left has gone.
func (m *Manager) callRoute(ctx context.Context, what string, r HostRoute) {
	ctx, cancel := context.WithTimeout(ctx, routeTime)
	left, err := m.cfg.Route(ctx, what, r)
	cancel()
	m.routes.runner.ended <- routeEnd{r, what, err, left != nil}
	if left != nil {
		<-left
		m.routes.runner.gone <- r
	}
}

// routeEnded notes how one has ended.
func (m *Manager) routeEnded(now time.Time, e routeEnd) {
	n, r := m.routes.runner, e.route
	s := n.have[r]
	s.running = false
	n.running--
	less(n.byName, r.Segment)
	if n.leaving[r.Segment]++; !e.left {
		n.left(r)
	}
	if e.err != nil {
		m.routeFailed(now, s, e)
		return
	}
	m.log.Info("host route", "stage", e.what, "segment", r.Segment, "mac", r.MAC, "ip", r.IP)
	s.failed, s.next, s.err, s.made = 0, time.Time{}, nil, e.what == arrive
	if e.what == depart {
		n.tookAway(r)
	}
	if n.have[r] != nil {
		n.pushIn(r) // the wish has changed meanwhile
	}
}

// left notes that nothing is left of a call: another may be made for its hosts.
func (n *routeRunner) left(r HostRoute) {
	less(n.leaving, r.Segment)
	for _, host := range r.hosts() {
		delete(n.busy, host)
	}
}

// less takes one off a count.
func less(counts map[string]int, of string) {
	if counts[of]--; counts[of] == 0 {
		delete(counts, of)
	}
}

// tookAway notes that a route has been taken away.
func (n *routeRunner) tookAway(r HostRoute) {
	for _, o := range n.byIP[r.address()] { // what took this one away may have taken that of another MAC with its IP
		if other := n.have[o]; o != r && other.made {
			if other.made = false; other.wanted {
				n.pushIn(o)
			}
		}
	}
	if !n.have[r].wanted {
		n.forget(r)
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
