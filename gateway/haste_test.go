package gateway

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/tunnel"
)

// TestHaste: paths that cost more are taken when the deadline needs them, given back when it
// has not for easyFor, and for twice as long the next time.
func TestHaste(t *testing.T) {
	var h haste
	at := time.Unix(1000, 0)
	look := func(long time.Duration, with, without time.Duration) {
		for end := at.Add(long); at.Before(end); at = at.Add(progressEvery) {
			h.look(at, 100*time.Second, forecast{low: with, high: with}, forecast{low: without, high: without})
		}
	}
	for i, x := range []struct {
		long, with, without time.Duration
		want                bool
	}{
		{time.Minute, 70 * time.Second, 70 * time.Second, false},
		{time.Second, 90 * time.Second, 90 * time.Second, true},
		{time.Minute, 20 * time.Second, 60 * time.Second, true},   // it would be late again
		{time.Minute, 20 * time.Second, untold, true},             // it would never end
		{easyFor / 2, 20 * time.Second, 40 * time.Second, true},   // for a moment
		{time.Second, 20 * time.Second, 60 * time.Second, true},   // and not any more
		{easyFor - 1, 20 * time.Second, 40 * time.Second, true},   //
		{time.Second, 20 * time.Second, 40 * time.Second, false},  //
		{time.Second, 90 * time.Second, 90 * time.Second, true},   // anew
		{2*easyFor - 1, 20 * time.Second, 40 * time.Second, true}, //
		{time.Second, 20 * time.Second, 40 * time.Second, false},  //
		{time.Minute, 40 * time.Second, 40 * time.Second, false},  //
		{time.Second, untold, untold, false},                      // nothing crosses
	} {
		if look(x.long, x.with, x.without); h.all != x.want {
			t.Errorf("step %d: may use all paths: %v", i, h.all)
		}
	}
	h = haste{times: 60}
	look(time.Second, 90*time.Second, 90*time.Second)
	if look(easyMost+time.Second, time.Second, time.Second); h.all {
		t.Errorf("not given back after %v", easyMost)
	}
}

// TestGivesDearPathBack: the guest of a move writes so much that the deadline needs the path
// that costs more; when it writes less the move goes on without, as fast as the other is,
// and keeps its deadline.
func TestGivesDearPathBack(t *testing.T) {
	Slow(t)
	var crossed atomic.Int64
	sink := func(ctx context.Context, ch *tunnel.Channel) {
		for {
			m, err := ch.Recv(ctx)
			if err != nil {
				return
			}
			crossed.Add(int64(len(m.Data)))
			ch.Done(m.Seq)
		}
	}
	line := testwan.Line{Delay: 10 * time.Millisecond, Rate: 400_000, Loss: 0.001}
	proveWAN(t, line, sink, func(t *testing.T, a *tunnel.Node, wan *testwan.WAN) {
		wan.SetBetween(netip.MustParseAddr("192.0.2.101"), netip.MustParseAddr("192.0.2.2"), line)
		to := []string{"192.0.2.2:7447"}
		if err := a.SetPeers([]tunnel.Peer{{Site: "b", Paths: []tunnel.Path{
			{Name: "cheap", Addrs: to, Rate: 390_000}, {Name: "dear", Source: "192.0.2.101", Addrs: to, Rate: 390_000, Cost: 1},
		}}}); err != nil {
			t.Fatal(err)
		}
		link := a.Link("b")
		time.Sleep(10 * time.Second) // until there are connections over both
		flow := link.NewFlow("move")
		ch, err := link.Open(t.Context(), tunnel.Spec{Flow: flow})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for {
				if _, err := ch.Send(ctx, make([]byte, 20_000)); err != nil {
					return
				}
			}
		}()
		var rates meter
		var h haste
		var taken, back []time.Duration
		var dearAt int64 // bytes over the dear path when it was to be left
		written, begun := int64(24_000_000), time.Now()
		const deadline = 2 * time.Minute
		for at := time.Duration(0); crossed.Load() < written; at += progressEvery {
			dirty := int64(0)
			if at < 15*time.Second {
				dirty = 250_000
			}
			written += dirty * int64(progressEvery) / int64(time.Second)
			given, dear := flow.Spread()
			rates.add(meterSample{time.Now(), crossed.Load(), crossed.Load(), given, dear})
			s := sample{Remaining: written - crossed.Load(), DirtyRate: dirty, Rate: rates.logical(), RTT: 20 * time.Millisecond}
			if h.look(time.Now(), time.Until(begun.Add(deadline)), s.forecast(), s.forecastCheap(rates.cheap())) {
				flow.UseAll(h.all)
				if h.all {
					taken = append(taken, at)
				} else {
					back, dearAt = append(back, at), dear
				}
			}
			time.Sleep(progressEvery)
		}
		took := time.Since(begun)
		_, dear := flow.Spread()
		t.Logf("taken at %v, given back at %v, done after %v; %d bytes over the path that costs more", taken, back, took, dear)
		if len(taken) != 1 || taken[0] > 3*time.Second || len(back) != 1 || back[0] < 15*time.Second+easyFor || back[0] > 50*time.Second {
			t.Errorf("taken at %v, given back at %v", taken, back)
		}
		if after := dear - dearAt; dearAt < 2_000_000 || after > 100_000 {
			t.Errorf("%d bytes over the path that costs more, and %d when it had been given back", dearAt, after)
		}
		if took > deadline {
			t.Errorf("done after %v", took)
		}
	})
}
