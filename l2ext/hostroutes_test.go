package l2ext_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// keptRoutes is what a gateway keeps of its host routes for the next one.
type keptRoutes struct {
	mu  sync.Mutex
	all []string
}

func (k *keptRoutes) set(routes []l2ext.HostRoute) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = k.all[:0]
	for _, r := range routes {
		k.all = append(k.all, fmt.Sprintf("%s %v %v", r.Segment, r.MAC, r.IP))
	}
	slices.Sort(k.all)
	return nil
}

func (k *keptRoutes) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.all, "; ")
}

// TestHostRoutesLeft starts a gateway where an earlier one has died and left routes: to a
// guest that is still there, to one that has gone to the other site meanwhile, to one that is not found
// any more, and to one of a segment that is not wished any more.
func TestHostRoutesLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		route := func(segment string, last byte) l2ext.HostRoute {
			return l2ext.HostRoute{Segment: segment, MAC: l2ext.MAC{2, 0, 0, 0, 0, last}, IP: netip.AddrFrom4([4]byte{10, 0, 0, last})}
		}
		here, away, lost, other := route("prod", 1), route("prod", 2), route("prod", 3), route("other", 4)
		left := []l2ext.HostRoute{here, away, lost, other}
		router, kept := &routeTable{routes: make(map[string]bool)}, &keptRoutes{}
		for _, r := range left {
			check(t, router.set(t.Context(), "arrive", r))
		}
		check(t, kept.set(left))
		w := emptyWorld(t, l2exttest.Line{})
		w.first = l2ext.Policy{Home: "a", HostRoutes: true}
		w.change = func(c *l2ext.Config) {
			if c.Site == "b" {
				c.Route, c.KeepRoutes, c.LeftRoutes = leavesNothing(router.set), kept.set, left
			}
		}
		w.begin([]string{"a", "b"})
		w.pass(time.Minute)
		if got, want := router.String(), kept.String(); got != want || strings.Count(got, ";") != 3 {
			t.Errorf("while nothing is known there are %q, kept %q", got, want)
		}
		w.appear("b", "lan", here.MAC, here.IP.String())
		w.appear("a", "lan", away.MAC, away.IP.String())
		w.pass(2 * time.Second)
		want := "other 02:00:00:00:00:04 10.0.0.4; prod 02:00:00:00:00:01 10.0.0.1; prod 02:00:00:00:00:03 10.0.0.3"
		if got, kept := router.String(), kept.String(); got != want || kept != want {
			t.Errorf("when two are found there are %q, kept %q, want %q", got, kept, want)
		}
		w.pass(4 * time.Minute)
		w.appear("b", "lan", here.MAC, here.IP.String())
		w.pass(time.Minute)
		want = "prod 02:00:00:00:00:01 10.0.0.1"
		if got, kept := router.String(), kept.String(); got != want || kept != want {
			t.Errorf("after minutes there are %q, kept %q, want %q", got, kept, want)
		}
		check(t, w.ms["b"].Apply(t.Context(), nil))
		w.pass(2 * time.Second)
		if got, kept := router.String(), kept.String(); got != "" || kept != "" {
			t.Errorf("without a segment there are %q, kept %q", got, kept)
		}
	})
}

// TestHostRoutesKept has a router that takes a route, and no order after that: the
// next gateway has to know of the route.
func TestHostRoutesKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		router, kept := &routeTable{routes: make(map[string]bool)}, &keptRoutes{}
		w := emptyWorld(t, l2exttest.Line{})
		w.first = l2ext.Policy{Home: "a", HostRoutes: true}
		w.change = func(c *l2ext.Config) {
			if c.Site == "b" {
				c.Route, c.KeepRoutes = leavesNothing(router.set), kept.set
			}
		}
		w.begin([]string{"a", "b"})
		w.appear("b", "lan", vmMAC, "10.0.0.9")
		w.pass(2 * time.Second)
		router.mu.Lock()
		router.fail = true
		router.mu.Unlock()
		w.stop["b"]()
		if got, want := kept.String(), "prod 52:54:00:00:00:09 10.0.0.9"; got != want || router.String() != want {
			t.Errorf("kept %q, there is %q, want %q", got, router, want)
		}
	})
}
