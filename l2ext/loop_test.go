package l2ext_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
	loopprobe "github.com/longhaul-project/longhaul/l2ext/probe"
)

// backDoor carries what one LAN port gets to another, both ways, until all is
// carried; it is a cable between two sites.
func (w *world) backDoor(a, b string) {
	for moved := true; moved; {
		moved = false
		for _, way := range [][2]string{{a, b}, {b, a}} {
			for f := w.hosts[way[0]].Receive("lan"); f != nil; f = w.hosts[way[0]].Receive("lan") {
				check(w.t, w.hosts[way[1]].Send("lan", f))
				moved = true
			}
		}
	}
	synctest.Wait()
}

func (w *world) problem(site string) string { return w.ms[site].Segments()[0].Problem }

func (w *world) countOf(site string, c l2ext.Count) uint64 { return w.ms[site].Segments()[0].Counts[c] }

// TestBackDoor joins the LANs of two of three sites. The one with the higher
// name shuts its broadcast at once, and opens it again when the cable is gone.
func TestBackDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		w.pass(time.Minute) // at first probes come often in any case
		if p := w.problem("a") + w.problem("b") + w.problem("c"); p != "" {
			t.Fatalf("without a cable: %s", p)
		}
		for _, site := range []string{"a", "b"} { // what was sent before there was a cable
			for w.hosts[site].Receive("lan") != nil {
			}
		}
		w.backDoor("a", "b")
		plugged := time.Now()
		for w.problem("b") == "" && time.Since(plugged) < 5*time.Second {
			w.pass(10 * time.Millisecond)
			w.backDoor("a", "b")
		}
		// A probe comes every 100 ms, and the word of the other site
		// needs 20 ms.
		if took := time.Since(plugged); took > 200*time.Millisecond {
			t.Errorf("found after %v", took)
		}
		w.pass(100 * time.Millisecond)
		if a, b := w.problem("a"), w.problem("b"); !strings.Contains(b, "shut at this site") || !strings.Contains(a, "shut at site b") || w.problem("c") != "" {
			t.Errorf("a: %q, b: %q, c: %q", a, b, w.problem("c"))
		}
		// One broadcast in c makes one copy, by way of a.
		host := l2ext.MAC{2, 0, 0, 0, 0, 0xc}
		w.receive("a", "lan", host)
		check(t, w.hosts["c"].Send("lan", frameTo(ether.Broadcast, host, 100)))
		w.settle()
		if a, b := w.receive("a", "lan", host), w.receive("b", "lan", host); len(a) != 1 || len(b) != 0 {
			t.Errorf("%d copies at a, %d at b", len(a), len(b))
		}
		// An echo of a host of a moves no binding.
		at := w.where(vmMAC)
		check(t, w.hosts["b"].Send("lan", ether.AppendAnnounce(nil, vmMAC, netip.MustParseAddr("10.0.0.9"))))
		w.settle()
		if now := w.where(vmMAC); now != at {
			t.Errorf("an echo has moved\n%s to\n%s", at, now)
		}
		// As long as the cable is there it stays shut, and a minute longer.
		for range 100 {
			w.pass(time.Second)
			w.backDoor("a", "b")
		}
		if p := w.problem("b"); !strings.Contains(p, "shut") {
			t.Errorf("b: %q", p)
		}
		w.pass(61 * time.Second)
		if p := w.problem("a") + w.problem("b"); strings.Contains(p, "joined") {
			t.Errorf("the cable is gone: %q", p)
		}
		if w.countOf("b", l2ext.LoopTrips) != 1 || w.countOf("b", l2ext.DropShut) == 0 {
			t.Errorf("counts of b: %v", w.ms["b"].Segments()[0].Counts)
		}
	})
}

// TestBackDoorThirdSite has a host of a third site speak to all while the LANs of two
// are joined: each of them hears it from its LAN as well, and neither takes it.
func TestBackDoorThirdSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		w.appear("c", "lan", vmMAC, "10.0.0.9")
		w.pass(2 * time.Second)
		w.backDoor("a", "b")
		for w.problem("a") == "" || w.problem("b") == "" {
			w.pass(100 * time.Millisecond)
			w.backDoor("a", "b")
		}
		w.settle() // one may have taken it before that was known
		at := w.where(vmMAC)
		if strings.Count(at, ": c ") != 3 {
			t.Fatalf("the host of c is at %s", at)
		}
		for i := range 20 {
			check(t, w.hosts["c"].Send("lan", frameTo(ether.Broadcast, vmMAC, 100+i)))
			w.pass(1500 * time.Millisecond) // longer than a binding must be old to be taken away by a frame
			w.backDoor("a", "b")
			w.pass(100 * time.Millisecond)
		}
		if now := w.where(vmMAC); now != at {
			t.Errorf("the host was taken from\n%s to\n%s", at, now)
		}
	})
}

// TestTakenBeforeJoint has hosts heard at a site to whose LAN a cable has just been
// plugged, before anybody can know of it: as soon as it is known they are where they were.
// Another that has come without a job some time ago stays.
func TestTakenBeforeJoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		other, came := l2ext.MAC{2, 0, 0, 0, 0, 7}, l2ext.MAC{2, 0, 0, 0, 0, 8}
		w.appear("b", "lan", vmMAC, "10.0.0.9")
		w.appear("c", "lan", other, "10.0.0.7")
		w.appear("c", "lan", came, "10.0.0.8")
		w.pass(2 * time.Second)
		w.appear("a", "lan", came, "10.0.0.8")
		w.pass(time.Minute)
		for _, mac := range []l2ext.MAC{vmMAC, other} { // by the cable
			check(t, w.hosts["a"].Send("lan", frameTo(ether.Broadcast, mac, 100)))
		}
		w.pass(100 * time.Millisecond)
		if got := w.where(vmMAC) + w.where(other); strings.Count(got, ": a ") != 6 {
			t.Fatalf("before the joint is known: %s", got)
		}
		for w.problem("a") == "" || w.problem("b") == "" {
			w.backDoor("a", "b")
			w.pass(100 * time.Millisecond)
		}
		w.settle()
		for mac, site := range map[l2ext.MAC]string{vmMAC: "b", other: "c", came: "a"} {
			if got := w.where(mac); strings.Count(got, ": "+site+" ") != 3 {
				t.Errorf("%v of %s is at %s", mac, site, got)
			}
		}
		if s := w.hosts["a"].String(); !strings.Contains(s, "fdb lhvx100 "+vmMAC.String()) || !strings.Contains(s, "fdb lhvx100 "+other.String()) {
			t.Errorf("host a is\n%s", s)
		}
	})
}

// TestSecondGateway has another gateway of a site on its LAN, which brings there what
// comes from other sites as well: an operator is told, nothing is shut, and no host of
// another site is taken for one of this until it announces itself here: a guest may have
// sent such a probe.
func TestSecondGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b")
		w.appear("b", "lan", vmMAC, "10.0.0.9")
		w.pass(2 * time.Second)
		at := w.where(vmMAC)
		for i := range 10 {
			p := loopprobe.Probe{Src: loopprobe.SourceOf([3]byte{1, 2, 3}), VNI: 100, Nonce: uint64(i), Site: "a"}
			check(t, w.hosts["a"].Send("lan", p.Append(nil, loopprobe.Key{9})))
			w.pass(500 * time.Millisecond)
			check(t, w.hosts["a"].Send("lan", frameTo(ether.Broadcast, vmMAC, 100)))
			w.pass(500 * time.Millisecond)
		}
		if got := w.problem("a"); !strings.Contains(got, "another gateway of this site") {
			t.Errorf("problem %q", got)
		}
		if now := w.where(vmMAC); now != at {
			t.Errorf("the host was taken from\n%s to\n%s", at, now)
		}
		host := l2ext.MAC{2, 0, 0, 0, 0, 1}
		check(t, w.hosts["a"].Send("lan", frameTo(ether.Broadcast, host, 100)))
		w.settle()
		if got := w.receive("b", "lan", host); len(got) != 1 {
			t.Errorf("%d broadcasts crossed", len(got))
		}
		if got := w.countOf("a", l2ext.LoopTrips); got != 1 {
			t.Errorf("%d trips", got)
		}
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		if now := w.where(vmMAC); strings.Count(now, ": a ") != 2 {
			t.Errorf("it came here, and is at %s", now)
		}
		w.pass(61 * time.Second)
		if got := w.problem("a"); got != "" {
			t.Errorf("it is gone: %q", got)
		}
	})
}

// TestForgedProbes sends into a LAN what is no probe of another gateway: a
// recorded one, one with another key, garbage. And a probe does not cross.
func TestForgedProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		w.pass(time.Second)
		var recorded []byte
		for f := w.hosts["a"].Receive("lan"); f != nil; f = w.hosts["a"].Receive("lan") {
			if loopprobe.Is(f) {
				recorded = f
			}
		}
		p, err := loopprobe.Parse(recorded)
		if err != nil || p.Site != "a" || p.VNI != 100 {
			t.Fatalf("probe %+v, %v", p, err)
		}
		w.pass(3 * time.Minute)
		p.Nonce += 1000
		for _, f := range [][]byte{recorded, p.Append(nil, loopprobe.Key{1}), recorded[:20], append(bytes.Clone(recorded[:30]), make([]byte, 40)...)} {
			check(t, w.hosts["b"].Send("lan", f))
		}
		w.settle()
		if got := w.problem("a") + w.problem("b"); strings.Contains(got, "joined") {
			t.Errorf("a forged probe was believed: %s", got)
		}
		for f := w.hosts["b"].Receive("lan"); f != nil; f = w.hosts["b"].Receive("lan") {
			if p, err := loopprobe.Parse(f); err == nil && p.Site != "b" {
				t.Error("a probe has crossed")
			}
		}
		say := func(site string) {
			b, err := announce.Message{Kind: announce.Loop, VNI: 100, Site: site}.Append(nil)
			check(t, err, w.ms["b"].HandleUrgent("a", b))
		}
		say("b") // for another's LAN
		w.settle()
		if got := w.problem("b"); strings.Contains(got, "joined") {
			t.Errorf("a site has spoken for another: %s", got)
		}
		say("a")
		w.settle()
		if got := w.problem("b"); !strings.Contains(got, "shut at this site") {
			t.Errorf("problem %q", got)
		}
	})
}

// TestOwnLoop gives a site what it has sent into its LAN: it is told, and goes on.
func TestOwnLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		w.hosts["a"].Plug("br", "lan2")
		w.pass(time.Second)
		check(t, w.hosts["a"].Send("lan2", w.hosts["a"].Receive("lan")))
		w.settle()
		if got := w.problem("a"); !strings.Contains(got, "circle") {
			t.Errorf("problem %q", got)
		}
		host := l2ext.MAC{2, 0, 0, 0, 0, 1}
		check(t, w.hosts["a"].Send("lan", frameTo(ether.Broadcast, host, 100)))
		w.settle()
		if got := w.receive("b", "lan", host); len(got) != 1 {
			t.Errorf("%d broadcasts crossed", len(got))
		}
	})
}

// TestFlapping has no probes pass the back door, as behind a switch that filters
// them: the frames of one host that come from both sides tell the same.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b")
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		for i := range 15 {
			f := frameTo(ether.Broadcast, vmMAC, 100+i)
			check(t, w.hosts["a"].Send("lan", f))
			w.pass(5 * time.Millisecond)
			check(t, w.hosts["b"].Send("lan", f))
			w.pass(5 * time.Millisecond)
		}
		a, b := w.problem("a"), w.problem("b")
		if !strings.Contains(a+b, vmMAC.String()) || !strings.Contains(b, "shut at this site") {
			t.Errorf("problems %q, %q", a, b)
		}
	})
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	check(t, err)
	return b
}

// TestPolicy sends what a policy may keep at its site.
func TestPolicy(t *testing.T) {
	const from = "525400000009"
	advert := "333300000001" + from + "86dd 60000000 0008 3a ff fe800000000000005054 00fffe000009 ff020000000000000000000000000001 86000000 00000000"
	hello := "01005e000012" + from + "0800 45000000 00000000 ff70 0000 0a000001 e0000012 31010000 00000000"
	dhcp := "ffffffffffff" + from + "0800 45000000 00000000 ff11 0000 00000000 ffffffff 00440043 00000000"
	virtual := "ffffffffffff 00005e000107 88b6"
	bpdu := "0180c2000000" + from + "0026 424203 0000000000"
	for _, tt := range []struct {
		name   string
		policy l2ext.Policy
		cross  string // of advert, hello, dhcp, virtual, bpdu
	}{
		{"home", l2ext.Policy{}, "10110"},
		{"anycast", l2ext.Policy{Gateway: l2ext.GatewayAnycast}, "00000"},
		{"all", l2ext.Policy{Gateway: l2ext.GatewayAnycast, FHRP: l2ext.Cross, DHCP: l2ext.Cross, RouterAdverts: l2ext.Cross}, "11110"},
		{"none", l2ext.Policy{FHRP: l2ext.Local, DHCP: l2ext.Local, RouterAdverts: l2ext.Local}, "00010"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, l2exttest.Line{}, "a", "b")
			for _, site := range []string{"a", "b"} {
				s := segment(site, []string{"a", "b"})
				s.Policy = tt.policy
				check(t, w.ms[site].Apply(t.Context(), []l2ext.Segment{s}))
			}
			got := ""
			for _, text := range []string{advert, hello, dhcp, virtual, bpdu} {
				f := unhex(t, text)
				check(t, w.hosts["a"].Send("lan", append(f, make([]byte, max(0, 60-len(f)))...)))
				w.settle()
				got += fmt.Sprint(len(w.receive("b", "lan", l2ext.MAC(f[6:12]))))
			}
			if got != tt.cross {
				t.Errorf("%s: %s crossed, want %s", tt.name, got, tt.cross)
			}
		})
	}
	for _, p := range []l2ext.Policy{{Unknown: "x"}, {Multicast: "x"}, {Gateway: "x"}, {DHCP: "x"}, {Limits: l2ext.Limits{Resolve: -1}}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, l2exttest.Line{}, "a", "b")
			s := segment("a", []string{"a", "b"})
			s.Policy = p
			if err := w.ms["a"].Apply(t.Context(), []l2ext.Segment{s}); err == nil {
				t.Errorf("%+v was taken", p)
			}
		})
	}
}

// TestListeners sends multicast to three sites while hosts join and leave.
func TestListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b", "c")
		group, src := l2ext.MAC{1, 0, 0x5e, 1, 2, 3}, l2ext.MAC{2, 0, 0, 0, 0, 1}
		send := func(site, text string) {
			f := unhex(t, text)
			check(t, w.hosts[site].Send("lan", append(f, make([]byte, max(0, 60-len(f)))...)))
			w.settle()
		}
		reach := func() (sites string) {
			check(t, w.hosts["a"].Send("lan", frameTo(group, src, 100)))
			w.settle()
			for _, site := range []string{"b", "c"} {
				if len(w.receive(site, "lan", src)) > 0 {
					sites += site
				}
			}
			return sites
		}
		want := func(when, want string) {
			t.Helper()
			if got := reach(); got != want {
				t.Errorf("%s: reached %q, want %q", when, got, want)
			}
		}
		const host, hostC, router = "020000000002", "020000000004", "020000000003"
		report := "01005e010203" + host + "0800 46000020 00000000 0102 0000 0a000002 ef010203 94040000 1600 0000 ef010203"
		leave := "01005e000002" + host + "0800 46000020 00000000 0102 0000 0a000002 e0000002 94040000 1700 0000 ef010203"
		query := "01005e000001" + router + "0800 46000020 00000000 0102 0000 0a000003 e0000001 94040000 1164 0000 00000000"
		queryOne := "01005e010204" + router + "0800 46000020 00000000 0102 0000 0a000003 ef010204 94040000 1164 0000 ef010204"
		want("before anything", "bc")
		send("b", report)
		want("while no router asks", "bc")
		send("a", queryOne)
		w.pass(12 * time.Second)
		want("somebody asks for one group at a", "bc")
		send("a", query)
		want("a router begins to ask at a", "bc") // who listens to the group at c may yet say so
		w.pass(11 * time.Second)
		want("a router asks at a", "b")
		if got := w.receive("a", "lan", l2ext.MAC{2, 0, 0, 0, 0, 2}); len(got) == 0 {
			t.Error("the router's LAN has not got the report")
		}
		reportC := strings.ReplaceAll(report, host, hostC)
		send("c", reportC)
		want("c joins", "bc")
		w.receive("b", "lan", l2ext.MAC{2, 0, 0, 0, 0, 4})
		send("c", reportC)
		if got := w.receive("b", "lan", l2ext.MAC{2, 0, 0, 0, 0, 4}); len(got) != 0 {
			t.Error("a report silences the hosts of b")
		}
		send("b", leave)
		w.pass(6 * time.Second)
		want("b has left", "c")
		w.pass(2 * time.Minute)
		send("a", query)
		w.pass(150 * time.Second)
		want("c has not answered", "")
		w.pass(3 * time.Minute)
		want("the router is gone", "bc")
		if w.countOf("a", l2ext.DropNoListener) == 0 {
			t.Error("nothing is counted")
		}
	})
}

// TestBackDoorAfterRestart restarts a gateway: its probes count anew, and must
// be believed all the same.
func TestBackDoorAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		w.pass(5 * time.Minute)
		w.backDoor("a", "b") // once, so that b knows a high number
		w.settle()
		w.pass(2 * time.Minute)
		w.wire.Cut()
		w.stop["a"]()
		w.make("a")
		w.wire.Join(w.ms)
		w.start("a", []string{"a", "b"})
		w.wire.Heal()
		w.pass(time.Second)
		if got := w.problem("b"); strings.Contains(got, "joined") {
			t.Fatalf("before the cable is back: %q", got)
		}
		w.backDoor("a", "b")
		w.pass(time.Second)
		if got := w.problem("b"); !strings.Contains(got, "shut at this site") {
			t.Errorf("problem %q", got)
		}
	})
}
