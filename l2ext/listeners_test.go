package l2ext_test

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// Messages about 239.1.2.3, which is 01:00:5e:01:02:03.
const (
	igmpJoin  = "01005e010203 020000000002 0800 46000020 00000000 0102 0000 0a000002 ef010203 94040000 1600 0000 ef010203"
	igmpLeave = "01005e000002 020000000002 0800 46000020 00000000 0102 0000 0a000002 e0000002 94040000 1700 0000 ef010203"
	igmpAsk   = "01005e000001 020000000003 0800 46000020 00000000 0102 0000 0a000003 e0000001 94040000 1164 0000 00000000"
)

// directWorld is a world in mode direct whose kernels send groups to listeners. Its
// underlay goes nowhere.
func directWorld(t *testing.T, sites ...string) *world {
	inMode(t, l2ext.Direct)
	w := emptyWorld(t, l2exttest.Line{Delay: time.Millisecond})
	w.first.Multicast = l2ext.MulticastListeners
	w.change = func(c *l2ext.Config) { c.Underlay = netip.AddrFrom4([4]byte{10, 78, 0, c.Site[0]}) }
	w.begin(sites)
	return w
}

// utter has a host of a site send a frame that is given in hexadecimal.
func (w *world) utter(site, text string) {
	w.t.Helper()
	f := unhex(w.t, text)
	check(w.t, w.hosts[site].Send("lan", append(f, make([]byte, max(0, 60-len(f)))...)))
}

// multicast tells what a site's kernel is to do with it.
func (w *world) multicast(site string) string {
	var lines []string
	for line := range strings.Lines(w.hosts[site].String()) {
		if strings.Contains(line, "group") || strings.Contains(line, "reports") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "; ")
}

// TestDirectListeners has hosts and routers of three sites speak of a group: each
// kernel is told where its frames go.
func TestDirectListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := directWorld(t, "a", "b", "c")
		want := func(when, a, b, c string) {
			t.Helper()
			w.pass(3 * time.Second)
			for site, want := range map[string]string{"a": a, "b": b, "c": c} {
				if got := w.multicast(site); got != want {
					t.Errorf("%s: %s has %q, want %q", when, site, got, want)
				}
			}
		}
		const group = "group 01:00:5e:01:02:03 to "
		w.utter("a", igmpAsk)
		w.utter("b", igmpJoin)
		want("a router begins to ask", "", "no reports [true false]", "no reports [true false]")
		w.pass(11 * time.Second)
		for range 5 {
			w.utter("a", igmpAsk)
			w.utter("b", igmpJoin)
			want("a gateway that has just started does not know all", group+"[16 17]", group+"[16 17]; no reports [true false]", group+"[16 17]; no reports [true false]")
			w.pass(57 * time.Second)
		}
		w.utter("a", igmpAsk)
		w.utter("b", igmpJoin)
		want("b listens", group+"[16]; only groups [true false]", group+"[16]; no reports [true false]", group+"[16 17]; no reports [true false]")
		w.utter("c", igmpAsk)
		want("a second router asks at c", group+"[16 17]", group+"[16 17]; no reports [true false]", group+"[16 17]")
		w.utter("b", igmpLeave)
		w.pass(6 * time.Second)
		want("b has left", "", group+"[16 17]; no reports [true false]", "") // the routers get all
		w.pass(5 * time.Minute)
		want("the routers are gone", "", "", "")

		// A site that tells nothing any more gets all.
		w.wire.Isolate("c")
		for range 6 {
			w.utter("a", igmpAsk)
			w.utter("b", igmpJoin)
			w.pass(time.Minute)
		}
		want("c is deaf", group+"[16 17]", group+"[16 17]; no reports [true false]", "")
		w.wire.Rejoin("c")
		want("c is back", group+"[16]; only groups [true false]", group+"[16]; no reports [true false]", "no reports [true false]")
	})
}

// TestHostileListeners: a peer that tells of more groups than are known gets all, and
// takes no memory. It does not say where frames go that all hosts hear.
func TestHostileListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := directWorld(t, "a", "b", "c")
		w.pass(4*time.Minute + 50*time.Second)
		w.utter("a", igmpAsk)
		w.pass(20 * time.Second) // what b and c really say comes every minute
		groups := make([]announce.MAC, announce.MaxGroups)
		for round := range 20 {
			for i := range groups {
				groups[i] = announce.MAC{1, 0, 0x5e, byte(round), 1 + byte(i>>8), byte(i)}
			}
			b, err := announce.Message{Kind: announce.Members, VNI: 100, Groups: groups}.Append(nil)
			check(t, err, w.ms["a"].HandleUrgent([]string{"b", "c"}[round%2], b))
		}
		w.pass(3 * time.Second)
		lines := strings.Split(w.multicast("a"), "; ")
		if len(lines) > announce.MaxGroups+2 {
			t.Errorf("%d groups are wished", len(lines))
		}
		if slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "only") }) {
			t.Error("what is not known goes nowhere")
		}
		good := announce.MAC{1, 0, 0x5e, 9, 9, 9}
		b, err := announce.Message{Kind: announce.Members, VNI: 100, Groups: []announce.MAC{good}}.Append(nil)
		check(t, err, w.ms["a"].HandleUrgent("c", b), w.ms["a"].HandleUrgent("b", b))
		w.pass(3 * time.Second)
		before := w.multicast("a")
		for _, g := range []announce.MAC{announce.MAC(ether.Broadcast), {1, 0x80, 0xc2, 0, 0, 0}, {1, 0, 0x5e, 0, 0, 1}, {0x33, 0x33, 0, 0, 0, 1}, {0x33, 0x33, 0xff, 1, 2, 3}} {
			if err := w.ms["a"].HandleUrgent("c", bytes.Replace(b, good[:], g[:], 1)); !errors.Is(err, announce.ErrFormat) {
				t.Errorf("group %x: %v", g, err)
			}
		}
		w.pass(3 * time.Second)
		if after := w.multicast("a"); after != before || !strings.Contains(after, l2ext.MAC(good).String()) {
			t.Errorf("a had %q, has %q", before, after)
		}
	})
}
