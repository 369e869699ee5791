package l2ext_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

func check(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// mode is that of the segments of tests that are not about one. Those of
// TestExpressIsAsSecure run in secure-fast as well; all hold there, too, with the
// flag.
var mode = flag.String("l2ext.mode", "", "mode of the segments")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is some sites in memory, joined by a wire, inside a synctest bubble.
type world struct {
	t     *testing.T
	wire  *l2exttest.Wire
	hosts map[string]*l2exttest.Host
	ms    map[string]*l2ext.Manager
	stop  map[string]func() // ends one site

	change func(*l2ext.Config) // what is to be otherwise in a site; nil: nothing
	first  l2ext.Policy        // of the segment, at first
}

var vmMAC = l2ext.MAC{0x52, 0x54, 0, 0, 0, 9}

func newWorld(t *testing.T, line l2exttest.Line, sites ...string) *world {
	t.Helper()
	return newWorldWith(t, nil, line, sites...)
}

// newWorldWith is newWorld with something else in the configurations.
func newWorldWith(t *testing.T, change func(*l2ext.Config), line l2exttest.Line, sites ...string) *world {
	t.Helper()
	w := emptyWorld(t, line)
	w.change = change
	w.begin(sites)
	return w
}

func emptyWorld(t *testing.T, line l2exttest.Line) *world {
	return &world{t: t, wire: l2exttest.NewWire(line), hosts: make(map[string]*l2exttest.Host), ms: make(map[string]*l2ext.Manager), stop: make(map[string]func())}
}

// begin makes the sites and the segment that they share.
func (w *world) begin(sites []string) {
	w.t.Helper()
	for _, s := range sites {
		w.make(s)
	}
	w.wire.Join(w.ms)
	for _, s := range sites {
		w.start(s, sites)
	}
	w.runWire()
	w.settle()
}

// runWire has the wire carry until the test ends.
func (w *world) runWire() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { w.wire.Run(ctx) })
	w.t.Cleanup(func() {
		cancel()
		wg.Wait()
		for _, stop := range w.stop {
			stop()
		}
	})
}

func (w *world) make(site string) {
	h := l2exttest.NewHost()
	h.AddBridge("br")
	h.Plug("br", "lan")
	cfg := l2ext.Config{Site: site, Host: h, Carrier: w.wire.End(site), Express: w.wire.Express(site), Underlay: netip.AddrFrom4([4]byte{10, 9, 0, site[0]})}
	if w.change != nil {
		w.change(&cfg)
	}
	m, err := l2ext.New(cfg)
	check(w.t, err)
	w.hosts[site], w.ms[site] = h, m
}

func (w *world) start(site string, sites []string) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	m := w.ms[site]
	wg.Go(func() {
		if err := m.Run(ctx); err != nil {
			w.t.Errorf("site %s: %v", site, err)
		}
	})
	w.stop[site] = sync.OnceFunc(func() { cancel(); wg.Wait() })
	s := segment(site, sites)
	s.Policy = w.first
	check(w.t, m.Apply(w.t.Context(), []l2ext.Segment{s}))
}

func segment(site string, sites []string) l2ext.Segment {
	others := slices.DeleteFunc(slices.Clone(sites), func(s string) bool { return s == site })
	return l2ext.Segment{Name: "prod", VNI: 100, Bridge: "br", Sites: others, Mode: l2ext.Mode(*mode)}
}

// settle lets half a second pass: all that is under way arrives.
func (w *world) settle() { w.pass(500 * time.Millisecond) }

func (w *world) pass(d time.Duration) {
	time.Sleep(d) // in a bubble: no time at all
	synctest.Wait()
}

// appear has a host come up behind a port of a site, and say so.
func (w *world) appear(site, port string, mac l2ext.MAC, ip string) {
	w.t.Helper()
	addr, _ := netip.ParseAddr(ip)
	check(w.t, w.hosts[site].Send(port, ether.AppendAnnounce(nil, mac, addr)))
	w.settle()
}

// where tells what each site thinks of a MAC.
func (w *world) where(mac l2ext.MAC) string {
	var out []string
	for site, m := range w.ms {
		text := site + ": nowhere"
		for _, b := range m.Segments()[0].Bindings {
			if b.MAC == mac {
				text = fmt.Sprintf("%s: %s %d %s%s", site, b.Site, b.Seq, b.State, strings.TrimSuffix(" "+b.Job, " "))
			}
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

func (w *world) want(mac l2ext.MAC, want string) {
	w.t.Helper()
	if got := w.where(mac); got != want {
		w.t.Errorf("got  %s\nwant %s", got, want)
	}
}

// receive takes all frames from mac at a port.
func (w *world) receive(site, port string, mac l2ext.MAC) (frames [][]byte) {
	for f := w.hosts[site].Receive(port); f != nil; f = w.hosts[site].Receive(port) {
		if l2ext.MAC(f[6:12]) == mac {
			frames = append(frames, f)
		}
	}
	return frames
}

func frameTo(dst, src l2ext.MAC, size int) []byte {
	b := append(append([]byte(nil), dst[:]...), src[:]...)
	b = append(b, 0x88, 0xb5)
	return append(b, bytes.Repeat([]byte{0x5a}, size-len(b))...)
}

func TestThreeSites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		w.want(vmMAC, "a: a 2 confirmed; b: a 2 confirmed; c: a 2 confirmed")
		nics := []l2ext.NIC{{MAC: vmMAC, Tap: "lan"}}
		check(t, w.ms["a"].Prepare(t.Context(), "j", nics, "b"))
		w.settle()
		w.want(vmMAC, "a: a 2 pending j; b: a 2 pending j; c: a 2 pending j")
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		w.want(vmMAC, "a: b 3 flipped j; b: b 3 flipped j; c: b 3 flipped j")
		if got := w.receive("a", "lan", vmMAC); len(got) == 0 {
			t.Error("the LAN of a was not told")
		}
		check(t, w.ms["b"].Settle(t.Context(), "j", nics))
		w.settle()
		if got := w.receive("b", "lan", vmMAC); len(got) == 0 {
			t.Error("the LAN of b was not told")
		}
		check(t, w.ms["a"].Confirm(t.Context(), "j"), w.ms["b"].Confirm(t.Context(), "j"), w.ms["b"].Confirm(t.Context(), "j"))
		w.settle()
		w.want(vmMAC, "a: b 3 confirmed j; b: b 3 confirmed j; c: b 3 confirmed j")
		if err := w.ms["a"].Revoke(t.Context(), "j"); !errors.Is(err, l2ext.ErrJobOver) {
			t.Errorf("a confirmed job was revoked: %v", err)
		}
		// A frame that was on its way to the old site takes one hop more, once.
		host := l2ext.MAC{2, 0, 0, 0, 0, 0xc}
		w.receive("b", "lan", host)
		w.ms["c"].Forge(100, "a", frameTo(vmMAC, host, 100), false)
		w.ms["c"].Forge(100, "a", frameTo(vmMAC, host, 100), true) // it was sent on already
		w.settle()
		if got := w.receive("b", "lan", host); len(got) != 1 || len(got[0]) != 100 {
			t.Errorf("%d frames were sent on", len(got))
		}
		v := w.ms["a"].Segments()[0]
		if v.Counts[l2ext.Redirected] != 1 || v.Counts[l2ext.DropHorizon] != 1 {
			t.Errorf("counts: %v", v.Counts)
		}
		w.pass(l2ext.MoveGrace)
		w.ms["c"].Forge(100, "a", frameTo(vmMAC, host, 100), false)
		w.settle()
		if got := w.receive("b", "lan", host); len(got) != 0 {
			t.Error("a frame was sent on after the grace")
		}
	})
}

func TestJobCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		ctx, a, b := t.Context(), w.ms["a"], w.ms["b"]
		w.appear("a", "lan", vmMAC, "")
		nics := []l2ext.NIC{{MAC: vmMAC}}
		is := func(what string, got, want error) {
			t.Helper()
			if !errors.Is(got, want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		is("flip of an unknown job", a.Flip(ctx, "x"), l2ext.ErrNoJob)
		is("revoke of an unknown job", a.Revoke(ctx, "x"), l2ext.ErrNoJob)
		is("confirm of an unknown job", a.Confirm(ctx, "x"), nil)
		if err := a.Prepare(ctx, "x", nics, "a"); err == nil {
			t.Error("a job to the same site was prepared")
		}
		for _, id := range []string{"", strings.Repeat("j", announce.MaxJob+1)} { // bindings could not be announced with it
			if a.Prepare(ctx, id, nics, "b") == nil || b.Expect(ctx, id, nics) == nil || b.Settle(ctx, id, nics) == nil {
				t.Errorf("job %q was taken", id)
			}
		}
		is("prepare", a.Prepare(ctx, "j", nics, "b"), nil)
		is("prepare again", a.Prepare(ctx, "j", nics, "b"), nil)
		is("flip", a.Flip(ctx, "j"), nil)
		is("flip again", a.Flip(ctx, "j"), nil)
		is("settle at the source", a.Settle(ctx, "j", nics), l2ext.ErrJobOver)
		w.settle()
		w.want(vmMAC, "a: b 2 flipped j; b: b 2 flipped j")
		is("revoke", a.Revoke(ctx, "j"), nil)
		is("revoke again", a.Revoke(ctx, "j"), nil)
		is("flip after the revoke", a.Flip(ctx, "j"), l2ext.ErrJobOver)
		is("confirm after the revoke", a.Confirm(ctx, "j"), l2ext.ErrJobOver)
		is("prepare to another site", a.Prepare(ctx, "j", nics, "c"), l2ext.ErrJobOver)
		w.settle()
		w.want(vmMAC, "a: a 4 confirmed j; b: a 4 confirmed j")
		// The source may have prepared it anew since: it is the one to say no.
		is("settle after the revoke", b.Settle(ctx, "j", nics), nil)
		w.settle()
		w.want(vmMAC, "a: a 6 confirmed j; b: a 6 pending j")
		is("revoke at the destination", b.Revoke(ctx, "j"), nil)
		is("settle after that", b.Settle(ctx, "j", nics), l2ext.ErrJobOver)
		w.want(vmMAC, "a: a 6 confirmed j; b: a 6 confirmed j")

		// The next job of the same VM; its flip never arrives, so that the
		// destination claims by itself.
		is("prepare", a.Prepare(ctx, "k", nics, "b"), nil)
		w.settle()
		w.wire.Cut()
		is("flip", a.Flip(ctx, "k"), nil)
		is("settle", b.Settle(ctx, "k", nics), nil)
		is("settle again", b.Settle(ctx, "k", nil), nil)
		w.settle()
		w.wire.Heal()
		w.settle()
		w.want(vmMAC, "a: b 7 flipped k; b: b 7 flipped k")
		is("confirm", errors.Join(a.Confirm(ctx, "k"), b.Confirm(ctx, "k")), nil)
		is("prepare after the end", a.Prepare(ctx, "k", nics, "b"), l2ext.ErrJobOver)

		// Nobody tells of the STOP: the last step does it all.
		is("prepare", b.Prepare(ctx, "l", nics, "a"), nil)
		is("confirm before the flip", b.Confirm(ctx, "l"), nil)
		w.settle()
		w.want(vmMAC, "a: a 8 flipped l; b: a 8 confirmed l")
		is("settle", errors.Join(a.Settle(ctx, "l", nics), a.Confirm(ctx, "l")), nil)

		// A NIC that is on no shared segment stays behind, and is no error.
		is("prepare a foreign NIC", a.Prepare(ctx, "m", []l2ext.NIC{{MAC: l2ext.MAC{1}}}, "b"), nil)
		is("prepare to nowhere", a.Prepare(ctx, "n", nics, "z"), nil)
		is("flip to nowhere", errors.Join(a.Flip(ctx, "m"), a.Flip(ctx, "n")), nil)
		w.settle()
		w.want(vmMAC, "a: a 8 confirmed l; b: a 8 confirmed l")
	})
}

// TestRevokeAfterRestart restarts the source's gateway between flip and revoke,
// while the line is away: its number is low and its job forgotten.
func TestRevokeAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 5 * time.Millisecond}, "a", "b")
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		nics := []l2ext.NIC{{MAC: vmMAC, Tap: "lan"}}
		check(t, w.ms["a"].Prepare(t.Context(), "j", nics, "b"))
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		w.want(vmMAC, "a: b 3 flipped j; b: b 3 flipped j")
		w.wire.Cut()
		w.stop["a"]()
		w.make("a")
		w.wire.Join(w.ms)
		w.start("a", []string{"a", "b"})
		w.settle()
		check(t, w.ms["a"].Prepare(t.Context(), "j", nics, "b"), w.ms["a"].Revoke(t.Context(), "j"))
		w.wire.Heal()
		w.settle()
		w.want(vmMAC, "a: a 4 confirmed j; b: a 4 confirmed j")
	})
}

// TestDigestMends loses announcements without anybody's knowledge.
func TestDigestMends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		w.wire.Mute(true)
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		w.want(vmMAC, "a: a 2 confirmed; b: nowhere")
		w.wire.Mute(false)
		w.pass(11 * time.Second)
		w.want(vmMAC, "a: a 2 confirmed; b: a 2 confirmed")
		_, before := w.wire.Sent()
		w.pass(time.Minute)
		if _, after := w.wire.Sent(); after-before > 2*(3*7+2) {
			t.Errorf("%d messages in a quiet minute; only ways, terms, digests and a key are due", after-before)
		}
	})
}

// TestReconcile lets the host refuse for a while.
func TestReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		w.hosts["b"].Refuse(errors.New("netlink is away"))
		w.appear("a", "lan", vmMAC, "")
		w.pass(2 * time.Second)
		if p := w.ms["b"].Segments()[0].Problem; !strings.Contains(p, "netlink is away") {
			t.Errorf("problem %q", p)
		}
		w.hosts["b"].Refuse(nil)
		w.pass(2 * time.Second)
		if s := w.hosts["b"].String(); !strings.Contains(s, "fdb lhvx100 "+vmMAC.String()+" site 16") {
			t.Errorf("host b is\n%s", s)
		}
		if p := w.ms["b"].Segments()[0].Problem; p != "" {
			t.Errorf("problem %q", p)
		}
	})
}

// TestFirewall has a machine drop what the gateway writes: an operator is told.
func TestFirewall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		w.pass(31 * time.Second)
		w.hosts["b"].Firewall()
		for range 30 {
			check(t, w.hosts["a"].Send("lan", frameTo(ether.Broadcast, vmMAC, 100)))
			w.settle()
		}
		w.pass(61 * time.Second)
		if p := w.ms["b"].Segments()[0].Problem; !strings.Contains(p, "firewall") {
			t.Errorf("problem %q", p)
		}
		if p := w.ms["a"].Segments()[0].Problem; p != "" {
			t.Errorf("problem %q", p)
		}
	})
}

// TestTwins puts the same MAC at two sites: after five moves it stays.
func TestTwins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		sites := []string{"a", "b"}
		for i := range 12 {
			w.appear(sites[i%2], "lan", vmMAC, "10.0.0.9")
			w.pass(3 * time.Second)
		}
		at := w.where(vmMAC)
		for i := range 12 {
			w.appear(sites[i%2], "lan", vmMAC, "10.0.0.9")
			w.pass(3 * time.Second)
		}
		if now := w.where(vmMAC); now != at {
			t.Errorf("it was %s and is %s", at, now)
		}
		a, b := w.ms["a"].Segments()[0], w.ms["b"].Segments()[0]
		if !strings.Contains(a.Problem+b.Problem, vmMAC.String()) || a.Counts[l2ext.Fenced]+b.Counts[l2ext.Fenced] == 0 {
			t.Errorf("problems %q, %q", a.Problem, b.Problem)
		}
	})
}

// TestApplyRefuses wishes that cannot be.
func TestApplyRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		good := segment("a", []string{"a", "b"})
		for name, change := range map[string]func(*l2ext.Segment){
			"VNI":         func(s *l2ext.Segment) { s.VNI = 0 },
			"big VNI":     func(s *l2ext.Segment) { s.VNI = 1 << 24 },
			"no name":     func(s *l2ext.Segment) { s.Name = "" },
			"long bridge": func(s *l2ext.Segment) { s.Bridge = "a-bridge-with-a-long-name" },
			"MTU":         func(s *l2ext.Segment) { s.MTU = 65000 },
			"itself":      func(s *l2ext.Segment) { s.Sites = []string{"a"} },
			"empty site":  func(s *l2ext.Segment) { s.Sites = []string{""} },
		} {
			s := good
			change(&s)
			if err := w.ms["a"].Apply(t.Context(), []l2ext.Segment{s}); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if err := w.ms["a"].Apply(t.Context(), []l2ext.Segment{good, good}); err == nil {
			t.Error("the same segment twice: no error")
		}
		if got := w.hosts["a"].String(); !strings.Contains(got, "port lhvx100 on br mtu 1500") {
			t.Errorf("a refused wish has changed the host:\n%s", got)
		}
		check(t, w.ms["a"].Apply(t.Context(), nil))
		if got := w.hosts["a"].String(); got != "bridge br adopted" {
			t.Errorf("host a is\n%s", got)
		}
		w.stop["a"]()
		if err := w.ms["a"].Apply(t.Context(), nil); !errors.Is(err, l2ext.ErrClosed) {
			t.Errorf("Apply after Run: %v", err)
		}
		if _, err := l2ext.New(l2ext.Config{}); err == nil {
			t.Error("New without anything: no error")
		}
	})
}

// TestSegmentKeepsBindings changes the sites of a segment.
func TestSegmentKeepsBindings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b", "c")
		other := l2ext.MAC{2, 0, 0, 0, 0, 2}
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		w.appear("c", "lan", other, "10.0.0.2")
		check(t, w.ms["a"].Apply(t.Context(), []l2ext.Segment{segment("a", []string{"a", "b"})}))
		w.settle()
		w.want(vmMAC, "a: a 2 confirmed; b: a 2 confirmed; c: a 2 confirmed")
		if got := w.hosts["a"].String(); strings.Contains(got, other.String()) {
			t.Errorf("a host of a site that left is still programmed:\n%s", got)
		}
		check(t, w.ms["a"].Apply(t.Context(), []l2ext.Segment{segment("a", []string{"a", "b", "c"})}))
		w.settle() // at once, not with the next digest
		w.want(other, "a: c 2 confirmed; b: c 2 confirmed; c: c 2 confirmed")
	})
}
