package l2ext_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// oddRouter takes a second for each order, and much longer for some.
type oddRouter struct {
	t     *testing.T
	table routeTable

	mu      sync.Mutex
	hangs   map[string]bool // by IP: it does nothing until it is given up
	running map[string]int  // by MAC, and by IP
	most    int             // that ran at the same time
	tries   map[string][]time.Time
}

func newOddRouter(t *testing.T, hangs ...string) *oddRouter {
	o := &oddRouter{t: t, table: routeTable{routes: make(map[string]bool)}, hangs: make(map[string]bool), running: make(map[string]int), tries: make(map[string][]time.Time)}
	for _, ip := range hangs {
		o.hangs[ip] = true
	}
	return o
}

func (o *oddRouter) set(ctx context.Context, what string, r l2ext.HostRoute) error {
	hangs := o.begin(what, r)
	defer o.end(r)
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second):
	}
	return o.table.set(ctx, what, r)
}

func (o *oddRouter) begin(what string, r l2ext.HostRoute) (hangs bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, host := range []string{r.MAC.String(), r.IP.String()} {
		if o.running[host]++; o.running[host] > 1 {
			o.t.Errorf("two orders at once for %s", host)
		}
	}
	o.running["all"]++
	o.most = max(o.most, o.running["all"])
	key := what + " " + r.IP.String()
	o.tries[key] = append(o.tries[key], time.Now())
	return o.hangs[r.IP.String()]
}

func (o *oddRouter) end(r l2ext.HostRoute) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, host := range []string{r.MAC.String(), r.IP.String(), "all"} {
		o.running[host]--
	}
}

func (o *oddRouter) setHanging(ip string, hangs bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hangs[ip] = hangs
}

func (o *oddRouter) tried(key string) []time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tries[key]
}

// leavesNothing makes a Route of a function after which nothing is left.
func leavesNothing(f func(context.Context, string, l2ext.HostRoute) error) func(context.Context, string, l2ext.HostRoute) (<-chan struct{}, error) {
	return func(ctx context.Context, what string, r l2ext.HostRoute) (<-chan struct{}, error) {
		return nil, f(ctx, what, r)
	}
}

// routedWorld has routes to guests at site b.
func routedWorld(t *testing.T, router *oddRouter) *world {
	w := emptyWorld(t, l2exttest.Line{})
	w.first = l2ext.Policy{Home: "a", HostRoutes: true}
	w.change = func(c *l2ext.Config) {
		if c.Site == "b" {
			c.Route = leavesNothing(router.set)
		}
	}
	w.begin([]string{"a", "b"})
	return w
}

func guestMAC(i int) l2ext.MAC { return l2ext.MAC{2, 0, 0, 0, 9, byte(i)} }
func guestIP(i int) string     { return fmt.Sprintf("10.0.0.%d", i) }

// TestHostRoutesHang has a router that does not answer for three of 30 guests. It holds up none of the others,
// is asked less and less often, and an operator is told. When it answers, all is well again.
func TestHostRoutesHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		router := newOddRouter(t, guestIP(1), guestIP(2), guestIP(3))
		w := routedWorld(t, router)
		for i := range 30 {
			w.appear("b", "lan", guestMAC(i+1), guestIP(i+1))
		}
		w.pass(time.Minute)
		if n := strings.Count(router.table.String(), "prod "); n != 27 {
			t.Errorf("there are %d routes: %s", n, &router.table)
		}
		if router.most < 2 || router.most > 8 {
			t.Errorf("%d orders at once", router.most)
		}
		v := w.ms["b"].Segments()[0]
		if !strings.Contains(v.Problem, "3 hosts, such as 10.0.0.1 (arrive): context deadline exceeded") || v.Counts[l2ext.RouteFailures] < 6 {
			t.Errorf("problem %q, %d failures", v.Problem, v.Counts[l2ext.RouteFailures])
		}
		w.pass(10 * time.Minute)
		tries := router.tried("arrive " + guestIP(1))
		if last := tries[len(tries)-1].Sub(tries[len(tries)-2]); last < time.Minute || last > 75*time.Second || tries[1].Sub(tries[0]) > 30*time.Second {
			t.Errorf("tried at %v", tries)
		}
		for i := range 3 {
			router.setHanging(guestIP(i+1), false)
		}
		w.pass(2 * time.Minute)
		if n := strings.Count(router.table.String(), "prod "); n != 30 || w.ms["b"].Segments()[0].Problem != "" {
			t.Errorf("in the end there are %d routes, and %q", n, w.ms["b"].Segments()[0].Problem)
		}
		// What hangs does not hold up the end either.
		for i := range 30 {
			router.setHanging(guestIP(i+1), i%2 == 0)
		}
		began := time.Now()
		w.stop["b"]()
		if took := time.Since(began); took > 21*time.Second {
			t.Errorf("the end took %v", took)
		}
	})
}

// TestHostRoutesFollow has guests go and come back while the router is at work on their routes, and
// an address go to another guest: what is there in the end is what was wished last.
func TestHostRoutesFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		router := newOddRouter(t, guestIP(1))
		w := routedWorld(t, router)
		w.appear("b", "lan", guestMAC(1), guestIP(1))
		w.appear("b", "lan", guestMAC(2), guestIP(2))
		w.pass(5 * time.Second) // the first hangs
		w.appear("a", "lan", guestMAC(1), guestIP(1))
		w.appear("a", "lan", guestMAC(2), guestIP(2))
		w.pass(time.Minute)
		router.setHanging(guestIP(1), false)
		w.pass(time.Minute)
		if got := router.table.String(); got != "" {
			t.Errorf("of guests that have left there is %s", got)
		}
		w.appear("b", "lan", guestMAC(2), guestIP(2))
		w.pass(5 * time.Second)
		w.appear("b", "lan", guestMAC(3), guestIP(2)) // another guest has the address now
		w.pass(time.Minute)
		if got, want := router.table.String(), "prod 02:00:00:00:09:03 10.0.0.2"; got != want {
			t.Errorf("there is %s, want %s", got, want)
		}
	})
}

// TestHostRoutesOneAddress has a router that knows routes by their addresses only, and refuses for a
// while to take one away: when it does, it takes that of the guest that has the address now.
func TestHostRoutesOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		router := newOddRouter(t)
		var mu sync.Mutex
		routes, refuse := make(map[netip.Addr]l2ext.MAC), true
		w := emptyWorld(t, l2exttest.Line{})
		w.first = l2ext.Policy{Home: "a", HostRoutes: true}
		w.change = func(c *l2ext.Config) {
			c.Route = leavesNothing(func(_ context.Context, what string, r l2ext.HostRoute) error {
				router.begin(what, r)
				defer router.end(r)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case what == "arrive":
					routes[r.IP] = r.MAC
				case refuse:
					return errors.New("not now")
				default:
					delete(routes, r.IP)
				}
				return nil
			})
		}
		w.begin([]string{"a", "b"})
		w.appear("b", "lan", guestMAC(1), guestIP(1))
		w.pass(5 * time.Second)
		w.appear("b", "lan", guestMAC(2), guestIP(1))
		w.pass(5 * time.Second)
		mu.Lock()
		refuse = false
		mu.Unlock()
		w.pass(2 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if got := fmt.Sprint(routes); got != "map[10.0.0.1:02:00:00:00:09:02]" {
			t.Errorf("there is %s", got)
		}
	})
}

// TestHostRoutesLeaveSomething has each order leave something running for some seconds. That holds up what is for
// the same guest or address, and nothing else: neither other guests, nor other segments, but there is a bound.
func TestHostRoutesLeaveSomething(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rests, guests = 3 * time.Second, 60
		router := newOddRouter(t)
		var mu sync.Mutex
		resting, most := 0, 0
		w := emptyWorld(t, l2exttest.Line{})
		w.first = l2ext.Policy{Home: "a", HostRoutes: true}
		w.change = func(c *l2ext.Config) {
			c.Route = func(ctx context.Context, what string, r l2ext.HostRoute) (<-chan struct{}, error) {
				router.begin(what, r) // tells of two at once for one host
				err := router.table.set(ctx, what, r)
				left := make(chan struct{})
				mu.Lock()
				defer mu.Unlock()
				resting++
				most = max(most, resting)
				go func() { // the runner waits for it
					time.Sleep(rests)
					router.end(r)
					mu.Lock()
					resting--
					mu.Unlock()
					close(left)
				}()
				return left, err
			}
		}
		w.begin([]string{"a", "b"})
		for i := range guests {
			check(t, w.hosts["b"].Send("lan", ether.AppendAnnounce(nil, guestMAC(i), netip.MustParseAddr(guestIP(i)))))
		}
		w.pass(rests + 2*time.Second)
		if n := strings.Count(router.table.String(), "prod "); n != guests {
			t.Errorf("there are %d routes", n)
		}
		w.pass(rests)
		if most < 20 || most > 32 {
			t.Errorf("of %d orders something was left at once", most)
		}
		check(t, w.ms["b"].Prepare(t.Context(), "j", []l2ext.NIC{{MAC: guestMAC(7)}}, "a"), w.ms["b"].Flip(t.Context(), "j"))
		synctest.Wait()
		check(t, w.ms["b"].Revoke(t.Context(), "j"))
		w.pass(rests - time.Millisecond)
		if strings.Contains(router.table.String(), guestIP(7)+";") {
			t.Error("the route of a guest that has come back is there while it may still be taken away")
		}
		w.pass(2 * time.Second)
		if n := strings.Count(router.table.String(), "prod "); n != guests {
			t.Errorf("then there are %d routes", n)
		}
		began := time.Now()
		w.stop["b"]()
		if took := time.Since(began); router.table.String() != "" || took > 4*rests {
			t.Errorf("the end took %v, and there is still %s", took, &router.table)
		}
	})
}
