package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wan is the links between clusters: full mesh, with a delay, and cuts.
type wan struct {
	t *testing.T

	mu    sync.Mutex
	nodes map[string]*Cluster
	cut   map[string]bool // "a-b", sorted
	blind bool            // cuts go unnoticed: packets vanish, dials hang
	log   []string        // changes as told, "a: b/b1 dead"
}

const delay = 50 * time.Millisecond

var errCut = errors.New("link is down")

func newWAN(t *testing.T) *wan {
	return &wan{t: t, nodes: map[string]*Cluster{}, cut: map[string]bool{}}
}

func pair(a, b string) string { return min(a, b) + "-" + max(a, b) }

func (w *wan) set(a, b string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[pair(a, b)] = cut
}

// to gives the far end, and what happens on the way to it.
func (w *wan) to(from, to string) (c *Cluster, lost bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c = w.nodes[to]
	if c == nil || w.cut[pair(from, to)] {
		if w.blind {
			return nil, true, nil
		}
		return nil, true, errCut
	}
	return c, false, nil
}

// carrier is one site's end of the wan.
type carrier struct {
	*wan
	site string
}

func (c carrier) SendDatagram(site string, b []byte) error {
	if len(b) > maxPacket {
		c.t.Errorf("packet of %d bytes", len(b))
	}
	far, lost, err := c.to(c.site, site)
	if lost || err != nil {
		return err
	}
	b = slices.Clone(b)
	time.AfterFunc(delay, func() { far.HandleDatagram(c.site, b) })
	return nil
}

func (c carrier) Dial(ctx context.Context, site string) (net.Conn, error) {
	far, lost, err := c.to(c.site, site)
	if err != nil {
		return nil, err
	}
	if lost {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	near, end := net.Pipe()
	go far.HandleConn(c.site, end)
	return near, nil
}

// start runs a gateway until stop is called, or the test ends.
func (w *wan) start(site string, peers ...string) (c *Cluster, stop func()) {
	w.t.Helper()
	c, err := New(Config{
		Site: site, Gateway: site + "1", Carrier: carrier{w, site},
		Meta: Meta{Version: "1.0", Endpoint: site + ".example:7441"},
		OnChange: func(m Member) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.log = append(w.log, fmt.Sprintf("%s: %s %s", site, m.Name, m.State))
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	c.SetPeers(peers)
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	w.mu.Lock()
	w.nodes[site] = c
	w.mu.Unlock()
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		w.mu.Lock()
		delete(w.nodes, site)
		w.mu.Unlock()
	})
	w.t.Cleanup(stop)
	return c, stop
}

// within waits until site's member has the state, and gives how long it took.
func (w *wan) within(limit time.Duration, c *Cluster, site string, want State) time.Duration {
	w.t.Helper()
	start := time.Now()
	for c.Site(site).State != want {
		if time.Since(start) > limit {
			w.t.Fatalf("after %v: %s sees %+v, want %s", limit, c.cfg.Site, c.Site(site), want)
		}
		time.Sleep(100 * time.Millisecond)
	}
	took := time.Since(start)
	w.t.Logf("%s sees %s %s after %v", c.cfg.Site, site, want, took)
	return took
}

// clearLog gives the changes since the last call.
func (w *wan) clearLog() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	log := w.log
	w.log = nil
	return log
}

// bubble runs f in a bubble of its own: all times are those of WANs.
func bubble(t *testing.T, f func(t *testing.T, w *wan)) {
	synctest.Test(t, func(t *testing.T) {
		// The last of all: memberlist's probe goroutine may be under way for
		// one more probe; whatever is left after it fails the test.
		t.Cleanup(func() { time.Sleep(3 * probeInterval) })
		f(t, newWAN(t))
	})
}

func TestTwo(t *testing.T) {
	for _, blind := range []bool{false, true} {
		t.Run(fmt.Sprint("unnoticed=", blind), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *wan) {
				a, _ := w.start("a", "b")
				b, _ := w.start("b") // does not know of a
				w.within(3*time.Second, a, "b", Alive)
				w.within(3*time.Second, b, "a", Alive)
				if m := a.Site("b"); m.Name != "b/b1" || m.Meta.Endpoint != "b.example:7441" || m.Why != "" || m.Incarnation == 0 {
					t.Errorf("%+v", m)
				}

				w.mu.Lock()
				w.blind = blind
				w.mu.Unlock()
				w.set("a", "b", true)
				w.within(10*time.Second, a, "b", Suspect)
				w.within(15*time.Second, a, "b", Dead)
				w.within(15*time.Second, b, "a", Dead)
				if why := a.Site("b").Why; why == "" {
					t.Error("dead without a reason")
				}

				// Longer than memberlist remembers.
				time.Sleep(5 * time.Minute)
				if got := a.Site("b").State; got != Dead {
					t.Errorf("b is %s after 5 minutes", got)
				}
				w.set("a", "b", false)
				a.PeerUp("b")
				w.within(5*time.Second, a, "b", Alive)
				w.within(5*time.Second, b, "a", Alive)
			})
		})
	}
}

// TestHealsByItself: nobody calls PeerUp, and the cut is short: both still
// remember that the other is dead.
func TestHealsByItself(t *testing.T) {
	bubble(t, func(t *testing.T, w *wan) {
		a, _ := w.start("a", "b")
		b, _ := w.start("b", "a")
		w.within(3*time.Second, a, "b", Alive)
		for _, away := range []time.Duration{20 * time.Second, time.Hour} {
			w.set("a", "b", true)
			time.Sleep(away)
			w.within(time.Second, a, "b", Dead)
			w.set("a", "b", false)
			w.within(joinMax+5*time.Second, a, "b", Alive)
			w.within(5*time.Second, b, "a", Alive)
		}
	})
}

// TestBlink: a cut that ends in time kills nobody.
func TestBlink(t *testing.T) {
	bubble(t, func(t *testing.T, w *wan) {
		a, _ := w.start("a", "b")
		w.start("b", "a")
		w.within(3*time.Second, a, "b", Alive)
		w.set("a", "b", true)
		w.within(10*time.Second, a, "b", Suspect)
		w.set("a", "b", false)
		w.within(6*time.Second, a, "b", Alive)
		log := w.clearLog()
		if slices.Contains(log, "a: b/b1 dead") || slices.Contains(log, "b: a/a1 dead") {
			t.Error(log)
		}
	})
}

func TestThree(t *testing.T) {
	bubble(t, func(t *testing.T, w *wan) {
		a, _ := w.start("a", "b", "c")
		b, stopB := w.start("b", "a", "c")
		c, _ := w.start("c", "a") // hears of b through a
		for _, n := range []*Cluster{a, b, c} {
			for _, site := range []string{"a", "b", "c"} {
				w.within(8*time.Second, n, site, Alive)
			}
		}
		if got := len(a.Members()); got != 3 {
			t.Errorf("%d members: %+v", got, a.Members())
		}

		// One link of three: b and c hear of each other through a.
		w.set("b", "c", true)
		w.clearLog()
		time.Sleep(5 * time.Minute)
		if log := w.clearLog(); len(log) > 0 {
			t.Errorf("b and c lost each other: %v", log)
		}
		// c is cut off, and comes back.
		w.set("a", "c", true)
		w.within(30*time.Second, a, "c", Dead)
		w.within(30*time.Second, c, "a", Dead)
		w.within(time.Second, a, "b", Alive)
		w.set("a", "c", false)
		w.set("b", "c", false)
		w.within(joinMax+5*time.Second, a, "c", Alive)
		w.within(joinMax+5*time.Second, b, "c", Alive)
		w.within(joinMax+5*time.Second, c, "b", Alive)

		// A clean stop is told apart from a death, by all and at once.
		start := time.Now()
		stopB()
		if took := time.Since(start); took > 4*delay {
			t.Errorf("stopping took %v", took)
		}
		w.within(delay, a, "b", Left)
		w.within(delay, c, "b", Left)
		// And it can come back.
		b, _ = w.start("b", "a")
		w.within(joinMax+5*time.Second, a, "b", Alive)
		w.within(10*time.Second, b, "c", Alive)
	})
}

// TestLeaveTogether: two that end at the same time do not wait for each other, and
// one that hears nothing of the others does not wait for ever.
func TestLeaveTogether(t *testing.T) {
	bubble(t, func(t *testing.T, w *wan) {
		a, stopA := w.start("a", "b", "c")
		b, stopB := w.start("b", "a", "c")
		c, stopC := w.start("c", "a", "b")
		for _, n := range []*Cluster{a, b, c} {
			for _, site := range []string{"a", "b", "c"} {
				w.within(8*time.Second, n, site, Alive)
			}
		}
		start := time.Now()
		var both sync.WaitGroup
		both.Go(stopA)
		both.Go(stopB)
		both.Wait()
		if took := time.Since(start); took > 4*delay {
			t.Errorf("stopping took %v", took)
		}
		w.within(delay, c, "a", Left)
		w.within(delay, c, "b", Left)

		d, _ := w.start("d", "c")
		w.within(8*time.Second, c, "d", Alive)
		w.within(8*time.Second, d, "c", Alive)
		w.mu.Lock()
		w.blind = true
		w.mu.Unlock()
		w.set("c", "d", true)
		start = time.Now()
		stopC()
		if took := time.Since(start); took > leaveTimeout+delay {
			t.Errorf("stopping in silence took %v", took)
		}
	})
}

// TestRestart: a process dies and another of the same name takes its place.
func TestRestart(t *testing.T) {
	bubble(t, func(t *testing.T, w *wan) {
		a, _ := w.start("a", "b")
		_, stop := w.start("b", "a")
		w.within(3*time.Second, a, "b", Alive)
		w.set("a", "b", true) // so that it cannot say good-bye
		stop()
		w.set("a", "b", false)
		b, _ := w.start("b", "a")
		if err := b.SetMeta(Meta{Version: "2.0"}); err != nil {
			t.Fatal(err)
		}
		w.within(10*time.Second, b, "a", Alive)
		time.Sleep(20 * time.Second)
		if m := a.Site("b"); m.State != Alive || m.Meta.Version != "2.0" {
			t.Errorf("%+v", m)
		}
	})
}

func TestSetMeta(t *testing.T) {
	bubble(t, func(t *testing.T, w *wan) {
		a, _ := w.start("a", "b")
		b, _ := w.start("b")
		w.within(3*time.Second, a, "b", Alive)
		want := Meta{Version: "1.1", Segments: [8]byte{1, 2, 3}}
		if err := b.SetMeta(want); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if got := a.Site("b").Meta; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if err := b.SetMeta(Meta{Version: string(make([]byte, 65))}); err == nil {
			t.Error("takes a version of 65 bytes")
		}
	})
}

// TestChanges are told once each, in order.
func TestChanges(t *testing.T) {
	bubble(t, func(t *testing.T, w *wan) {
		a, _ := w.start("a", "b")
		w.start("b")
		w.within(3*time.Second, a, "b", Alive)
		w.set("a", "b", true)
		w.within(30*time.Second, a, "b", Dead)
		var got []string
		for _, line := range w.clearLog() {
			if line[0] == 'a' {
				got = append(got, line)
			}
		}
		want := "[a: a/a1 alive a: b/b1 alive a: b/b1 suspect a: b/b1 dead]"
		if fmt.Sprint(got) != want {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestUnknown(t *testing.T) {
	c, err := New(Config{Site: "a", Gateway: "a1", Carrier: carrier{}})
	if err != nil {
		t.Fatal(err)
	}
	if m := c.Site("b"); m.State != Unknown || m.Why == "" {
		t.Errorf("%+v", m)
	}
	// Nothing runs: all is dropped.
	near, far := net.Pipe()
	defer near.Close()
	c.HandleConn("b", far)
	c.HandleDatagram("b", []byte{1})
	if _, err := near.Write([]byte{1}); err == nil {
		t.Error("connection was kept")
	}
	for _, cfg := range []Config{
		{}, {Site: "a", Gateway: "a1"}, {Site: "A", Gateway: "a1", Carrier: carrier{}}, {Site: "a", Gateway: "a/1", Carrier: carrier{}},
		{Site: "a", Gateway: "a1", Carrier: carrier{}, Meta: Meta{Version: "1\x1b[0m"}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("New takes %+v", cfg)
		}
	}
}
