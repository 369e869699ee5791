package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// inTCPLab is inLab where TCP passes as well, with a carrier for each end.
func inTCPLab(t *testing.T, line testwan.Line, a, b Carrier, f func(*testing.T, *lab)) {
	t.Helper()
	inLab(t, line, options{
		a: func(c *Config) { c.Carrier, c.Sockets = a, streamsOf(c.Sockets) },
		b: func(c *Config) { c.Carrier, c.Sockets = b, streamsOf(c.Sockets) },
	}, f)
}

func streamsOf(s Sockets) Sockets { return testwan.StreamSite{Site: s.(testwan.Site)} }

// TestTCP: everything that a link does works over TCP.
func TestTCP(t *testing.T) {
	t.Parallel()
	line := testwan.Line{Delay: 20 * time.Millisecond, Rate: 5_000_000}
	var got chan []byte // capacity 1: there is one datagram
	hear := options{
		a: func(c *Config) { c.Carrier, c.Sockets = TCP, streamsOf(c.Sockets) },
		b: func(c *Config) {
			got = make(chan []byte, 1) // of the bubble
			c.Sockets = streamsOf(c.Sockets)
			c.OnDatagram = func(_ string, _ byte, b []byte) { got <- b }
		},
	}
	inLab(t, line, hear, func(t *testing.T, l *lab) {
		l.up()
		for _, link := range []*Link{l.a.Link("b"), l.b.Link("a")} {
			if s := link.State(); s.Carrier != TCP || s.Fallback != "" || s.Controller != "kernel tcp" {
				t.Errorf("state %+v", s)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		for _, spec := range []Spec{{}, {Class: Urgent}, {BackBulk: true}} {
			from, to := l.open(spec)
			if err := transfer(ctx, from, to, 60, 300<<10); err != nil {
				t.Fatalf("%+v: %v", spec, err)
			}
		}
		l.rawBothWays(ctx)
		l.datagram(ctx, got)
		s := l.a.Link("b").State()
		if s.Conns < 6 || s.RTT < 40*time.Millisecond || s.RTT > 80*time.Millisecond || s.WireSent < 1<<20 {
			t.Errorf("state afterwards %+v", s)
		}
	})
}

// rawBothWays dials a raw connection from each end.
func (l *lab) rawBothWays(ctx context.Context) {
	l.t.Helper()
	for _, end := range [][2]running{{l.a, l.b}, {l.b, l.a}} {
		c, err := end[0].Links()[0].Dial(ctx, 9)
		if err != nil {
			l.t.Fatal(err)
		}
		if _, err := io.WriteString(c, "question"); err != nil {
			l.t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			l.t.Fatal(err)
		}
		far, err := end[1].AcceptConn(ctx)
		if err != nil {
			l.t.Fatal(err)
		}
		got, err := io.ReadAll(far)
		if err != nil || string(got) != "question" || far.Proto() != 9 {
			l.t.Errorf("heard %q, %v", got, err)
		}
		if _, err := io.WriteString(far, "answer"); err != nil {
			l.t.Fatal(err)
		}
		far.Close()
		if got, err := io.ReadAll(c); err != nil || string(got) != "answer" {
			l.t.Errorf("answered %q, %v", got, err)
		}
		if len(c.ConnectionState().PeerCertificates) == 0 {
			l.t.Error("nobody knows who the peer is")
		}
		c.Close()
	}
}

// datagram sends the longest, which has to come to got.
func (l *lab) datagram(ctx context.Context, got <-chan []byte) {
	l.t.Helper()
	link := l.a.Link("b")
	most := link.MaxDatagram()
	if most < safeDatagram-1 {
		l.t.Fatalf("longest datagram %d", most)
	}
	if err := link.SendDatagram(3, make([]byte, most)); err != nil {
		l.t.Error(err)
	}
	select {
	case b := <-got:
		if len(b) != most {
			l.t.Errorf("datagram of %d bytes, want %d", len(b), most)
		}
	case <-ctx.Done():
		l.t.Error("no datagram came")
	}
}

// TestTCPOutages: a channel goes on at its exact place over cuts, long and short.
func TestTCPOutages(t *testing.T) {
	t.Parallel()
	inTCPLab(t, testwan.Line{Delay: 10 * time.Millisecond, Rate: 2_000_000}, TCP, TCP, func(t *testing.T, l *lab) {
		l.up()
		from, to := l.open(Spec{})
		done := make(chan error, 1)
		go func() { done <- transfer(context.WithoutCancel(t.Context()), from, to, 120, 400<<10) }()
		for _, long := range []time.Duration{2 * time.Second, 20 * time.Second, 8 * time.Minute} {
			time.Sleep(2 * time.Second)
			l.wan.Cut()
			time.Sleep(long)
			l.wan.Heal()
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestFallBack: where UDP is blocked TCP carries the link, it says so, and QUIC
// carries it again when it gets through; the channel notices nothing.
func TestFallBack(t *testing.T) {
	t.Parallel()
	inTCPLab(t, testwan.Line{Delay: 10 * time.Millisecond, Rate: 2_000_000}, Auto, Auto, func(t *testing.T, l *lab) {
		l.wan.BlockPackets(true)
		began := time.Now()
		l.up()
		link := l.a.Link("b")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("up after %v", took)
		}
		before := link.State()
		if before.Carrier != TCP || !strings.Contains(before.Fallback, "QUIC does not get through (timeout") {
			t.Errorf("state %+v", before)
		}
		l.farSays("QUIC blocked", "timeout", "")
		from, to := l.open(Spec{})
		done := make(chan error, 1)
		go func() { done <- transfer(context.WithoutCancel(t.Context()), from, to, 900, 300<<10) }()
		time.Sleep(3 * retryMin) // tried in vain
		if s := link.State(); s.Carrier != TCP || !s.Up || s.Since != before.Since {
			t.Errorf("while it is blocked: %+v, before that: %+v", s, before)
		}
		l.wan.BlockPackets(false)
		l.becomes(QUIC, 2*retryMin+10*time.Second)
		l.farSays("QUIC again", "", "")
		l.wan.BlockPackets(true)
		l.becomes(TCP, time.Minute)
		l.wan.BlockStreams(true) // all is away
		time.Sleep(time.Minute)
		l.wan.BlockPackets(false)
		l.becomes(QUIC, time.Minute) // by the only way that there is
		l.wan.BlockStreams(false)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// becomes waits until a carrier carries the link at both ends.
func (l *lab) becomes(via Carrier, within time.Duration) {
	l.t.Helper()
	began := time.Now()
	for {
		a, b := l.a.Link("b").State(), l.b.Link("a").State()
		if a.Up && b.Up && a.Carrier == via && b.Carrier == via {
			return
		}
		if time.Since(began) > within {
			l.t.Errorf("not carried by %s after %v: %+v", via, within, a)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// farSays checks what b says of a, which dials: why TCP carries the link, and why a's
// congestion control is not ours.
func (l *lab) farSays(when, fallback, controller string) {
	l.t.Helper()
	time.Sleep(time.Second)
	s := l.b.Link("a").State()
	if !strings.HasPrefix(s.FarFallback, fallback) || (fallback == "") != (s.FarFallback == "") || s.FarController != controller || s.Fallback != "" {
		l.t.Errorf("%s: b has heard %q and %q, want %q and %q", when, s.FarFallback, s.FarController, fallback, controller)
	}
	if s := l.a.Link("b").State(); s.FarFallback != "" || s.FarController != "" {
		l.t.Errorf("%s: a has heard %q and %q of b, where all is well", when, s.FarFallback, s.FarController)
	}
}

// TestCarrierChanges: another carrier in the config is used at once, whichever end's
// config it is; the channel notices nothing.
func TestCarrierChanges(t *testing.T) {
	t.Parallel()
	inTCPLab(t, testwan.Line{Delay: 10 * time.Millisecond, Rate: 2_000_000}, Auto, Auto, func(t *testing.T, l *lab) {
		l.up()
		from, to := l.open(Spec{})
		done := make(chan error, 1)
		go func() { done <- transfer(context.WithoutCancel(t.Context()), from, to, 200, 300<<10) }()
		ask := func(a, b Carrier) {
			addr := ipB + ":7447"
			err := errors.Join(l.a.SetPeers([]Peer{{Site: "b", Carrier: a, Addrs: []string{addr}}}), l.b.SetPeers([]Peer{{Site: "a", Carrier: b}}))
			if err != nil {
				t.Error(err)
			}
		}
		for _, tt := range []struct{ a, b, want Carrier }{{TCP, Auto, TCP}, {QUIC, Auto, QUIC}, {Auto, TCP, TCP}, {Auto, QUIC, QUIC}} {
			ask(tt.a, tt.b)
			l.becomes(tt.want, 10*time.Second)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestOutageIsNoBlock: a line that was away as a whole comes back with QUIC.
func TestOutageIsNoBlock(t *testing.T) {
	t.Parallel()
	inTCPLab(t, testwan.Line{Delay: 10 * time.Millisecond}, Auto, Auto, func(t *testing.T, l *lab) {
		l.up()
		for i := range 8 {
			l.wan.Cut()
			time.Sleep(40*time.Second + time.Duration(i)*900*time.Millisecond)
			l.wan.Heal()
			l.up()
			if s := l.a.Link("b").State(); s.Carrier != QUIC {
				t.Errorf("after outage %d: %+v", i, s)
			}
		}
	})
}

// TestCarrierSettings: what one end's config does not permit is not used.
func TestCarrierSettings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b, want Carrier
		why        string // if it does not come up
	}{
		{QUIC, Auto, QUIC, ""},
		{Auto, QUIC, QUIC, ""},
		{Auto, TCP, TCP, ""},
		{TCP, Auto, TCP, ""},
		{QUIC, TCP, "", "does not permit this carrier"},
		{TCP, QUIC, "", "connection refused"},
	} {
		t.Run(fmt.Sprintf("%s-%s", tt.a, tt.b), func(t *testing.T) {
			inTCPLab(t, testwan.Line{Delay: 5 * time.Millisecond}, tt.a, tt.b, func(t *testing.T, l *lab) {
				// Of b's links only those to sites in its list have a setting.
				time.Sleep(20 * time.Second)
				s := l.a.Link("b").State()
				if s.Up != (tt.why == "") || s.Up && s.Carrier != tt.want || !s.Up && !strings.Contains(s.Why, tt.why) {
					t.Errorf("%+v, want %q or %q", s, tt.want, tt.why)
				}
			})
		})
	}
}

// TestTCPRate: the link's cap is kept, by our count of what TCP adds.
func TestTCPRate(t *testing.T) {
	t.Parallel()
	inTCPLab(t, lineFast, TCP, TCP, func(t *testing.T, l *lab) {
		l.up()
		link := l.a.Link("b")
		link.SetRate(1_000_000)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		from, to := l.open(Spec{})
		flood(ctx, from, to, 100<<10)
		time.Sleep(2 * time.Second)
		for range 3 {
			before := link.State().WireSent
			time.Sleep(time.Second)
			within(t, "link over TCP", float64(link.State().WireSent-before), 1_000_000)
		}
	})
}
