package tunnel

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// start begins a transfer in the background.
func start(ctx context.Context, from, to *Channel, n, most int) <-chan error {
	done := make(chan error, 1)
	go func() { done <- transfer(ctx, from, to, n, most) }()
	return done
}

func TestOutages(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		times   int
		away    time.Duration
		between time.Duration
	}{
		{"60 s", 1, time.Minute, 0},
		{"10 min", 1, 10 * time.Minute, 0}, // all the patience that there is
		{"ten of 15 s", 10, 15 * time.Second, 400 * time.Millisecond},
		{"ten of 2 s", 10, 2 * time.Second, 300 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			line := lineWAN
			line.Rate, line.Queue = 800_000, 40_000
			inLab(t, line, options{dialsB: true}, func(t *testing.T, l *lab) {
				l.up()
				from, to := l.open(Spec{})
				done := start(t.Context(), from, to, 60+30*tt.times, 32<<10)
				for range tt.times {
					time.Sleep(200 * time.Millisecond)
					if len(done) > 0 {
						t.Error("the transfer is over before the outages are")
					}
					l.wan.Cut()
					time.Sleep(tt.away)
					if s := l.a.Link("b").State(); tt.away > 2*IdleTimeout && (s.Up || !strings.HasPrefix(s.Why, "no answer from 192.0.2.2:7447 for ")) {
						t.Errorf("while away: %+v", s)
					}
					if s := from.Stalled(); tt.away > 2*IdleTimeout && !strings.HasPrefix(s, "link to b is down: no answer") {
						t.Errorf("while away, stalled %q", s)
					}
					l.wan.Heal()
					healed := time.Now()
					l.up()
					if d := time.Since(healed); d > 5*time.Second {
						t.Errorf("up again after %v", d)
					}
					time.Sleep(tt.between)
				}
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// TestOutageAsLongAsPatience: an outage that lasts as long as the links have patience costs
// no byte, whenever within the pauses between dials it begins and ends.
func TestOutageAsLongAsPatience(t *testing.T) {
	t.Parallel()
	line := testwan.Line{Delay: 400 * time.Millisecond, Rate: 200_000} // handshakes take longer than to notice an outage
	short := func(c *Config) { c.Patience = time.Minute }
	for i := range time.Duration(8) {
		inLab(t, line, options{a: short, b: short}, func(t *testing.T, l *lab) {
			l.up()
			from, to := l.open(Spec{})
			done := start(t.Context(), from, to, 90, 32<<10)
			time.Sleep(2*time.Second + i*100*time.Millisecond)
			if len(done) > 0 {
				t.Error("the transfer is over before the outage")
			}
			l.wan.Cut()
			time.Sleep(time.Minute)
			l.wan.Heal()
			if err := <-done; err != nil {
				t.Errorf("outage %d: %v", i, err)
			}
		})
	}
}

func TestPatience(t *testing.T) {
	t.Parallel()
	inLab(t, lineWAN, options{}, func(t *testing.T, l *lab) {
		from, to := l.open(Spec{})
		l.wan.Cut()
		cut := time.Now()
		for {
			if _, err := from.Send(t.Context(), make([]byte, 1<<20)); err != nil {
				if !errors.Is(err, ErrPeerGone) {
					t.Errorf("send: %v", err)
				}
				break
			}
		}
		if d := time.Since(cut); d < 10*time.Minute || d > 11*time.Minute {
			t.Errorf("gave up after %v", d)
		}
		if _, err := to.Recv(t.Context()); !errors.Is(err, ErrPeerGone) {
			t.Errorf("recv: %v", err)
		}
		l.wan.Heal()
		l.up()
		from, to = l.open(Spec{})
		if err := transfer(t.Context(), from, to, 20, 10000); err != nil {
			t.Errorf("after it: %v", err)
		}
		from.Abort("the test is over")
		time.Sleep(time.Second)
		if n := l.a.Link("b").State().Channels; n != 0 {
			t.Errorf("%d channels remain", n)
		}
	})
}

// TestKill kills connections, at random moments of a transfer.
func TestKill(t *testing.T) {
	t.Parallel()
	line := lineWAN
	line.Rate, line.Queue = 800_000, 40_000
	inLab(t, line, options{}, func(t *testing.T, l *lab) {
		l.up()
		from, to := l.open(Spec{})
		urgentFrom, urgentTo := l.open(Spec{Class: Urgent})
		done := start(t.Context(), from, to, 250, 100<<10)
		urgentDone := start(t.Context(), urgentFrom, urgentTo, 300, 10<<10)
		r := rand.New(rand.NewPCG(*seed, 9))
		for range 25 {
			time.Sleep(time.Duration(r.Int64N(int64(500 * time.Millisecond))))
			for _, link := range []*Link{l.a.Link("b"), l.b.Link("a")} {
				link.mu.Lock()
				if s := link.set; s != nil && r.IntN(2) == 0 {
					cs := s.all()
					if i := r.IntN(len(cs)); i > 0 || r.IntN(3) == 0 { // the first is the priority connection
						cs[i].end(errors.New("killed by the test"), codeDead)
					}
				}
				link.mu.Unlock()
			}
		}
		if len(done) > 0 {
			t.Error("the transfer was over before the last was killed")
		}
		if err := <-done; err != nil {
			t.Errorf("bulk: %v", err)
		}
		if err := <-urgentDone; err != nil {
			t.Errorf("urgent: %v", err)
		}
	})
}

// TestBlackhole lets connections go silent one by one, as when a NAT forgets them.
func TestBlackhole(t *testing.T) {
	t.Parallel()
	inLab(t, lineWAN, options{}, func(t *testing.T, l *lab) {
		l.up()
		from, to := l.open(Spec{})
		done := start(t.Context(), from, to, 150, 100<<10)
		for range 3 {
			time.Sleep(700 * time.Millisecond)
			for _, a := range l.wan.Dialed(netip.MustParseAddr(ipA)) {
				l.wan.Block(a)
				break
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestShrinkingMTU takes the path's MTU below the connections' packets, without
// a word; small packets, and so QUIC's keep-alives, still pass (reliability.md,
// C.3 number 11).
func TestShrinkingMTU(t *testing.T) {
	t.Parallel()
	inLab(t, lineWAN, options{}, func(t *testing.T, l *lab) {
		l.up()
		from, to := l.open(Spec{})
		done := start(t.Context(), from, to, 100, 100<<10)
		time.Sleep(500 * time.Millisecond)
		line := lineWAN
		line.MTU = 1210
		l.wan.Set(line)
		_, down := l.a.Link("b").Watch()
		cut := time.Now()
		<-down
		if s := l.a.Link("b").State(); time.Since(cut) > 4*time.Second || !strings.Contains(s.Why, "full-sized packets") {
			t.Errorf("down after %v: %q", time.Since(cut), s.Why)
		}
		l.wan.Set(lineWAN)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// TestMTUComesBack: after the path's MTU has shrunk bulk goes on with small packets within
// seconds, and when it is what it was, with large ones; whose messages are under way hardly
// notice the latter.
func TestMTUComesBack(t *testing.T) {
	t.Parallel()
	line := testwan.Line{Delay: 20 * time.Millisecond, Rate: 500_000}
	inLab(t, line, options{}, func(t *testing.T, l *lab) {
		l.up()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		link := l.a.Link("b")
		flow := link.NewFlow("move")
		flow.SetRate(20_000) // or half an hour would take long
		s := l.streamOf(ctx, flow, 2_000)
		time.Sleep(5 * time.Second)
		full := link.MTU()
		small := line
		small.MTU = 1280 - headers4
		l.wan.Set(small)
		if _, gap := s.take(time.Minute); gap > 5*time.Second {
			t.Errorf("the MTU shrinks: nothing came for %v", gap)
		}
		if mtu := link.MTU(); mtu > 1280 || mtu < 1230 {
			t.Errorf("packets of %d bytes where 1280 pass", mtu)
		}
		soon := func() { // or it would take half an hour
			link.mu.Lock()
			defer link.mu.Unlock()
			if p := link.paths[0]; time.Until(p.small) < smallFor/2 {
				t.Errorf("large packets are tried in %v", time.Until(p.small))
			} else {
				p.small = time.Now()
			}
		}
		soon()
		if _, gap := s.take(20 * time.Second); gap > 2*time.Second { // in vain
			t.Errorf("still small: nothing came for %v", gap)
		}
		l.wan.Set(line)
		soon()
		if _, gap := s.take(20 * time.Second); gap > 2*time.Second || link.MTU() != full {
			t.Errorf("large again: nothing came for %v, packets of %d bytes, want %d", gap, link.MTU(), full)
		}
		for _, at := range []*Link{link, l.b.Link("a")} {
			at.mu.Lock()
			for c := range at.set.others {
				if n := c.packet(); n < largePacket-discoverySlack {
					t.Errorf("at %s the %s connection sends packets of %d bytes", at.node.cfg.Site, roleName(c.role), n)
				}
			}
			at.mu.Unlock()
		}
	})
}

func TestPeerRestarts(t *testing.T) {
	t.Parallel()
	inLab(t, lineWAN, options{}, func(t *testing.T, l *lab) {
		l.up()
		from, _ := l.open(Spec{})
		epoch := l.a.Link("b").Epoch()
		if epoch != l.b.Epoch() {
			t.Errorf("epoch %x, the peer's is %x", epoch, l.b.Epoch())
		}
		if _, err := from.Send(t.Context(), []byte("x")); err != nil {
			t.Fatal(err)
		}
		l.b.stop()
		time.Sleep(time.Second)
		if s := l.a.Link("b").State(); s.Up || s.Why == "" {
			t.Errorf("state %+v", s)
		}
		l.b = run(t, config("b", l.wan.Site(ipB)), Peer{Site: "a"})
		l.up()
		if _, err := from.Send(t.Context(), []byte("x")); !errors.Is(err, ErrPeerRestarted) {
			t.Errorf("send: %v", err)
		}
		if l.a.Link("b").Epoch() == epoch {
			t.Error("epoch unchanged")
		}
		from, to := l.open(Spec{})
		if err := transfer(t.Context(), from, to, 20, 10000); err != nil {
			t.Error(err)
		}
	})
}

// TestSimultaneousDials has both ends dial, at moments around each other, and
// wants one set that both agree on.
func TestSimultaneousDials(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{0, 10, 19, 20, 21, 30, 39, 40, 41, 60, 79, 80, 81, 100, 120} {
		inLab(t, testwan.Line{Delay: 20 * time.Millisecond}, options{}, func(t *testing.T, l *lab) {
			time.Sleep(skew * time.Millisecond)
			if err := l.b.SetPeers([]Peer{{Site: "a", Addrs: []string{ipA + ":7447"}}}); err != nil {
				t.Fatal(err)
			}
			from, to := l.open(Spec{})
			if err := transfer(t.Context(), from, to, 100, 10000); err != nil {
				t.Error(err)
			}
			time.Sleep(5 * time.Second)
			a, b := l.a.Link("b"), l.b.Link("a")
			if x, y := inUse(a), inUse(b); x.serial == 0 || x.id != y.id || x.dialed == y.dialed {
				t.Fatalf("skew %dms: sets %+v, %+v", skew, x, y)
			}
			if s := b.State(); !s.Up || s.Conns != 6 || time.Since(s.Since) < 4*time.Second {
				t.Errorf("skew %dms: %+v", skew, s)
			}
		})
	}
}

// TestLossOfWords drops everything for a moment at each step of the handshakes
// of both ends, so that each message of them is the one that is lost once.
func TestLossOfWords(t *testing.T) {
	t.Parallel()
	for ms := 0; ms <= 200; ms += 15 {
		inLab(t, testwan.Line{Delay: 20 * time.Millisecond}, options{dialsB: true}, func(t *testing.T, l *lab) {
			time.Sleep(time.Duration(ms) * time.Millisecond)
			l.wan.Cut()
			time.Sleep(time.Duration(13+ms%40) * time.Millisecond)
			l.wan.Heal()
			healed := time.Now()
			l.up()
			if d := time.Since(healed); d > 3*time.Second {
				t.Errorf("cut at %d ms: up after %v", ms, d)
			}
			from, to := l.open(Spec{})
			if err := transfer(t.Context(), from, to, 50, 10000); err != nil {
				t.Errorf("cut at %d ms: %v", ms, err)
			}
		})
	}
}

func TestAbort(t *testing.T) {
	t.Parallel()
	inLab(t, lineWAN, options{}, func(t *testing.T, l *lab) {
		from, to := l.open(Spec{})
		if _, err := from.Send(t.Context(), make([]byte, 5<<20)); err != nil {
			t.Fatal(err)
		}
		l.wan.Cut() // the word must come through an outage
		to.Abort("disk full")
		time.Sleep(30 * time.Second)
		l.wan.Heal()
		_, err := from.Recv(t.Context())
		if e, ok := errors.AsType[*AbortError](err); !ok || e.Reason != "disk full" || e.Local {
			t.Errorf("recv: %v", err)
		}
		if _, err := to.Recv(t.Context()); !isType[*AbortError](err) {
			t.Errorf("own recv: %v", err)
		}
		time.Sleep(time.Second)
		for _, link := range []*Link{l.a.Link("b"), l.b.Link("a")} {
			if s := link.State(); s.Channels != 0 || s.Buffered != 0 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// TestRemovedPeer wants channels to fail at both ends when a site is taken off
// the list, and not to end as if they had ended well.
func TestRemovedPeer(t *testing.T) {
	t.Parallel()
	inLab(t, lineWAN, options{}, func(t *testing.T, l *lab) {
		from, to := l.open(Spec{})
		if err := from.CloseSend(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := to.Recv(t.Context()); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if err := l.a.SetPeers(nil); err != nil {
			t.Fatal(err)
		}
		if _, err := from.Recv(t.Context()); !errors.Is(err, ErrPeerGone) {
			t.Errorf("recv: %v", err)
		}
		time.Sleep(time.Minute)
		if err := l.a.SetPeers([]Peer{{Site: "b", Addrs: []string{ipB + ":7447"}}}); err != nil {
			t.Fatal(err)
		}
		l.up()
		time.Sleep(time.Second)
		if _, err := to.Send(t.Context(), []byte("x")); !isType[*AbortError](err) {
			t.Errorf("send at the other end: %v", err)
		}
	})
}
