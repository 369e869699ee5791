package l2ext_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/fast"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestExpressCarries sends frames, small, full and as the kernel has them, over
// rekeying and over a line that was away.
func TestExpressCarries(t *testing.T) {
	inMode(t, l2ext.SecureFast)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		w.appear("b", "lan", hostOf("b"), "10.0.0.2")
		said := 0
		say := func(n int) {
			t.Helper()
			for w.hosts["b"].Receive("lan") != nil {
			}
			said++
			check(t, w.hosts["a"].Send("lan", frameTo(hostOf("b"), hostOf("a"), n)))
			w.pass(50 * time.Millisecond)
			for f := w.hosts["b"].Receive("lan"); f != nil; f = w.hosts["b"].Receive("lan") {
				if len(f) == n {
					return
				}
			}
			t.Errorf("a frame of %d bytes did not arrive; a: %v", n, w.ms["a"].Segments()[0].Problem)
		}
		for _, n := range []int{60, 1400, 1514} {
			say(n)
		}
		for range 10 { // of rekeying
			w.pass(time.Minute)
			say(1514)
		}
		w.wire.Cut()
		w.pass(10 * time.Second)
		check(t, w.hosts["a"].Send("lan", frameTo(hostOf("b"), hostOf("a"), 100)))
		w.settle()
		if w.count("a", l2ext.DropPeerDown) == 0 || !strings.Contains(w.ms["a"].Segments()[0].Problem, "secure-fast to site b does not work") {
			t.Errorf("without a line: %q", w.ms["a"].Segments()[0].Problem)
		}
		w.wire.Heal()
		w.pass(3 * time.Second)
		say(1514)
		if p := w.ms["a"].Segments()[0].Problem; p != "" {
			t.Errorf("healed: %q", p)
		}
		if frames := w.count("b", l2ext.Received); frames < said {
			t.Errorf("%d frames were received, %d sent", frames, said)
		}
		for _, c := range []l2ext.Count{l2ext.DropForged, l2ext.DropReplayed, l2ext.DropPart, l2ext.DropMalformed} {
			if n := w.count("b", c); n != 0 {
				t.Errorf("%d %v on a good line", n, c)
			}
		}
	})
}

// TestExpressModes: a site with another mode gets nothing, and both say so.
func TestExpressModes(t *testing.T) {
	inMode(t, l2ext.Secure)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		s := segment("a", []string{"a", "b"})
		s.Mode = l2ext.SecureFast
		check(t, w.ms["a"].Apply(t.Context(), []l2ext.Segment{s}))
		w.appear("b", "lan", hostOf("b"), "10.0.0.2")
		w.pass(10 * time.Second)
		check(t, w.hosts["a"].Send("lan", frameTo(hostOf("b"), hostOf("a"), 100)), w.hosts["b"].Send("lan", frameTo(hostOf("a"), hostOf("b"), 100)))
		w.settle()
		if n := w.count("a", l2ext.Sent) + w.count("a", l2ext.Received) + w.count("b", l2ext.Received); n != 0 {
			t.Errorf("%d frames crossed", n)
		}
		if p := w.ms["a"].Segments()[0].Problem; !strings.Contains(p, "mode secure") {
			t.Errorf("problem of a: %q", p)
		}
		s.Mode = l2ext.Secure // and back
		check(t, w.ms["a"].Apply(t.Context(), []l2ext.Segment{s}))
		w.settle()
		check(t, w.hosts["a"].Send("lan", frameTo(hostOf("b"), hostOf("a"), 100)))
		w.settle()
		if w.count("b", l2ext.Received) == 0 || w.ms["a"].Segments()[0].Problem != "" {
			t.Errorf("back in mode secure: %q", w.ms["a"].Segments()[0].Problem)
		}
	})
}

// TestExpressStrangers: datagrams of nobody are counted and change nothing.
func TestExpressStrangers(t *testing.T) {
	inMode(t, l2ext.SecureFast)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		w.pass(2 * time.Second)
		var seen [][]byte
		w.wire.Watch(func(b []byte) { seen = append(seen, append([]byte(nil), b...)) })
		w.pass(3 * time.Second)
		w.wire.Watch(nil)
		if len(seen) == 0 {
			t.Fatal("no hello was sent")
		}
		for _, d := range seen {
			for _, to := range []string{"a", "b"} {
				if site := w.wire.Inject(to, d, 1452); site != "" {
					t.Errorf("a replay was taken for one of %s", site)
				}
			}
			d[len(d)-1] ^= 1
			d[15] ^= 0x40 // as if it came later
			for _, to := range []string{"a", "b"} {
				if site := w.wire.Inject(to, d, 1452); site != "" {
					t.Errorf("a forgery was taken for one of %s", site)
				}
			}
			w.wire.Inject("a", d[:len(d)%fast.Overhead], 1)
		}
		forged, replayed := w.count("a", l2ext.DropForged)+w.count("b", l2ext.DropForged), w.count("a", l2ext.DropReplayed)+w.count("b", l2ext.DropReplayed)
		if forged == 0 || replayed == 0 {
			t.Errorf("%d forged, %d replayed were counted", forged, replayed)
		}
		w.pass(5 * time.Second)
		if p := w.ms["a"].Segments()[0].Problem; p != "" {
			t.Errorf("strangers have broken it: %q", p)
		}
		// A peer may say what it likes about epochs: the last is used, if it is newer.
		b, err := announce.Message{Kind: announce.Express, VNI: 100, Root: 99, Epoch: 1 << 60, Index: 1}.Append(nil)
		check(t, err, w.ms["a"].HandleUrgent("b", b))
		w.pass(5 * time.Second)
		if p := w.ms["a"].Segments()[0].Problem; p != "" {
			t.Errorf("an offer for another connection has broken it: %q", p)
		}
	})
}

// FuzzHandleExpress: nothing that comes makes it panic, or is taken for a peer's.
func FuzzHandleExpress(f *testing.F) {
	f.Add([]byte{0x1c, 1, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0}, 16)
	f.Add(make([]byte, 3000), 1452)
	wire, h := l2exttest.NewWire(l2exttest.Line{}), l2exttest.NewHost()
	m, err := l2ext.New(l2ext.Config{Site: "a", Host: h, Carrier: wire.End("a"), Express: wire.Express("a")})
	check(f, err)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if site := m.HandleExpress(b, size); site != "" {
			t.Errorf("%x is of %s", b, site)
		}
	})
}
