package l2ext_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestAnswers asks for hosts of the other site: nothing crosses. When that site
// is away for long, nobody answers for it.
func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		ip4, ip6 := netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fe80::9")
		me4, me6 := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fe80::7")
		w.appear("b", "lan", vmMAC, ip4.String())
		w.appear("b", "lan", vmMAC, ip6.String())
		w.appear("a", "lan", hostMAC, me4.String())
		w.appear("a", "lan", hostMAC, me6.String())
		w.receive("a", "lan", vmMAC)
		sent := func() int { return w.count("a", l2ext.Sent) + w.count("b", l2ext.Sent) }
		before := sent()
		ask := func(target, sender netip.Addr) [][]byte {
			check(t, w.hosts["a"].Send("lan", ether.AppendQuestion(nil, hostMAC, ether.Question{Target: target, Sender: sender, Probe: !sender.IsValid()})))
			w.settle()
			return w.receive("a", "lan", vmMAC)
		}
		for _, tt := range []struct{ target, sender netip.Addr }{{ip4, me4}, {ip6, me6}} {
			got := ask(tt.target, tt.sender)
			if len(got) != 1 {
				t.Fatalf("%d answers for %v", len(got), tt.target)
			}
			h, _ := ether.Parse(got[0])
			if c, ok := ether.Snoop(h, got[0]); !ok || c.IP != tt.target || h.Dst != hostMAC {
				t.Errorf("the answer says %+v to %v", c, h.Dst)
			}
		}
		for range 5 { // what tells nothing new does not cross either
			w.appear("b", "lan", vmMAC, ip4.String())
			w.appear("b", "lan", vmMAC, "")
		}
		if now := sent(); now != before {
			t.Errorf("%d frames crossed", now-before)
		}
		// Who wants the address for itself hears of its owner, not of us.
		if got := ask(ip4, netip.Addr{}); len(got) != 0 {
			t.Error("a probe was answered")
		}
		if now := sent(); now != before+1 {
			t.Errorf("a probe made %d frames", now-before)
		}
		if got := ask(netip.MustParseAddr("10.0.0.55"), me4); len(got) != 0 {
			t.Error("an unknown address was answered for")
		}
		if now := sent(); now != before+2 {
			t.Error("the question for an unknown address has not crossed")
		}
		w.wire.Cut()
		w.pass(2 * time.Second)
		if got := ask(ip4, me4); len(got) != 1 {
			t.Error("a short outage ended the answers")
		}
		w.pass(2 * time.Second)
		if got := ask(ip4, me4); len(got) != 0 {
			t.Error("a site that is away is still answered for")
		}
		w.wire.Heal()
		w.settle()
		if got := ask(ip4, me4); len(got) != 1 {
			t.Error("no answer after the outage")
		}
	})
}

// TestAddressInUse has a host want an IPv6 address that one of another site has. That one's objection is to all, and crosses, once, to
// the site that has asked.
func TestAddressInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		ip := netip.MustParseAddr("fe80::9")
		w.appear("b", "lan", vmMAC, ip.String())
		w.appear("a", "lan", hostMAC, "fe80::7")
		crossed := func() (n [2]int) {
			w.settle()
			return [2]int{len(w.receive("a", "lan", vmMAC)), len(w.receive("c", "lan", vmMAC))}
		}
		object := func() { check(t, w.hosts["b"].Send("lan", ether.AppendAnnounce(nil, vmMAC, ip))) } // as it would
		ask := func() {
			w.receive("b", "lan", hostMAC)
			check(t, w.hosts["a"].Send("lan", ether.AppendQuestion(nil, hostMAC, ether.Question{Target: ip, Probe: true})))
			w.pass(21 * time.Millisecond)
			if n := len(w.receive("b", "lan", hostMAC)); n != 1 {
				t.Errorf("the owner was asked %d times", n)
			}
		}
		crossed()
		ask()
		object()
		if got := crossed(); got != [2]int{1, 0} {
			t.Errorf("%d objections came to a and c", got)
		}
		object()
		if got := crossed(); got != [2]int{} {
			t.Errorf("%d more that nobody had asked for", got)
		}
		ask()
		w.pass(3 * time.Second)
		object()
		if got := crossed(); got != [2]int{} {
			t.Errorf("%d when nobody waited for them any more", got)
		}
		for n := range 300 { // others are asked for as well
			probe := ether.AppendQuestion(nil, hostMAC, ether.Question{Target: netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 14: byte(n >> 8), 15: byte(n)}), Probe: true})
			w.ms["a"].Forge(100, "b", probe, false)
		}
		w.pass(3 * time.Second)
		ask()
		object()
		if got := crossed(); got != [2]int{1, 0} {
			t.Errorf("after many questions %d objections came to a and c", got)
		}
	})
}

// TestAddressIsLetGoFirst: the site of the old owner may be nearer than that of
// the new one, so that an address is nobody's before it is another's. Hosts are
// told all the same, unless it comes back to where it was, or is new.
func TestAddressIsLetGoFirst(t *testing.T) {
	ip, late := netip.MustParseAddr("10.0.0.9"), 2*time.Second
	for _, tt := range []struct {
		name  string
		site  string
		taker l2ext.MAC
		after time.Duration
		told  bool
	}{
		{"another host", "c", hostMAC, late, true},
		{"the same host", "b", vmMAC, late, false},
		{"another host, long after", "c", hostMAC, 15 * time.Second, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, l2exttest.Line{}, "a", "b", "c")
			say := func(r announce.Record) {
				b, err := announce.Message{Kind: announce.Update, VNI: 100, Records: []announce.Record{r}}.Append(nil)
				check(t, err)
				check(t, w.ms["a"].HandleUrgent(r.Site, b))
				synctest.Wait()
			}
			say(announce.Record{MAC: vmMAC, Cause: announce.Learned, Seq: 1, Site: "b", IPs: []netip.Addr{ip}})
			say(announce.Record{MAC: vmMAC, Cause: announce.Learned, Seq: 2, Site: "b"})
			w.pass(tt.after)
			w.receive("a", "lan", tt.taker)
			say(announce.Record{MAC: tt.taker, Cause: announce.Learned, Seq: 3, Site: tt.site, IPs: []netip.Addr{ip}})
			if got := w.receive("a", "lan", tt.taker); (len(got) > 0) != tt.told {
				t.Errorf("%s: told by %d frames", tt.name, len(got))
			}
		})
	}
}

// TestAddressChangesOwner has another host take an address over: hosts of the
// other site are told.
func TestAddressChangesOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b", "c")
		w.appear("b", "lan", vmMAC, "10.0.0.9")
		w.receive("a", "lan", hostMAC)
		w.appear("c", "lan", hostMAC, "10.0.0.9")
		for _, s := range []string{"a", "b"} {
			if got := w.receive(s, "lan", hostMAC); len(got) == 0 {
				t.Errorf("LAN %s was not told", s)
			}
			if b, _ := binding(w.ms[s], vmMAC); len(b.IPs) != 0 {
				t.Errorf("at %s the old owner has %v", s, b.IPs)
			}
			if b, _ := binding(w.ms[s], hostMAC); len(b.IPs) != 1 {
				t.Errorf("at %s the new owner has %v", s, b.IPs)
			}
		}
	})
}

// TestNoAnswerForLeft has a site lose a segment without a word, as by a restart with another
// config: with its link up, nobody answers for its hosts any more.
func TestNoAnswerForLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		ip, me := netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("10.0.0.7")
		w.appear("b", "lan", vmMAC, ip.String())
		w.appear("a", "lan", hostMAC, me.String())
		ask := func() int {
			w.receive("a", "lan", vmMAC)
			check(t, w.hosts["a"].Send("lan", ether.AppendQuestion(nil, hostMAC, ether.Question{Target: ip, Sender: me})))
			w.settle()
			return len(w.receive("a", "lan", vmMAC))
		}
		w.pass(time.Minute)
		if n := ask(); n != 1 {
			t.Errorf("%d answers while b has the segment", n)
		}
		check(t, w.ms["b"].Apply(t.Context(), nil))
		w.pass(time.Minute)
		if n := ask(); n != 0 {
			t.Errorf("%d answers for a host of a site without the segment", n)
		}
		check(t, w.ms["b"].Apply(t.Context(), []l2ext.Segment{segment("b", []string{"a", "b"})}))
		w.appear("b", "lan", vmMAC, ip.String())
		if n := ask(); n != 1 {
			t.Errorf("%d answers when b has it again", n)
		}
	})
}
