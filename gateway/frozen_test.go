package gateway_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// TestFrozenAtOtherSite: a MAC that two sites claim in turn is frozen at b. At a that is seen, and it is ended from there, or who
// tries it while the link is down is told where it can be.
func TestFrozenAtOtherSite(t *testing.T) {
	stretched(t, testwan.Line{Delay: 20 * time.Millisecond}, "off", func(t *testing.T, wan *testwan.WAN, a, b *stretch) {
		twin := l2ext.MAC{2, 0, 0, 0, 0, 9}
		for i := range 6 {
			s := []*stretch{a, b}[i%2]
			if err := s.host.Send("lan", ether.AppendAnnounce(nil, twin, netip.AddrFrom4([4]byte{10, 0, 0, 9}))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		want := func(when, want string) {
			t.Helper()
			for name, s := range map[string]*stretch{"a": a, "b": b} {
				got := "not known"
				for _, bind := range s.segment().Bindings {
					if bind.MAC == twin.String() {
						got = fmt.Sprint(bind.State, bind.FrozenAt)
					}
				}
				if got != want {
					t.Errorf("%s, at %s: %s, want %s", when, name, got, want)
				}
			}
		}
		want("claimed in turn", "frozen[b]")
		wan.Cut()
		time.Sleep(time.Minute)
		if err := a.l2.ClearMAC(t.Context(), "prod", twin.String()); !errors.Is(err, gateway.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "at site b") {
			t.Errorf("cleared at a while the link is down: %v", err)
		}
		want("while the link is down", "frozen[b]")
		wan.Heal()
		time.Sleep(time.Minute)
		if err := a.l2.ClearMAC(t.Context(), "prod", twin.String()); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		want("cleared at a", "confirmed[]")
	})
}
