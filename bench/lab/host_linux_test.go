package lab

import (
	"context"
	"testing"
	"time"
)

// TestAddSite pings from a third site to both others: its lines are as long as the line between these.
func TestAddSite(t *testing.T) {
	link := Link{Rate: 100e6, RTT: 30 * time.Millisecond}
	l := newLab(t, link)
	third, err := l.AddSite("third")
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range [][2]*Site{{third, l.A}, {third, l.B}, {l.A, third}, {l.B, third}, {l.A, l.B}} {
		from, to := way[0], way[1]
		p, err := from.EchoProbe(from.Address(to).String())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := p.Run(ctx); err != nil {
			t.Errorf("from %s to %s: %v", from.Name, to.Name, err)
		}
		cancel()
		seen, rtt := p.Seen(start, time.Now(), link.RTT), p.Median(start, time.Now())
		if seen.Sent == 0 || seen.Lost > 0 || rtt < link.RTT || rtt > 2*link.RTT {
			t.Errorf("from %s to %s: median of %v, %+v", from.Name, to.Name, rtt, seen)
		}
	}
}
