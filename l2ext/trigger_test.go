package l2ext_test

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestEachTriggerAlone: where all others are lost, the STOP, the hypervisor's RARP, the
// RESUME, the end of the job, the VM's first frame, or, when no announcement arrives at all,
// the digest has every site find the VM. In static entries a missed one would be
// a black hole for good.
func TestEachTriggerAlone(t *testing.T) {
	const delay = 20 * time.Millisecond
	for name, tt := range map[string]struct {
		tell   func(w *world)
		within time.Duration
	}{
		"stop": {func(w *world) { check(w.t, w.ms["a"].Flip(w.t.Context(), "j")) }, delay},
		"rarp": {func(w *world) {
			check(w.t, w.hosts["b"].Send("vm", ether.AppendAnnounce(nil, vmMAC, netip.Addr{})))
		}, delay},
		"resume": {func(w *world) { check(w.t, w.ms["b"].Settle(w.t.Context(), "j", nics)) }, delay},
		"end":    {func(w *world) { check(w.t, w.ms["a"].Confirm(w.t.Context(), "j")) }, delay},
		"frame": {func(w *world) {
			check(w.t, w.hosts["b"].Send("vm", frameTo(hostOf("c"), vmMAC, 100)))
		}, delay},
		"digest": {func(w *world) {
			w.wire.Mute(true)
			check(w.t, w.ms["b"].Settle(w.t.Context(), "j", nics))
			w.pass(2 * delay)
			w.wire.Mute(false)
		}, 10*time.Second + 3*delay},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := switching(t, l2exttest.Line{Delay: delay}, "a", "b", "c")
				w.hosts["a"].Unplug("br", "vm")
				w.pass(1100 * time.Millisecond) // a younger binding is not taken away by a frame alone
				tt.tell(w)
				w.pass(tt.within + 5*time.Millisecond)
				for site, m := range w.ms {
					for _, b := range m.Segments()[0].Bindings {
						if b.MAC == vmMAC && b.Site != "b" {
							t.Errorf("%s looks for the VM at %s", site, b.Site)
						}
					}
				}
				for w.hosts["b"].Receive("vm") != nil {
				}
				check(t, w.ms["b"].Settle(t.Context(), "j", nics))
				w.say("c", 7)
				w.pass(2 * delay)
				if got := w.told("b", "vm"); len(got) != 1 || got[0] != 7 {
					t.Errorf("of a third site's host the VM got %v", got)
				}
			})
		})
	}
}

// failing is a Carrier whose urgent messages get lost at times, with a word of it.
type failing struct {
	l2ext.Carrier
	fails *atomic.Bool
}

func (f failing) SendUrgent(ctx context.Context, site string, b []byte) error {
	if f.fails.Load() {
		return errors.New("the channel has failed")
	}
	return f.Carrier.SendUrgent(ctx, site, b)
}

// TestLostFlipIsMendedSoon: a gateway that knows that its flip has not gone out does not wait for the time of the next digest.
func TestLostFlipIsMendedSoon(t *testing.T) {
	for _, after := range []time.Duration{0, 5 * time.Second} { // one of the two is far from a digest that is due anyway
		synctest.Test(t, func(t *testing.T) {
			var fails atomic.Bool
			w := newWorldWith(t, func(c *l2ext.Config) { c.Carrier = failing{c.Carrier, &fails} }, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
			w.toSwitch("a", "b", "c")
			w.pass(after)
			fails.Store(true)
			check(t, w.ms["a"].Flip(t.Context(), "j"))
			w.pass(100 * time.Millisecond)
			fails.Store(false)
			w.pass(2 * time.Second)
			w.want(vmMAC, "a: b 3 flipped j; b: b 3 flipped j; c: b 3 flipped j")
		})
	}
}
