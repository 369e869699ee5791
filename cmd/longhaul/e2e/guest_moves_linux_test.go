package e2e

import (
	"cmp"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
)

// guestMoves is the line of BenchmarkGuestMoves between each two of its sites.
var guestMoves = lab.Link{Rate: 200e6, RTT: 40 * time.Millisecond}

const (
	// lookBefore STOP and lookAfter RESUME is where probes count.
	lookBefore = 200 * time.Millisecond
	lookAfter  = time.Second

	// lostBeyond the pause is how many probes the median of moves may lose.
	lostBeyond = 5

	// sentEnough of the probes that are due, in per cent: a machine that has too much to do sends fewer, and
	// what is lost counts for less.
	sentEnough = 75
)

// BenchmarkGuestMoves: what clients at the source, at the destination and at a
// third site lose of 1000 pings a second while a real guest moves, with
// -benchtime 10x of ten moves each. One client asks after the other: an emulated
// guest answers little more than two of them.
func BenchmarkGuestMoves(b *testing.B) {
	bed := newBed(b, bedOptions{link: guestMoves, third: true, fill: 30, dirty: control.Dirty{Rate: 100, Hot: 500, Sparse: 75}})
	at := bed.clients(b)
	for _, client := range []struct {
		name string
		site func() *lab.Site // before a move
	}{
		{"source", func() *lab.Site { return bed.at }},
		{"destination", bed.other},
		{"third", func() *lab.Site { return bed.third }},
	} {
		b.Run(client.name, func(b *testing.B) {
			var moves []probedMove
			for b.Loop() { // unlike b.N, with no move before
				moves = append(moves, bed.probeMove(b, at[client.site()]))
			}
			reportMoves(b, moves)
		})
	}
}

// clients are hosts on the LANs, by site.
func (b *bed) clients(t testing.TB) map[*lab.Site]*lab.Site {
	t.Helper()
	far, err := b.lab.AddHost(b.lab.B, lab.Bridge, "clientb", "10.77.0.3")
	if err != nil {
		t.Fatal(err)
	}
	away, err := b.lab.AddHost(b.third, lab.Bridge, "client3", "10.77.0.4")
	if err != nil {
		t.Fatal(err)
	}
	return map[*lab.Site]*lab.Site{b.lab.A: b.lab.Client, b.lab.B: far, b.third: away}
}

// probedMove is what a client has noticed of a move.
type probedMove struct {
	rtt    time.Duration // before
	pause  time.Duration
	lost   int // probes
	beyond int // those more than the pause has ms
	late   int // answered, but they have waited for the guest
	sent   int // per cent of one each ms
}

// probeMove moves the guest to the other site while a client asks it.
func (b *bed) probeMove(t testing.TB, client *lab.Site) (m probedMove) {
	t.Helper()
	var start, asked time.Time
	var r *gateway.JobReport
	p := whileProbed(t, client, func() {
		start = time.Now()
		<-time.After(lookAfter) // the client finds the guest, and a usual round trip
		asked = time.Now()
		r = b.move(t, gateway.MigrateRequest{}).Report
		<-time.After(time.Until(r.ResumedAt.Add(lookAfter)))
	})
	from, to := r.StoppedAt.Add(-lookBefore), r.ResumedAt.Add(lookAfter)
	seen := p.Seen(from, to, guestMoves.RTT*3/2) // at most by way of the old site
	m = probedMove{rtt: p.Median(start, asked), pause: r.ResumedAt.Sub(r.StoppedAt), lost: seen.Lost, late: seen.Late}
	m.sent = 100 * seen.Sent / int(to.Sub(from)/lab.UDPInterval)
	m.beyond = max(0, m.lost-int(m.pause/lab.UDPInterval))
	return m
}

// whileProbed asks the guest from a client while do runs, and returns when all answers have come that will.
func whileProbed(t testing.TB, client *lab.Site, do func()) *lab.UDPProbe {
	t.Helper()
	p, err := client.EchoProbe(lab.GuestIP)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1) // one message
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	do()
	return p
}

// reportMoves as metrics, and fails the benchmark when too much is lost.
func reportMoves(b *testing.B, moves []probedMove) {
	lost := sortedBy(moves, func(m probedMove) int { return m.lost })
	beyond := sortedBy(moves, func(m probedMove) int { return m.beyond })
	sent := sortedBy(moves, func(m probedMove) int { return m.sent })
	late := sortedBy(moves, func(m probedMove) int { return m.late })
	rtt := sortedBy(moves, func(m probedMove) time.Duration { return m.rtt })
	var pauses time.Duration
	for _, m := range moves {
		pauses += m.pause
	}
	middle, last := len(moves)/2, len(moves)-1
	b.ReportMetric(float64(lost[middle]), "lost")
	b.ReportMetric(float64(lost[last]), "worst-lost")
	b.ReportMetric(float64(beyond[middle]), "beyond")
	b.ReportMetric(float64(beyond[last]), "worst-beyond")
	b.ReportMetric(float64(late[middle]), "late")
	b.ReportMetric(float64(sent[0]), "least-sent-%")
	b.ReportMetric(float64(pauses)/1e6/float64(len(moves)), "pause-ms")
	b.ReportMetric(float64(rtt[middle])/1e6, "rtt-ms")
	b.ReportMetric(0, "ns/op")
	if sent[0] < sentEnough {
		b.Errorf("%d %% of the probes were sent in a move; want %d at least: the machine has too much to do", sent[0], sentEnough)
	}
	if beyond[middle] > lostBeyond {
		b.Errorf("%d probes are lost beyond the pause in the median; want %d at most: %v", beyond[middle], lostBeyond, beyond)
	}
}

// sortedBy is a figure of all moves, the least first.
func sortedBy[T cmp.Ordered](moves []probedMove, of func(probedMove) T) []T {
	var all []T
	for _, m := range moves {
		all = append(all, of(m))
	}
	slices.Sort(all)
	return all
}
