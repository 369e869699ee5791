package l2ext

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
)

func numberedRoute(segment string, i int) HostRoute {
	return HostRoute{Segment: segment, MAC: MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, IP: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
}

// TestRouteQueue starts what is due in its order: of two segments in turn, what has failed last, and one
// after the other for one MAC and for one IP, which hold up nobody else.
func TestRouteQueue(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b := func(i int) HostRoute { return numberedRoute("a", i) }, func(i int) HostRoute { return numberedRoute("b", i) }
	sameMAC, sameIP := a(1), a(1)
	sameMAC.IP, sameIP.MAC = netip.AddrFrom4([4]byte{10, 1, 0, 0}), MAC{2, 1}
	n := newRouteRunner([]HostRoute{a(9)})
	wish := routeWish{want: map[HostRoute]bool{sameMAC: true, sameIP: true, b(1): true, b(2): true, b(3): true, b(4): true, b(5): true}}
	for i := range 4 {
		wish.want[a(i+1)] = true
	}
	n.take(wish)
	n.have[a(2)].failed, n.have[a(3)].next = 1, now.Add(1)
	n.line(now)
	var order []HostRoute
	run := func(d dueRoute, running bool) {
		step := 1
		if !running {
			step = -1
		}
		n.byName[d.Segment] += step
		for _, h := range d.hosts() {
			n.busy[h] = running
		}
	}
	var first dueRoute
	for d, ok := n.pull(); ok; d, ok = n.pull() {
		if run(d, true); len(order) == 0 {
			first = d
		}
		order = append(order, d.HostRoute)
	}
	if want := []HostRoute{a(9), a(1), a(4), b(1), b(2), b(3), b(4), a(2)}; !slices.Equal(order, want) || first.what != depart {
		t.Errorf("started are, after a %s,\n%v\nwant\n%v", first.what, order, want)
	}
	run(dueRoute{HostRoute: a(1)}, false)
	if d, ok := n.pull(); !ok || d.HostRoute != sameIP {
		t.Errorf("when the host is free, %v is next", d)
	} else {
		run(d, true)
		run(dueRoute{HostRoute: a(9)}, false)
	}
	if d, ok := n.pull(); !ok || d.HostRoute != sameMAC {
		t.Errorf("then %v is", d)
	}
	n.pushIn(b(1)) // of a segment of which as many run as may
	if d, ok := n.pull(); ok {
		t.Errorf("at last %v is", d)
	}
}

// TestRoutesOfMany has routes to as many guests as a segment may have. Each that ends has the next start, and
// for that not all are looked at: it would take memory for all.
func TestRoutesOfMany(t *testing.T) {
	const steps = 100
	each := func(hosts int) uint64 {
		m := &Manager{log: slog.New(slog.DiscardHandler), routes: newRoutes(nil)}
		m.cfg.Route = func(context.Context, string, HostRoute) (<-chan struct{}, error) { return nil, nil }
		wish := routeWish{want: make(map[HostRoute]bool)}
		for i := range hosts {
			wish.want[numberedRoute("prod", i)] = true
		}
		n := m.routes.runner
		n.take(wish)
		n.line(time.Now())
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range steps {
			m.startRoutes(t.Context())
			m.routeEnded(time.Now(), <-n.ended)
		}
		runtime.ReadMemStats(&after)
		for n.running > 0 {
			m.routeEnded(time.Now(), <-n.ended)
		}
		return (after.TotalAlloc - before.TotalAlloc) / steps
	}
	if bytes := each(MaxMACs); bytes > 64<<10 {
		t.Errorf("%d bytes for each that ends", bytes)
	}
}

// TestRoutesAreIndexed takes away the routes of an address that has gone from guest to guest, among those of many
// others: only its own are looked at, and nothing of them is kept in the end.
func TestRoutesAreIndexed(t *testing.T) {
	const hosts, same = 10_000, 3
	n := newRouteRunner([]HostRoute{numberedRoute("prod", 0)})
	wish := routeWish{want: make(map[HostRoute]bool)}
	for i := range hosts {
		wish.want[numberedRoute("prod", i)] = true
		wish.want[numberedRoute("other", i)] = true
	}
	var shared []HostRoute
	for i := range same {
		r := numberedRoute("prod", 7)
		r.MAC[1] = byte(i)
		shared = append(shared, r)
		wish.want[r] = true
	}
	n.take(wish)
	n.take(wish)
	for _, s := range n.have {
		s.made = true
	}
	n.line(time.Now())
	if got := n.byIP[shared[0].address()]; len(got) != same {
		t.Errorf("for one that is taken away %d are looked at, of %d", len(got), len(n.have))
	}
	n.take(routeWish{want: map[HostRoute]bool{shared[2]: true}})
	n.tookAway(shared[0])
	if s := n.have[shared[2]]; s == nil || s.made || n.have[shared[0]] != nil || n.have[shared[1]].made {
		t.Errorf("the others of its address: %+v, %+v", n.have[shared[1]], s)
	}
	if q := n.queue["prod"]; len(q) != 1 || q[0].HostRoute != shared[2] {
		t.Errorf("to be made again: %v", q)
	}
	n.take(routeWish{})
	for r := range n.all() {
		n.tookAway(r)
	}
	if len(n.have)+len(n.byIP) != 0 {
		t.Errorf("in the end there are %d routes, and %d addresses", len(n.have), len(n.byIP))
	}
}

// TestFlipsWishNoRoutes has jobs move hosts one after the other on a segment with routes to many: the next flip
// waits for each, so that few look at all hosts. It would take memory for all.
func TestFlipsWishNoRoutes(t *testing.T) {
	const hosts, flips = 10_000, 50
	m, err := New(Config{Site: "b", Host: &sinkHost{}, Carrier: sinkCarrier{}, Route: func(context.Context, string, HostRoute) (<-chan struct{}, error) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	seg := m.keepOrMake(nil, Segment{Name: "prod", VNI: 100, Sites: []string{"a"}, Policy: Policy{Home: "a", HostRoutes: true}})
	m.state.Store(&map[uint32]*segment{100: seg})
	now := time.Now()
	for i := range hosts {
		r := numberedRoute("prod", i)
		seg.table.see(now, r.MAC, true)
		seg.table.note(now, r.MAC, ether.Claim{IP: r.IP})
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range flips {
		j := &job{id: "j", to: "a"}
		j.add(100, numberedRoute("prod", i).MAC)
		m.moveAll(now, j, "a", 1)
	}
	runtime.ReadMemStats(&after)
	if bytes := (after.TotalAlloc - before.TotalAlloc) / flips; bytes > 64<<10 {
		t.Errorf("%d bytes for each flip", bytes)
	}
	m.wishDue(now.Add(routesRest))
	if wish := <-m.routes.wish; len(wish.want) != hosts-flips {
		t.Errorf("%d routes are wished", len(wish.want))
	}
	if m.wishDue(now.Add(2 * routesRest)); len(m.routes.wish) != 0 {
		t.Error("nothing has moved, and routes are wished")
	}
}
