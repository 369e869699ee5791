package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/l2ext"
)

// TestModes moves a guest there and back on segments that do not go through the
// link: its client's session goes on, and each job tells what the segment saw.
func TestModes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode  l2ext.Mode
		mtu   int
		extra func(*lab.Site) string
	}{
		{mode: l2ext.SecureFast, mtu: lanMTU},
		// The line between the sites is the private network, of 1500 bytes.
		{mode: l2ext.Direct, mtu: lanMTU - 50, extra: func(s *lab.Site) string { return fmt.Sprintf("l2:\n  underlay: %v\n", s.WAN) }},
	} {
		t.Run(string(tt.mode), func(t *testing.T) {
			b := newBed(t, bedOptions{
				link: lab.Link{Rate: 200e6, RTT: 20 * time.Millisecond, Loss: 0.0005},
				mtu:  tt.mtu, extra: tt.extra, segment: fmt.Sprintf("mode: %s\nmtu: %d", tt.mode, tt.mtu),
			})
			p := b.probe(t)
			for range 2 {
				j := b.move(t, gateway.MigrateRequest{})
				b.verify(t)
				p.alive(t)
				if n := j.Report.Network; n == nil || n.Gap <= 0 {
					t.Errorf("the job tells of the segment %+v", n)
				}
			}
			r := p.pinger.Report()
			t.Logf("pings: %d of %d lost, the longest gap %v", r.Lost, r.Sent, r.Longest)
			for _, s := range b.sites() {
				segments, err := b.pair.API(s).Segments(t.Context())
				if err != nil || len(segments) != 1 || segments[0].Mode != string(tt.mode) || segments[0].Problem != "" {
					t.Errorf("site %s says %+v, %v", s.Name, segments, err)
				}
			}
		})
	}
}
