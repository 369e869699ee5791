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

// TestRestartWhileJoined restarts a gateway while its LAN is joined with that of another
// site: it hears a host of that one by the cable before its link is up, and claims it. The
// host stays where it is, also if the other gateway has forgotten the cable meanwhile.
func TestRestartWhileJoined(t *testing.T) {
	for name, away := range map[string]time.Duration{"short": 10 * time.Second, "long": 3 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sites := []string{"a", "b", "c"}
				w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, sites...)
				w.appear("b", "lan", vmMAC, "10.0.0.9")
				w.pass(time.Minute)
				w.plug("a", "b")
				w.wire.Isolate("a")
				w.stop["a"]()
				w.pass(away)
				w.make("a")
				w.wire.Join(w.ms)
				w.start("a", sites)
				hear := func(frame []byte) { // at both sites, by the cable
					check(t, w.hosts["a"].Send("lan", frame), w.hosts["b"].Send("lan", frame))
				}
				for range 20 { // longer than restore looks back
					hear(ether.AppendAnnounce(nil, vmMAC, netip.MustParseAddr("10.0.0.9")))
					w.pass(time.Second)
				}
				if got := w.where(vmMAC); !strings.Contains(got, "a: a ") {
					t.Fatalf("before the link is up: %s", got)
				}
				w.wire.Rejoin("a")
				w.pass(30 * time.Millisecond)
				for range 10 {
					hear(frameTo(ether.Broadcast, vmMAC, 100))
					for range 10 {
						w.pass(100 * time.Millisecond)
						w.backDoor("a", "b")
					}
				}
				if got := w.where(vmMAC); strings.Count(got, ": b ") != 3 || strings.Contains(got, "frozen") {
					t.Errorf("the host is at %s", got)
				}
			})
		})
	}
}
