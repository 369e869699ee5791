package l2ext_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestTerms has two of three sites agree on a segment, and the third not: each is told
// with whom it differs and in what, until it does not any more.
func TestTerms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 5 * time.Millisecond}, "a", "b", "c")
		sites := []string{"a", "b", "c"}
		apply := func(site string, s l2ext.Segment) {
			t.Helper()
			check(t, w.ms[site].Apply(t.Context(), []l2ext.Segment{s}))
			w.pass(11 * time.Second) // a digest
		}
		want := func(a, b, c string) {
			t.Helper()
			for site, want := range map[string]string{"a": a, "b": b, "c": c} {
				if got := w.problem(site); got != want {
					t.Errorf("site %s: problem %q, want %q", site, got, want)
				}
			}
		}
		s := segment("a", sites)
		s.Policy.Home = "a"
		s.Policy.Limits.Broadcast = 7 // a site's own affair
		apply("a", s)
		want("", "", "") // the others have not said where home is

		s = segment("c", sites)
		s.MTU, s.Policy = 1400, l2ext.Policy{Home: "c", Gateway: l2ext.GatewayAnycast, GatewayIPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, DHCP: l2ext.Cross, RouterAdverts: l2ext.Cross}
		apply("c", s)
		want("gateway is anycast at site c and home here; gateway_ips is 10.0.0.1 at site c and none here; home is c at site c and a here; and 1 more",
			"gateway is anycast at site c and home here; gateway_ips is 10.0.0.1 at site c and none here; mtu is 1400 at site c and 1500 here",
			"gateway is home at site a and anycast here; gateway_ips is none at site a and 10.0.0.1 here; home is a at site a and c here; and 4 more")
		apply("c", segment("c", sites))
		want("", "", "")

		// What a site has said does not outlive its segment.
		s = segment("c", sites)
		s.MTU = 1400
		apply("c", s)
		check(t, w.ms["c"].Apply(t.Context(), nil))
		w.pass(time.Minute)
		gone := "not at site c: no segment with VNI 100 spans this site there"
		if a, b := w.problem("a"), w.problem("b"); a != gone || b != gone {
			t.Errorf("site a: %q, site b: %q", a, b)
		}
		apply("c", segment("c", sites))
		w.pass(time.Minute)
		want("", "", "")

		// What nobody here knows is no reason to worry.
		text, err := announce.Message{Kind: announce.Terms, VNI: 100, Terms: []announce.Term{{Name: "colour", Value: "red"}}}.Append(nil)
		check(t, err, w.ms["a"].HandleUrgent("b", text))
		w.settle()
		want("", "", "")
	})
}
