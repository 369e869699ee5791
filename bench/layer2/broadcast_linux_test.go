package layer2

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/hostnet"
)

// BenchmarkBroadcast: what one frame of a storm takes of a processor on a bridge, from its
// making to its end, without a segment and with one in each mode, whose limits it is over;
// and for comparison where no bridge takes it, and on a bridge with one more guest.
func BenchmarkBroadcast(b *testing.B) {
	const unbridged, guest = "unbridged", "none,guest"
	for _, mode := range []l2ext.Mode{unbridged, "", guest, l2ext.Secure, l2ext.SecureFast, l2ext.Direct} {
		b.Run("segment="+cmp.Or(string(mode), "none"), func(b *testing.B) {
			ns := nstest.New(b)
			const wan, bridge, port = "10.78.0.1", "br0", "storm0"
			check(b, nstest.Veth(ns, port, ns, "storm1"), nstest.Veth(ns, "wan0", ns, "wan1"), ns.Addr("wan0", wan+"/24"))
			switch mode {
			case unbridged:
			case guest:
				check(b, nstest.Veth(ns, "guest0", ns, "guest1"), ns.Bridge(bridge, port, "guest0"))
			default:
				check(b, ns.Bridge(bridge, port))
			}
			if mode != "" && mode != unbridged && mode != guest {
				stretch(b, ns, l2ext.Wish{Segment: l2ext.Segment{
					Name: "storm", VNI: vni, Bridge: bridge, MTU: l2ext.DefaultMTU, Mode: mode,
					Policy: l2ext.Policy{Limits: l2ext.Limits{Resolve: 100, Broadcast: 50, Multicast: 500, Unknown: 500}, RouterAdverts: l2ext.Local, DHCP: l2ext.Local},
				}}, netip.MustParseAddr(wan))
			}
			g, err := newGenerator(ns, port)
			check(b, err)
			const some = 10_000
			frames := 0
			check(b, ns.Do(func() error {
				before, err := threadTime()
				for b.Loop() {
					err = errors.Join(err, g.send(some))
					frames += some
				}
				after, errAfter := threadTime()
				b.ReportMetric(float64((after-before).Nanoseconds())/float64(frames), "cpu-ns/frame")
				b.ReportMetric(0, "ns/op")
				return errors.Join(err, errAfter)
			}))
		})
	}
}

// stretch makes a segment as a gateway does, which listens to what hosts say.
func stretch(b *testing.B, ns *nstest.NS, w l2ext.Wish, local netip.Addr) {
	n, err := hostnet.New(hostnet.Config{NetNS: ns.FD()})
	check(b, err)
	if w.Mode == l2ext.Direct {
		w.Direct = &l2ext.Underlay{Local: local, Self: l2ext.MAC{0x0e, 0x4c, 0, 0, 0, 1},
			Sites: []l2ext.UnderlaySite{{Site: 16, Addr: local.Next(), MAC: l2ext.MAC{0x0e, 0x4c, 0, 0, 0, 2}}}}
	}
	a, err := n.Apply(b.Context(), []l2ext.Wish{w})
	check(b, err)
	check(b, a[0].Err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.Watch(ctx, func(l2ext.Sighting) {}) })
	b.Cleanup(func() {
		cancel()
		wg.Wait()
		check(b, n.Close())
	})
}

func check(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
