package tunnel

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// ipA2 is a's second uplink.
const ipA2 = "192.0.2.101"

// The two uplinks of a: one of 900 kB/s and 50 ms, and one of 300 kB/s and 20 ms.
var (
	wide   = testwan.Line{Delay: 50 * time.Millisecond, Rate: 900_000, Loss: 0.001}
	narrow = testwan.Line{Delay: 20 * time.Millisecond, Rate: 300_000, Loss: 0.001}
	away   = testwan.Line{Loss: 1}
)

func uplinks(cost int) []Path {
	return []Path{
		{Name: "wide", Source: ipA, Addrs: []string{ipB + ":7447"}, Rate: 870_000},
		{Name: "narrow", Source: ipA2, Addrs: []string{ipB + ":7447"}, Rate: 290_000, Cost: cost},
	}
}

// inTwoPaths runs f in a bubble in which a reaches b over two uplinks.
func inTwoPaths(t *testing.T, cost int, f func(*testing.T, *lab)) {
	t.Helper()
	inLab(t, wide, options{}, func(t *testing.T, l *lab) {
		l.line(ipA2, narrow)
		l.setPaths(uplinks(cost))
		l.up()
		l.t.Log(l.a.Link("b").State().Paths)
		f(t, l)
	})
}

func (l *lab) line(a string, line testwan.Line) {
	l.wan.SetBetween(netip.MustParseAddr(a), netip.MustParseAddr(ipB), line)
}

func (l *lab) setPaths(paths []Path) {
	l.t.Helper()
	if err := l.a.SetPeers([]Peer{{Site: "b", Paths: paths}}); err != nil {
		l.t.Fatal(err)
	}
}

// conns are the connections of each path, as the site has it.
func conns(n running, peer string) map[string]int {
	got := make(map[string]int)
	for _, p := range n.Link(peer).State().Paths {
		got[p.Name] = p.Conns
	}
	return got
}

// A steady stream goes from a to b. It tells how many bytes came and what
// the longest time was in which none did. What comes is complete and in order.
type steady struct {
	from, to *Channel

	mu   sync.Mutex // guards what follows
	got  int64
	last time.Time
	gap  time.Duration
}

// note takes in that n bytes came.
func (s *steady) note(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gap = max(s.gap, time.Since(s.last))
	s.got, s.last = s.got+int64(n), time.Now()
}

func (l *lab) stream(ctx context.Context, flow *Flow) *steady {
	l.t.Helper()
	return l.streamOf(ctx, flow, 50_000)
}

// streamOf is a stream of messages of up to so many bytes.
func (l *lab) streamOf(ctx context.Context, flow *Flow, most int) *steady {
	l.t.Helper()
	s := &steady{}
	s.from, s.to = l.open(Spec{Flow: flow})
	go func() {
		for i := 0; ; i++ {
			if _, err := s.from.Send(ctx, message(i, most)); err != nil {
				return
			}
		}
	}()
	s.last = time.Now()
	go func() {
		for i := 0; ; i++ {
			m, err := s.to.Recv(ctx)
			if err != nil {
				return
			}
			if !bytes.Equal(m.Data, message(i, most)) {
				l.t.Errorf("message %d is another one", i)
				return
			}
			s.to.Done(m.Seq)
			s.note(len(m.Data))
		}
	}()
	return s
}

// take returns the rate since it was last called, and the longest gap.
func (s *steady) take(after time.Duration) (rate float64, gap time.Duration) {
	s.mu.Lock()
	s.got, s.gap, s.last = 0, 0, time.Now()
	s.mu.Unlock()
	time.Sleep(after)
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.got) / after.Seconds(), max(s.gap, time.Since(s.last))
}

// TestTwoPaths: two uplinks are used together; one that dies is noticed and
// costs no more than a moment, whether the set's priority connection is on it or
// not; when it is back it is used again.
func TestTwoPaths(t *testing.T) {
	t.Parallel()
	inTwoPaths(t, 0, func(t *testing.T, l *lab) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := l.stream(ctx, nil)
		time.Sleep(3 * time.Second)
		if rate, _ := s.take(5 * time.Second); rate < 0.9*1_160_000/startFactor {
			t.Errorf("%.0f bytes a second over both", rate)
		}
		for _, cut := range []struct {
			ip   string
			name string
			line testwan.Line
			left float64
		}{{ipA2, "narrow", narrow, 870_000}, {ipA, "wide", wide, 290_000}} {
			l.line(cut.ip, away)
			rate, gap := s.take(5 * time.Second)
			t.Logf("without %s: %.0f bytes a second, a gap of %v; %v", cut.name, rate, gap, conns(l.a, "b"))
			if gap > 3*time.Second {
				t.Errorf("without %s nothing came for %v", cut.name, gap)
			}
			if n := conns(l.a, "b")[cut.name]; n != 0 {
				t.Errorf("%d connections over the path %s, which is dead", n, cut.name)
			}
			if rate, gap := s.take(5 * time.Second); rate < 0.85*cut.left/startFactor || gap > 3*time.Second {
				t.Errorf("without %s: %.0f bytes a second, and nothing came for %v", cut.name, rate, gap)
			}
			l.line(cut.ip, cut.line)
			l.bothPaths()
			time.Sleep(3 * time.Second)
			if rate, _ := s.take(5 * time.Second); rate < 0.85*1_160_000/startFactor {
				t.Errorf("%s is back: %.0f bytes a second; %+v", cut.name, rate, l.a.Link("b").State().Paths)
			}
		}
	})
}

// bothPaths waits until there are all connections over both paths.
func (l *lab) bothPaths() {
	l.t.Helper()
	for began := time.Now(); conns(l.a, "b")["wide"] < startConns || conns(l.a, "b")["narrow"] < startConns; {
		if time.Since(began) > 20*time.Second {
			l.t.Fatalf("seed %d: %v are there", *seed, conns(l.a, "b"))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestPathDies: at whatever moment a path dies, the one with the priority connection
// or the other, nothing stands still for 3 s.
func TestPathDies(t *testing.T) {
	t.Parallel()
	moments := 6
	if *long {
		moments = 300
	}
	inTwoPaths(t, 0, func(t *testing.T, l *lab) {
		rng := rand.New(rand.NewPCG(*seed, 6))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := l.streamOf(ctx, nil, 10_000)
		time.Sleep(2 * time.Second)
		var worst time.Duration
		for i := range moments {
			link := l.a.Link("b")
			cut := uplinks(0)[rng.IntN(2)]
			link.mu.Lock()
			first := link.set != nil && link.set.priority.path.name == cut.Name
			link.mu.Unlock()
			time.Sleep(time.Duration(rng.Int64N(int64(2 * tickEvery))))
			l.line(cut.Source, away)
			_, gap := s.take(5 * time.Second)
			if worst = max(worst, gap); gap >= 3*time.Second {
				t.Errorf("seed %d: death %d, of %s, with the priority connection: %v, and nothing came for %v", *seed, i, cut.Name, first, gap)
			}
			l.line(ipA, wide)
			l.line(ipA2, narrow)
			l.bothPaths()
			time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
		}
		t.Logf("nothing came for at most %v", worst)
	})
}

// TestPathCost: what costs more is left alone, until a flow may use it, or until
// there is no other.
func TestPathCost(t *testing.T) {
	t.Parallel()
	inTwoPaths(t, 1, func(t *testing.T, l *lab) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		link := l.a.Link("b")
		flow := link.NewFlow("move")
		s := l.stream(ctx, flow)
		time.Sleep(3 * time.Second)
		sent := func() int64 { return link.State().Paths[1].Wire.Sent }
		was := sent()
		rate, _ := s.take(5 * time.Second)
		if used := sent() - was; rate < 0.85*870_000/startFactor || used > 50_000 {
			t.Errorf("%.0f bytes a second, of them %d over what costs more", rate, used)
		}
		flow.UseAll(true)
		time.Sleep(3 * time.Second)
		if rate, _ := s.take(5 * time.Second); rate < 0.85*1_160_000/startFactor {
			t.Errorf("%.0f bytes a second over both", rate)
		}
		flow.UseAll(false)
		l.line(ipA, away)
		time.Sleep(8 * time.Second)
		if rate, _ := s.take(5 * time.Second); rate < 0.85*290_000/startFactor {
			t.Errorf("%.0f bytes a second where only what costs more is left", rate)
		}
	})
}

// TestChangePaths adds and removes paths under a transfer.
func TestChangePaths(t *testing.T) {
	t.Parallel()
	inLab(t, wide, options{}, func(t *testing.T, l *lab) {
		l.line(ipA2, narrow)
		l.up()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := l.stream(ctx, nil)
		time.Sleep(2 * time.Second)
		for i, paths := range [][]Path{uplinks(0), uplinks(0)[1:], uplinks(0)[:1], uplinks(0)} {
			l.setPaths(paths)
			_, gap := s.take(5 * time.Second)
			if gap > 2*time.Second {
				t.Errorf("change %d: nothing came for %v", i, gap)
			}
			want := make(map[string]bool)
			for _, p := range paths {
				want[p.Name] = true
			}
			for _, n := range []running{l.a, l.b} {
				peer := map[string]string{"a": "b", "b": "a"}[n.cfg.Site]
				for name, count := range conns(n, peer) {
					if want[name] != (count > 0) {
						t.Errorf("change %d: at %s %d connections over %q", i, n.cfg.Site, count, name)
					}
				}
			}
		}
	})
}

// TestLife: who is silent is asked, and then taken for dead; who has nothing to
// answer to is not.
func TestLife(t *testing.T) {
	const ms = time.Millisecond
	var l life
	step := func(now time.Duration, want verdict) {
		t.Helper()
		if got := l.judge(now, 50*ms, 0); got != want {
			t.Errorf("at %v: %v, want %v", now, got, want)
		}
	}
	step(0, alive)
	l.came(100 * ms)
	step(10_000*ms, alive) // nobody has asked
	l.left(10_000 * ms)
	l.left(10_500 * ms) // the first counts
	step(10_300*ms, alive)
	step(10_400*ms, ask)
	step(11_000*ms, alive)
	l.came(11_100 * ms) // the answer, which we acknowledge
	l.left(11_101 * ms)
	step(12_000*ms, ask) // again, for no answer to that is due
	step(13_400*ms, alive)
	step(13_500*ms, dead)
	if !l.dead {
		t.Error("not known to be dead")
	}
	step(14_000*ms, alive)
	if !l.dead {
		t.Error("not known to be dead any more")
	}
	l.came(15_000 * ms)
	step(15_001*ms, alive)
	if l.dead {
		t.Error("still dead")
	}
	l.left(16_000 * ms)
	for _, s := range []struct {
		now, beside time.Duration
		want        verdict
	}{
		{17_000 * ms, 0, ask}, {19_500 * ms, 19_400 * ms, alive}, {20_000 * ms, 0, dead}, // a slow line
	} {
		if got := l.judge(s.now, time.Second, s.beside); got != s.want {
			t.Errorf("at %v: %v, want %v", s.now, got, s.want)
		}
	}
	// A peer that is heard elsewhere is there, unless it was heard before it could
	// have had the question.
	for beside, want := range map[time.Duration]verdict{31_000 * ms: dead, 30_440 * ms: alive} {
		l = life{}
		l.left(30_000 * ms)
		if got := l.judge(30_400*ms, 50*ms, 30_400*ms); got != ask {
			t.Error(got)
		}
		if got := l.judge(31_400*ms, 50*ms, beside); got != want {
			t.Errorf("heard elsewhere at %v: %v, want %v", beside, got, want)
		}
	}
}

// TestOwnStall: a path is not dead because we have not been running while its answer was
// due; when nothing comes after that either, it is.
func TestOwnStall(t *testing.T) {
	t.Parallel()
	inTwoPaths(t, 0, func(t *testing.T, l *lab) {
		time.Sleep(2 * time.Second) // until both have connections
		link := l.a.Link("b")
		link.mu.Lock() // the ticks are ours
		defer link.mu.Unlock()
		first := link.set.priority.path
		p := link.paths[0]
		if p == first {
			p = link.paths[1]
		}
		now := time.Now()
		p.life.came(now.Sub(link.born))
		p.life.left(now.Sub(link.born))
		link.watched = now
		tick := func(after time.Duration) bool {
			now = now.Add(after)
			first.life.came(now.Sub(link.born)) // the peer is there
			link.watchPaths(now)
			return p.life.dead
		}
		tick(tickEvery)
		tick(tickEvery)
		if p.life.probed == 0 {
			t.Fatal("not asked")
		}
		for _, after := range []time.Duration{900 * time.Millisecond, tickEvery, tickEvery, tickEvery} {
			if tick(after) {
				t.Fatal("dead after a stall of our own of 0.9 s")
			}
		}
		for n := 0; !tick(tickEvery); n++ {
			if n > 10 {
				t.Fatal("not dead when nothing came after the stall")
			}
		}
	})
}

// TestPathsOverUDP: a source address is what the peer sees.
func TestPathsOverUDP(t *testing.T) {
	a, b := onLoopback(t, nil)
	addr := a.Link("b").State().Address
	err := a.SetPeers([]Peer{{Site: "b", Paths: []Path{
		{Name: "one", Source: "127.0.0.2", Addrs: []string{addr}}, {Name: "two", Source: "127.0.0.3", Addrs: []string{addr}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		n := conns(b, "a")
		if n["one"] >= 4 && n["two"] >= 4 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("connections at b: %v", n)
		}
	}
	for _, p := range b.Link("a").State().Paths {
		want := map[string]string{"one": "127.0.0.2", "two": "127.0.0.3"}[p.Name]
		if host, _, _ := net.SplitHostPort(p.Address); want != "" && host != want {
			t.Errorf("path %s comes from %s, want %s", p.Name, p.Address, want)
		}
	}
	from, to := openPair(t, a, b, Spec{})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := transfer(ctx, from, to, 80, 500<<10); err != nil {
		t.Fatal(err)
	}
	if _, err := a.dialFrom(ctx, "nonsense", addr); err == nil {
		t.Error("a source address that is none was taken")
	}
}

func (n running) dialFrom(ctx context.Context, source, addr string) (net.PacketConn, error) {
	pc, _, err := udpSockets{}.Dial(ctx, source, addr)
	return pc, err
}
