package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
)

// echoPort is where the hosts of TestDirectCrash answer.
const echoPort = 7

// crashed is a segment of TestDirectCrash: a host at each site, of which one asks the other.
type crashed struct {
	bridge, prefix string
	probe          *lab.UDPProbe
}

// TestDirectCrash kills the gateways of one site, and then of both, that carry two segments in mode
// direct, and runs them again, while a host of each segment asks one at the other site a thousand times
// a second: the kernels go on, and not one answer is lost. A segment that has left the config of a site
// meanwhile ends there.
func TestDirectCrash(t *testing.T) {
	b := newBed(t, bedOptions{link: lab.Link{Rate: 200e6, RTT: 10 * time.Millisecond}, noGuest: true, noPair: true})
	segments := []*crashed{{bridge: lab.Bridge, prefix: "10.77.1."}, {bridge: "br-two", prefix: "10.77.2."}, {bridge: "br-three", prefix: "10.77.3."}}
	for _, s := range b.sites() {
		for _, seg := range segments[1:] {
			if err := s.Net().Bridge(seg.bridge); err != nil {
				t.Fatal(err)
			}
		}
	}
	more := "  - {name: two, vni: 102, bridge: br-two, mtu: 1450, mode: direct, sites: [%[1]s]}\n  - {name: three, vni: 103, bridge: br-three, mtu: 1450, mode: direct}\n"
	b.startPair(t, bedOptions{
		segment: "mode: direct\nmtu: 1450", more: func(other string) string { return fmt.Sprintf(more, other) },
		extra: func(s *lab.Site) string { return fmt.Sprintf("l2:\n  underlay: %v\n", s.WAN) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2*len(segments)) // two for each segment
	t.Cleanup(func() { cancel() })
	sending, stop := context.WithCancel(ctx)
	began := time.Now()
	for i, seg := range segments {
		near, err := b.lab.AddHost(b.lab.A, seg.bridge, fmt.Sprintf("n%d", i), seg.prefix+"1")
		if err != nil {
			t.Fatal(err)
		}
		far, err := b.lab.AddHost(b.lab.B, seg.bridge, fmt.Sprintf("f%d", i), seg.prefix+"2")
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- far.EchoUDP(ctx, echoPort) }()
		if seg.probe, err = near.UDPProbe(seg.prefix+"2", echoPort); err != nil {
			t.Fatal(err)
		}
		go func() { ended <- seg.probe.Run(sending) }()
	}
	settle, cancelSettle := context.WithTimeout(ctx, settleTime)
	defer cancelSettle()
	answered := func(more int) {
		t.Helper()
		for _, seg := range segments {
			before := seg.probe.Answered()
			poll(t, settle, func() error {
				if n := seg.probe.Answered() - before; n < more {
					return fmt.Errorf("%d more answers on %s", n, seg.bridge)
				}
				return nil
			})
		}
	}
	answered(500)
	from := time.Now()
	for _, sites := range [][]*lab.Site{{b.lab.A}, {b.lab.B}, {b.lab.A, b.lab.B}} {
		for _, s := range sites {
			b.pair.Process(s).Kill()
		}
		answered(300)
		for _, s := range sites {
			if err := b.pair.Run(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.pair.WaitUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		answered(2000) // what is left of those before has been told, and goes
	}
	to := time.Now()
	stop()
	for range segments {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for _, seg := range segments {
		s := seg.probe.Seen(from, to, 10*time.Millisecond)
		t.Logf("%s: %d of %d lost in %v, the longest gap %v", seg.bridge, s.Lost, s.Sent, to.Sub(from).Round(time.Millisecond), s.Gap.For)
		if s.Lost > 0 || s.Sent < 1000 {
			t.Errorf("%s: %d of %d lost", seg.bridge, s.Lost, s.Sent)
		}
	}
	t.Logf("the first answers came %v after the start", from.Sub(began).Round(time.Millisecond))

	b.pair.Process(b.lab.A).Kill()
	b.pair.More = func(string) string { return "" }
	if err := b.pair.Run(t.Context(), b.lab.A); err != nil {
		t.Fatal(err)
	}
	poll(t, settle, func() error {
		fdb, err := b.lab.A.Net().Dump()
		if err == nil && (strings.Contains(fdb, "lhdx102") || strings.Contains(fdb, "lhdx103") || !strings.Contains(fdb, "lhdx100")) {
			err = errors.New("the kernel has\n" + fdb)
		}
		return err
	})
	cancel()
	for range segments {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
