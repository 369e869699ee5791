package l2ext_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// policy applies a policy at all sites.
func (w *world) policy(p l2ext.Policy) {
	w.t.Helper()
	sites := slices.Sorted(maps.Keys(w.ms))
	for _, site := range sites {
		s := segment(site, sites)
		s.Policy = p
		check(w.t, w.ms[site].Apply(w.t.Context(), []l2ext.Segment{s}))
	}
	w.settle()
}

func (w *world) dependents(site string) string {
	var all []string
	for _, d := range w.ms[site].Segments()[0].Dependents(site) {
		all = append(all, fmt.Sprintf("%v %s", d.MAC, d.Why))
	}
	return strings.Join(all, "; ")
}

// TestDependents lists what a segment is stretched for, until nothing is left.
func TestDependents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		host := l2ext.MAC{2, 0, 0, 0, 0, 2}
		w.policy(l2ext.Policy{Home: "a"})
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		if got := w.dependents("a") + w.dependents("b"); got != "" { // the bridge of b is none
			t.Errorf("at first: %s", got)
		}
		w.appear("b", "lan", host, "10.0.0.2")
		nics := []l2ext.NIC{{MAC: vmMAC, Tap: "lan"}}
		away := host.String() + " is at site b and uses the gateway at a; "
		check(t, w.ms["a"].Prepare(t.Context(), "j", nics, "b"))
		w.settle()
		if got, want := w.dependents("a"), away+vmMAC.String()+" is being moved by job j, and is at site a"; got != want {
			t.Errorf("before the flip: got %s, want %s", got, want)
		}
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		if got, want := w.dependents("b"), away+vmMAC.String()+" is being moved by job j, and is at site b"; got != want {
			t.Errorf("after the flip: got %s, want %s", got, want)
		}
		check(t, w.ms["b"].Settle(t.Context(), "j", nics), w.ms["a"].Confirm(t.Context(), "j"), w.ms["b"].Confirm(t.Context(), "j"))
		w.settle()
		want := away + vmMAC.String() + " has moved to site b and is away from home"
		for _, site := range []string{"a", "b"} {
			if got := w.dependents(site); got != want {
				t.Errorf("at %s: got %s, want %s", site, got, want)
			}
		}
		w.policy(l2ext.Policy{Home: "b"}) // all of a's hosts are there now
		if got := w.dependents("a"); got != "" {
			t.Errorf("at last: %s", got)
		}
		check(t, w.ms["b"].Leave(t.Context(), "prod"))
		w.settle()
		w.want(host, "a: nowhere; b: nowhere")
		w.appear("b", "lan", host, "10.0.0.7") // it does not know
		w.want(host, "a: nowhere; b: nowhere")
		w.policy(l2ext.Policy{}) // the segment stays after all
		w.appear("b", "lan", host, "10.0.0.7")
		if got := w.where(host); strings.Count(got, ": b ") != 2 {
			t.Errorf("the host is at %s", got)
		}
		if err := w.ms["b"].Leave(t.Context(), "x"); err == nil {
			t.Error("left a segment that is not")
		}
	})
}

func TestPath(t *testing.T) {
	for _, tt := range []struct {
		p    l2ext.Policy
		want l2ext.Path // of a host at b
	}{
		{l2ext.Policy{}, l2ext.Path{}},
		{l2ext.Policy{Home: "a"}, l2ext.Path{Egress: "a", Ingress: "a"}},
		{l2ext.Policy{Home: "a", Gateway: l2ext.GatewayAnycast}, l2ext.Path{Egress: "b", Ingress: "a"}},
		{l2ext.Policy{Home: "a", Gateway: l2ext.GatewayAnycast, HostRoutes: true}, l2ext.Path{Egress: "b", Ingress: "b"}},
	} {
		v := l2ext.View{Segment: l2ext.Segment{Policy: tt.p}}
		if got := v.Path("b"); got != tt.want {
			t.Errorf("%+v: got %+v, want %+v", tt.p, got, tt.want)
		}
	}
}

// TestAnycast has a gateway with the same addresses at two sites. Neither hears
// of the other, and no binding is made of it.
func TestAnycast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		gw, ip := l2ext.MAC{2, 0, 0, 0, 0, 0xfe}, netip.MustParseAddr("10.0.0.1")
		ip6 := netip.MustParseAddr("fe80::1")
		w.policy(l2ext.Policy{Gateway: l2ext.GatewayAnycast, GatewayMAC: gw, GatewayIPs: []netip.Addr{ip, ip6}})
		for _, site := range []string{"a", "b"} {
			w.appear(site, "lan", gw, ip.String())
			w.appear(site, "lan", gw, ip6.String())
		}
		w.want(gw, "a: nowhere; b: nowhere")
		// What another gateway would know of it, from before the policy.
		rogue, err := announce.Message{Kind: announce.Update, VNI: 100, Records: []announce.Record{{MAC: gw, Cause: announce.Learned, Seq: 9, Site: "b"}}}.Append(nil)
		check(t, err, w.ms["a"].HandleUrgent("b", rogue))
		w.settle()
		w.want(gw, "a: nowhere; b: nowhere")
		ask := unhex(t, "ffffffffffff 525400000009 0806 0001080006040001 525400000009 0a000009 000000000000 0a000001")
		other := bytes.Clone(ask)
		other[len(other)-1] = 7
		for _, f := range [][]byte{ask, frameTo(gw, vmMAC, 100), other} {
			check(t, w.hosts["a"].Send("lan", append(f, make([]byte, 18)...)))
			w.settle()
		}
		if got := w.receive("b", "lan", vmMAC); len(got) != 1 || got[0][41] != 7 {
			t.Errorf("%d frames have crossed", len(got))
		}
		for _, p := range []l2ext.Policy{{GatewayMAC: l2ext.MAC{1}}, {GatewayIPs: make([]netip.Addr, 17)}, {Home: strings.Repeat("h", 64)}, {HostRoutes: true}} {
			s := segment("a", []string{"a", "b"})
			s.Policy = p
			if err := w.ms["a"].Apply(t.Context(), []l2ext.Segment{s}); err == nil {
				t.Errorf("%+v was taken", p)
			}
		}
	})
}

// TestAnycastRogue has a host of another site claim the address of the gateways: no
// host of this one hears of it. And a gateway that was a host like any other before
// the policy is forgotten.
func TestAnycastRogue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		gw, rogue, ip := l2ext.MAC{2, 0, 0, 0, 0, 0xfe}, l2ext.MAC{2, 0, 0, 0, 0, 0xbb}, netip.MustParseAddr("10.0.0.1")
		w.appear("b", "lan", gw, ip.String())
		w.want(gw, "a: b 2 confirmed; b: b 2 confirmed")
		w.policy(l2ext.Policy{Gateway: l2ext.GatewayAnycast, GatewayMAC: gw, GatewayIPs: []netip.Addr{ip}})
		w.want(gw, "a: nowhere; b: nowhere")
		if s := w.hosts["a"].String(); strings.Contains(s, gw.String()) {
			t.Errorf("host a is\n%s", s)
		}
		w.appear("a", "lan", hostMAC, "10.0.0.7")
		w.appear("b", "lan", rogue, "10.0.0.9")
		w.appear("b", "lan", rogue, ip.String())
		if b, ok := binding(w.ms["b"], rogue); !ok || len(b.IPs) != 1 {
			t.Errorf("its own site binds it as %+v", b)
		}
		// A gateway that does not see to it tells of it.
		said, err := announce.Message{Kind: announce.Update, VNI: 100, Records: []announce.Record{{MAC: rogue, Cause: announce.Learned, Seq: 9, Site: "b", IPs: []netip.Addr{ip}}}}.Append(nil)
		check(t, err, w.ms["a"].HandleUrgent("b", said))
		w.settle()
		for w.hosts["a"].Receive("lan") != nil {
		}
		question := ether.Question{Target: ip, Sender: netip.MustParseAddr("10.0.0.7")}
		check(t, w.hosts["a"].Send("lan", ether.AppendQuestion(nil, hostMAC, question)))
		check(t, w.hosts["b"].Send("lan", question.AppendReply(nil, ether.Replier{MAC: rogue, Asker: hostMAC})))
		w.settle()
		if got := w.receive("a", "lan", rogue); len(got) != 0 {
			t.Errorf("host a has heard of another gateway by % x", got[0])
		}
	})
}

// routeTable is a router as host routes see it.
type routeTable struct {
	mu     sync.Mutex
	routes map[string]bool
	fail   bool
}

func (r *routeTable) set(_ context.Context, what string, h l2ext.HostRoute) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail {
		return errors.New("the router is away")
	}
	key := fmt.Sprintf("%s %v %v", h.Segment, h.MAC, h.IP)
	if what == "arrive" {
		r.routes[key] = true
	} else {
		delete(r.routes, key)
	}
	return nil
}

func (r *routeTable) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(r.routes)), "; ")
}

// TestHostRoutes moves a guest to b and home again, with a router that does not
// answer for a while.
func TestHostRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		router := &routeTable{routes: make(map[string]bool), fail: true}
		h := l2exttest.NewHost()
		h.AddBridge("br")
		h.Plug("br", "lan")
		wire := l2exttest.NewWire(l2exttest.Line{})
		m, err := l2ext.New(l2ext.Config{Site: "b", Host: h, Carrier: wire.End("b"), Route: leavesNothing(router.set)})
		check(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { check(t, m.Run(ctx)) })
		seg := l2ext.Segment{Name: "prod", VNI: 100, Bridge: "br", Sites: []string{"a"}, Policy: l2ext.Policy{Home: "a", HostRoutes: true}}
		check(t, m.Apply(ctx, []l2ext.Segment{seg}))
		for _, ip := range []string{"10.0.0.9", "fd00::9", "fe80::9"} {
			check(t, h.Send("lan", ether.AppendAnnounce(nil, vmMAC, netip.MustParseAddr(ip))))
		}
		time.Sleep(2 * time.Second)
		if got := router.String(); got != "" {
			t.Errorf("routes: %s", got)
		}
		router.mu.Lock()
		router.fail = false
		router.mu.Unlock()
		time.Sleep(5 * time.Second) // it has failed twice: two seconds, and the next tick
		want := "prod 52:54:00:00:00:09 10.0.0.9; prod 52:54:00:00:00:09 fd00::9"
		if got := router.String(); got != want {
			t.Errorf("routes: %s", got)
		}
		check(t, m.Prepare(ctx, "j", []l2ext.NIC{{MAC: vmMAC}}, "a"), m.Flip(ctx, "j"))
		synctest.Wait() // not the next second: the flip does it
		if got := router.String(); got != "" {
			t.Errorf("after it has left: %s", got)
		}
		check(t, m.Revoke(ctx, "j"))
		time.Sleep(2 * time.Second)
		if got := router.String(); got != want {
			t.Errorf("after it has come back: %s", got)
		}
		cancel()
		wg.Wait()
		if got := router.String(); got != "" {
			t.Errorf("after the end: %s", got)
		}
	})
}
