package gateway

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/tunnel"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

func TestCurve(t *testing.T) {
	const long = 5 * time.Second
	for _, tt := range []struct {
		name         string
		from, until  time.Duration // bytes come at 1e6 a second between these
		mean, steady float64
		t90          time.Duration
	}{
		{"at once", 0, long, 1e6, 1e6, 200 * time.Millisecond},
		{"after a second", time.Second, long, 0.8e6, 1e6, 1200 * time.Millisecond},
		{"never", long, long, 0, 0, -1},
		{"stops before the half", 0, time.Second, 0.2e6, 0, -1},
	} {
		c := newCurve(long)
		for at := tt.from; at < tt.until; at += 5 * time.Millisecond {
			c.add(at, int64((at-tt.from).Seconds()*1e6)+5000)
		}
		mean, steady, t90 := c.summary()
		near := func(got, want float64) bool { return got > want-0.02e6 && got < want+0.02e6 }
		if !near(mean, tt.mean) || !near(steady, tt.steady) || t90 != tt.t90 {
			t.Errorf("%s: mean %.0f, steady %.0f, t90 %v; want %.0f, %.0f, %v", tt.name, mean, steady, t90, tt.mean, tt.steady, tt.t90)
		}
	}
}

// What comes late, twice or beyond the end changes nothing.
func TestCurveIsBounded(t *testing.T) {
	c := newCurve(time.Second)
	for _, x := range []struct {
		at    time.Duration
		total int64
	}{{100 * time.Millisecond, 1000}, {50 * time.Millisecond, 5000}, {time.Hour, 1 << 40}, {200 * time.Millisecond, 500}, {1 << 62, 1}} {
		c.add(x.at, x.total)
	}
	if mean, _, _ := c.summary(); mean != 1000 || len(c.until) != 20 {
		t.Errorf("mean %v of %d slots, want 1000 of 20", mean, len(c.until))
	}
}

func TestVerdict(t *testing.T) {
	good := LinkWay{Steady: 186e6, Sent: 1000, Lost: 1, RTT: 62}
	for _, tt := range []struct {
		name string
		test LinkTest
		want []string
	}{
		{"plain", LinkTest{There: &good, RTT: 60}, []string{"about 49 s", "in 3 min"}},
		{"moves", LinkTest{There: &good, RTT: 60, Moves: 2}, []string{"moves were running"}},
		{"queue", LinkTest{There: &good, RTT: 20}, []string{"queue of 42 ms", "link.rate"}},
		{"nothing", LinkTest{There: &LinkWay{}}, []string{"nothing got through"}},
		{"no way", LinkTest{}, []string{"nothing got through"}},
		{"loss", LinkTest{There: &LinkWay{Steady: 1e9, Sent: 100, Lost: 5}}, []string{"loses 5.0 %"}},
	} {
		tt.test.judge()
		for _, want := range tt.want {
			if !strings.Contains(tt.test.Verdict, want) {
				t.Errorf("%s: %q, want %q in it", tt.name, tt.test.Verdict, want)
			}
		}
	}
	capped := LinkTest{There: &good, RTT: 20, Rate: 200e6}
	if capped.judge(); strings.Contains(capped.Verdict, "link.rate") {
		t.Errorf("with a cap: %q", capped.Verdict)
	}
}

// proveLink runs f in a bubble between two nodes over a line; b serves tests.
func proveLink(t *testing.T, line testwan.Line, serve func(context.Context, *tunnel.Channel), f func(t *testing.T, a *tunnel.Node)) {
	t.Helper()
	proveWAN(t, line, serve, func(t *testing.T, a *tunnel.Node, _ *testwan.WAN) { f(t, a) })
}

// proveWAN is proveLink for who has to do with the line as well.
func proveWAN(t *testing.T, line testwan.Line, serve func(context.Context, *tunnel.Channel), f func(*testing.T, *tunnel.Node, *testwan.WAN)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		wan := testwan.New(line, 1)
		defer wan.Close()
		dirs := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(pki.Init(dirs[0], "test", "a", "gw1"))
		founder, err := pki.Load(dirs[0])
		must(err)
		must(founder.Provision(dirs[1], "b", "gw1"))
		ctx, cancel := context.WithCancel(context.Background())
		var nodes []*tunnel.Node
		ended := make(chan error, 2) // one each
		for i, addr := range []string{"192.0.2.1", "192.0.2.2"} {
			id, err := pki.Load(dirs[i])
			must(err)
			n, err := tunnel.New(tunnel.Config{
				Site: id.Site(), Gateway: "gw1", ServerTLS: id.ServerTLS(), ClientTLS: id.ClientTLS(), Listen: addr + ":7447", Sockets: wan.Site(addr),
			})
			must(err)
			nodes = append(nodes, n)
		}
		must(nodes[0].SetPeers([]tunnel.Peer{{Site: "b", Addrs: []string{"192.0.2.2:7447"}}}))
		must(nodes[1].SetPeers([]tunnel.Peer{{Site: "a"}}))
		for _, n := range nodes {
			go func() { ended <- n.Run(ctx) }()
		}
		defer func() {
			cancel()
			for range nodes {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}()
		go func() {
			for {
				ch, err := nodes[1].Accept(ctx)
				if err != nil {
					return
				}
				go serve(ctx, ch)
			}
		}()
		up, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		must(nodes[0].Link("b").WaitUp(up))
		f(t, nodes[0], wan)
	})
}

func newProber(l *tunnel.Link) *prober {
	return &prober{link: l, idle: testIdle, load: testLoad, tell: func(LinkTest) {}}
}

// TestProber measures a line that is known.
func TestProber(t *testing.T) {
	line := testwan.Line{Delay: 20 * time.Millisecond, Rate: 2_500_000} // 20 Mbit/s
	proveLink(t, line, new(served).serve, func(t *testing.T, a *tunnel.Node) {
		began := time.Now()
		var phases []string
		p := newProber(a.Link("b"))
		p.tell = func(v LinkTest) {
			if len(phases) == 0 || phases[len(phases)-1] != v.Phase {
				phases = append(phases, v.Phase)
			}
		}
		got, err := p.run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("took %v", took)
		}
		if got.RTT < 40 || got.RTT > 45 || got.RTTMin < 40 || got.MTU < 1280 || got.Carrier != "quic" || got.Conns < 2 {
			t.Errorf("got %+v", got)
		}
		for name, w := range map[string]*LinkWay{"there": got.There, "back": got.Back} {
			t.Logf("%s: %+v", name, *w)
			steady, goodput, sent := int64(14e6), int64(8e6), int64(4000)
			if name == "back" { // our controller takes seconds there, now and then
				steady, goodput, sent = 5e6, 3e6, 1500
			}
			if w.Steady < steady || w.Steady > 20e6 || w.Goodput < goodput || w.Goodput > 20e6 || w.T90 < 0 || w.RTT < 40 || w.Sent < sent || w.Lost < 0 {
				t.Errorf("%s: %+v", name, *w)
			}
		}
		if got.Raw4G < 1700 || got.Raw4G > 2500 || !strings.Contains(got.Verdict, "min") {
			t.Errorf("4 GiB take %.0f s: %q", got.Raw4G, got.Verdict)
		}
		if strings.Join(phases, ", ") != "round trip without load, the way there, the way back" {
			t.Errorf("phases %q", phases)
		}
	})
}

// TestProberPeers: whatever the peer does, the test ends in time and with words.
func TestProberPeers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(context.Context, *tunnel.Channel)
		want  string // "": no error
	}{
		{"older gateway", func(_ context.Context, ch *tunnel.Channel) { ch.Abort("channel of kind 6: not known to this gateway") }, "not known to this gateway"},
		{"silent", func(context.Context, *tunnel.Channel) {}, "took too long"},
		{"answers what was not asked", func(ctx context.Context, ch *tunnel.Channel) {
			_, _ = ch.Send(ctx, make([]byte, 1<<20))
		}, "was not asked"},
		{"counters out of range", func(ctx context.Context, ch *tunnel.Channel) {
			for {
				m, err := ch.Recv(ctx)
				if err != nil {
					return
				}
				ch.Done(m.Seq)
				if len(m.Data) == 1 {
					m.Data = append(m.Data, `{"sent":-9223372036854775808,"lost":9223372036854775807}`...)
				}
				if m.Data[0] == echoPing || m.Data[0] == echoAsk {
					_, _ = ch.Send(ctx, m.Data)
				}
			}
		}, ""},
		{"counters that are none", func(ctx context.Context, ch *tunnel.Channel) {
			_, _ = ch.Send(ctx, []byte("\x02{"))
		}, "reading the peer's counters"},
		{"takes nothing in", func(ctx context.Context, ch *tunnel.Channel) {
			if h, err := parseTestHeader(ch.Header()); err == nil && h.Part == testEcho {
				_ = echo(ctx, ch)
			}
		}, ""},
		{"sends nothing in time", func(ctx context.Context, ch *tunnel.Channel) {
			switch h, err := parseTestHeader(ch.Header()); {
			case err != nil:
			case h.Part == testSource: // a machine with too much to do
				time.Sleep(h.For / 2)
				ch.Abort(errTestOver.Error())
			default:
				_ = new(served).part(ctx, ch, h)
			}
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proveLink(t, testwan.Line{Delay: 5 * time.Millisecond, Rate: 1_250_000}, tt.serve, func(t *testing.T, a *tunnel.Node) {
				began := time.Now()
				got, err := newProber(a.Link("b")).run(t.Context())
				if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if err == nil && got.Verdict == "" {
					t.Errorf("no verdict: %+v", got)
				}
				if took := time.Since(began); took > 15*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// TestServedIsBounded: a peer gets one of each part at a time, and nothing for nonsense.
func TestServedIsBounded(t *testing.T) {
	proveLink(t, testwan.Line{Delay: 5 * time.Millisecond}, new(served).serve, func(t *testing.T, a *tunnel.Node) {
		refused := func(h testHeader, msg []byte) string {
			h.Version = max(h.Version, protoVersion)
			ch, err := a.Link("b").Open(t.Context(), tunnel.Spec{Kind: kindTest, Header: encodeJSON(h), Class: tunnel.Urgent})
			if err != nil {
				t.Fatal(err)
			}
			if msg != nil {
				_, _ = ch.Send(t.Context(), msg)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = ch.Recv(ctx)
			var a *tunnel.AbortError
			if errors.As(err, &a) {
				return a.Reason
			}
			return ""
		}
		if got := refused(testHeader{Part: testSink}, nil); got != "" {
			t.Errorf("the first sink: %q", got)
		}
		for want, h := range map[string]testHeader{
			"running already":     {Part: testSink},
			"no part":             {Part: "shell"},
			"is the most":         {Part: testSource, For: time.Hour},
			"this gateway speaks": {Part: testEcho, Version: protoVersion + 1},
		} {
			if got := refused(h, nil); !strings.Contains(got, want) {
				t.Errorf("%+v: %q, want %q", h, got, want)
			}
		}
		if got := refused(testHeader{Part: testEcho}, make([]byte, maxEcho+1)); !strings.Contains(got, "is the most") {
			t.Errorf("long ping: %q", got)
		}
		if got := refused(testHeader{Part: testEcho}, []byte("x")); !strings.Contains(got, "neither") {
			t.Errorf("nonsense: %q", got)
		}
		time.Sleep(testServed) // of the bubble: the first sink has had its time
		if got := refused(testHeader{Part: testSink}, nil); got != "" {
			t.Errorf("a sink after the first has ended: %q", got)
		}
	})
}

func FuzzParseTestHeader(f *testing.F) {
	f.Add(encodeJSON(testHeader{Version: protoVersion, Part: testSource, Seed: 7, For: testLoad}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseTestHeader(b)
		if err == nil && (h.For < 0 || h.For > testLoadMost) {
			t.Errorf("%s is taken: %+v", b, h)
		}
	})
}
