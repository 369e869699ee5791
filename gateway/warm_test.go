package gateway_test

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/testwan"
)

// lineWatch notes the packets of a WAN: who has sent one, and the longest time that
// nobody did, from each socket to each.
type lineWatch struct {
	mu      sync.Mutex // guards what follows
	last    map[[2]netip.AddrPort]time.Time
	silence map[[2]netip.AddrPort]time.Duration
}

// sent is for WAN.Lose, and loses nothing.
func (w *lineWatch) sent(from, to netip.AddrPort, _ int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	way, now := [2]netip.AddrPort{from, to}, time.Now()
	if last, ok := w.last[way]; ok {
		w.silence[way] = max(w.silence[way], now.Sub(last))
	}
	w.last[way] = now
	return false
}

// TestSessionsAreWarm: between gateways that have nothing to say for a quarter of an
// hour, no connection is silent for 5 s in either direction: the neighbour entries of
// all routers on the way stay fresh. When then a VM stops, its flip is at the other site
// one one-way delay later, by a connection that has been there all the time.
func TestSessionsAreWarm(t *testing.T) {
	const delay = 50 * time.Millisecond
	stretched(t, testwan.Line{Delay: delay}, "", func(t *testing.T, wan *testwan.WAN, a, b *stretch) {
		time.Sleep(time.Minute) // all connections are made, and the path's MTU is found
		watch := &lineWatch{last: make(map[[2]netip.AddrPort]time.Time), silence: make(map[[2]netip.AddrPort]time.Duration)}
		wan.Lose(watch.sent)
		time.Sleep(15 * time.Minute)
		sockets := func() (all []netip.AddrPort) {
			for _, ip := range wanIP {
				all = append(all, wan.Dialed(netip.MustParseAddr(ip))...)
			}
			slices.SortFunc(all, netip.AddrPort.Compare)
			return all
		}
		before := sockets()
		watch.mu.Lock()
		if len(before) == 0 || len(watch.silence) < 2*len(before) {
			t.Errorf("%d sockets have spoken in %d directions", len(before), len(watch.silence))
		}
		for way, d := range watch.silence {
			if d >= 5*time.Second {
				t.Errorf("%v said nothing to %v for %v", way[0], way[1], d)
			}
		}
		watch.mu.Unlock()

		nics := []gateway.NIC{{MAC: a.mac.String()}}
		a.l2.Prepare("job", nics, "b")
		time.Sleep(time.Second)
		a.l2.Flip("job")
		stop := time.Now()
		for b.ownerOf(a.mac.String()) != "b" {
			if time.Since(stop) > time.Minute {
				t.Fatal("the flip does not arrive")
			}
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(stop); took > delay+2*time.Millisecond {
			t.Errorf("the flip took %v, the way is one of %v", took, delay)
		}
		if after := sockets(); !slices.Equal(before, after) {
			t.Errorf("sockets were %v and are %v", before, after)
		}
	})
}

// ownerOf is the site to which a MAC is bound.
func (s *stretch) ownerOf(mac string) string {
	for _, b := range s.segment().Bindings {
		if b.MAC == mac {
			return b.Site
		}
	}
	return ""
}
