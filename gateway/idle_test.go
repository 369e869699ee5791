package gateway_test

import (
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/testwan"
)

// TestFlipAfterIdleness moves a MAC after minutes in which nothing was said: the other site knows
// after one way there, and not after a channel was opened or a session woken.
func TestFlipAfterIdleness(t *testing.T) {
	const delay = 20 * time.Millisecond
	stretched(t, testwan.Line{Delay: delay}, "", func(t *testing.T, _ *testwan.WAN, a, b *stretch) {
		nics := []gateway.NIC{{MAC: a.mac.String()}}
		at := func() string {
			for _, g := range b.segment().Bindings {
				if g.MAC == a.mac.String() {
					return g.Site
				}
			}
			return ""
		}
		a.l2.Prepare("j", nics, "b")
		for _, idle := range []time.Duration{0, 5 * time.Second, 5*time.Minute + 3*time.Second} {
			time.Sleep(idle)
			if got := at(); got != "a" {
				t.Fatalf("after %v it is at %q", idle, got)
			}
			if idle < time.Minute {
				continue // the first is what a channel costs
			}
			began := time.Now()
			a.l2.Flip("j")
			for at() != "b" && time.Since(began) < time.Second {
				time.Sleep(100 * time.Microsecond)
			}
			if took := time.Since(began); took < delay || took > delay+2*time.Millisecond {
				t.Errorf("after %v of idleness it took %v, one way is %v", idle, took, delay)
			}
		}
	})
}
