package tunnel

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// TestRebindKeepsModel: when a NAT gives the end that dials another address in the middle of a
// transfer to it, the other end's connections go on, by the path's model as before: quic-go
// makes a new controller for the new address, which has to be ours again. The new address is
// what operators see.
func TestRebindKeepsModel(t *testing.T) {
	t.Parallel()
	line := testwan.Line{Delay: 20 * time.Millisecond, Rate: 400_000, Loss: 0.002}
	inLab(t, line, options{onlyB: true}, func(t *testing.T, l *lab) { // b dials, a sends
		l.up()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		link := l.a.Link("b")
		s := l.stream(ctx, nil)
		time.Sleep(5 * time.Second)
		before, serial := link.State(), inUse(link).serial
		l.wan.Rebind(netip.MustParseAddr(ipB), netip.MustParseAddr("198.51.100.7"))
		time.Sleep(6 * time.Second)
		was := make(map[*carrier]uint64)
		link.mu.Lock()
		for c := range link.set.others {
			was[c] = c.member.Counters().Sent
		}
		link.mu.Unlock()
		rate, gap := s.take(5 * time.Second)
		after := link.State()
		if after.Since != before.Since || inUse(link).serial != serial || after.Address == before.Address {
			t.Errorf("other connections, or the same address: %+v, before %+v", after, before)
		}
		if rate < 320_000 || gap > time.Second || after.Controller != nameAutomatic {
			t.Errorf("%.0f bytes a second by %q, and nothing came for %v", rate, after.Controller, gap)
		}
		link.mu.Lock()
		defer link.mu.Unlock()
		for c, n := range was {
			if got := c.member.Counters().Sent; c.ended || got == n {
				t.Errorf("the model sees no packet of the %s connection any more", roleName(c.role))
			}
		}
	})
}
