package e2e

import (
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/cmd/longhaul/pair"
	"github.com/longhaul-project/longhaul/gateway"
)

// manyMoves is how often the guest of TestManyMoves moves.
const manyMoves = 20

// TestManyMoves moves a guest back and forth: no page is wrong, its client's
// session lives, and neither gateway holds more and more.
func TestManyMoves(t *testing.T) {
	b := newBed(t, bedOptions{link: lab.Link{Rate: 200e6, RTT: 20 * time.Millisecond, Loss: 0.0005}})
	p := b.probe(t)
	var first map[string]pair.Held
	var pause time.Duration
	for n := range manyMoves {
		j := b.move(t, gateway.MigrateRequest{})
		pause += j.Report.ResumedAt.Sub(j.Report.StoppedAt) // one machine, one clock
		b.verify(t)
		p.alive(t)
		if t.Failed() {
			t.Fatalf("after move %d", n+1)
		}
		if n == 1 { // both have been source and destination
			first = b.held(t)
		}
	}
	last := b.held(t)
	for name, was := range first {
		now := last[name]
		t.Logf("site %s: %+v after 2 moves, %+v after %d", name, was, now, manyMoves)
		if was.Drifted(now) {
			t.Errorf("the gateway of site %s holds more and more: %+v, then %+v", name, was, now)
		}
	}
	b.pingsLost(t, p, pause)
	if mac, err := b.lab.Client.MAC(lab.GuestIP); err != nil || mac != b.mac {
		t.Errorf("the client finds the guest at %q, %v; want %s", mac, err, b.mac)
	}
}

// pingsLost checks what is promised of planned switchovers: 2 pings at 10 ms
// beyond the VM's own pause.
func (b *bed) pingsLost(t *testing.T, p probes, pause time.Duration) {
	t.Helper()
	r, s := p.pinger.Report(), p.session.Report()
	t.Logf("%d of %d pings lost in pauses of %v; the longest gap of pings %v, of the session %v", r.Lost, r.Sent, pause, r.Longest.For, s.Longest.For)
	if explained := int(pause/lab.PingInterval) + 2*manyMoves; r.Lost > explained {
		t.Errorf("%d pings lost; the pauses explain %d", r.Lost, explained)
	}
}

func (b *bed) held(t *testing.T) map[string]pair.Held {
	t.Helper()
	all := map[string]pair.Held{}
	for _, s := range b.sites() {
		h, err := b.pair.Held(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		all[s.Name] = h
	}
	return all
}
