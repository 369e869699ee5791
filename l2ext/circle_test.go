package l2ext_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestOwnAnnouncementComesRound moves a host without a job from a LAN that gives back what
// is sent into it: what its gateway says of the host there moves nothing. The host itself is
// believed when it comes back, also at once, by the RARPs that a hypervisor repeats.
func TestOwnAnnouncementComesRound(t *testing.T) {
	for name, after := range map[string]time.Duration{"at once": 10 * time.Millisecond, "later": 2 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b")
				ip := netip.MustParseAddr("10.0.0.9")
				announce := func(site string) {
					check(t, w.hosts[site].Send("lan", ether.AppendAnnounce(nil, vmMAC, ip)), w.hosts[site].Send("lan", ether.AppendAnnounce(nil, vmMAC, netip.Addr{})))
				}
				circle := func() (own int) {
					var round [][]byte
					for f := w.hosts["a"].Receive("lan"); f != nil; f = w.hosts["a"].Receive("lan") {
						round = append(round, f)
					}
					for _, f := range round {
						if h, err := ether.Parse(f); err == nil && h.Src == vmMAC {
							own++
							check(t, w.hosts["a"].Send("lan", f))
						}
					}
					synctest.Wait()
					return own
				}
				is := func(when, site string) {
					t.Helper()
					if got := w.where(vmMAC); strings.Count(got, ": "+site+" ") != 2 || strings.Contains(got, "frozen") {
						t.Errorf("%s: %s", when, got)
					}
				}
				w.appear("a", "lan", vmMAC, ip.String())
				w.pass(time.Minute)
				circle()
				announce("b")
				w.pass(25 * time.Millisecond)
				if circle() == 0 {
					t.Fatal("its gateway has not told the LAN that the host has left")
				}
				w.pass(after)
				is("it has left", "b")
				for _, pause := range []time.Duration{50, 150, 250, 350, 0} { // QEMU's
					announce("a")
					w.pass(pause * time.Millisecond)
				}
				w.pass(50 * time.Millisecond)
				is("it has come back", "a")
			})
		})
	}
}
