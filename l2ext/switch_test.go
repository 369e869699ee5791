package l2ext_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/fast"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

var (
	hostMAC = l2ext.MAC{2, 0, 0, 0, 0, 0xa} // of a site that its last byte names
	nics    = []l2ext.NIC{{MAC: vmMAC, Tap: "vm"}}
)

// switching is a world in which a VM at a is about to move to b, where its port
// waits.
func switching(t *testing.T, line l2exttest.Line, sites ...string) *world {
	t.Helper()
	w := newWorld(t, line, sites...)
	w.toSwitch(sites...)
	return w
}

// toSwitch prepares that in a world.
func (w *world) toSwitch(sites ...string) {
	t := w.t
	t.Helper()
	w.hosts["a"].Plug("br", "vm")
	w.hosts["b"].Plug("br", "vm")
	w.appear("a", "vm", vmMAC, "10.0.0.9")
	for _, s := range sites {
		w.appear(s, "lan", hostOf(s), "10.0.0."+fmt.Sprint(s[0]))
	}
	check(t, w.ms["a"].Prepare(t.Context(), "j", nics, "b"))
	w.settle()
	check(t, w.ms["b"].Expect(t.Context(), "j", nics), w.ms["b"].Expect(t.Context(), "j", nics))
	for _, s := range sites { // what was said until now
		for _, port := range []string{"lan", "vm"} {
			for w.hosts[s].Receive(port) != nil {
			}
		}
	}
}

func hostOf(site string) l2ext.MAC {
	m := hostMAC
	m[5] = site[0]
	return m
}

// say has a host of a site send a numbered frame to the VM.
func (w *world) say(site string, n int) {
	w.t.Helper()
	f := frameTo(vmMAC, hostOf(site), 100)
	f[14] = byte(n)
	check(w.t, w.hosts[site].Send("lan", f))
	w.pass(time.Millisecond)
}

// told lists the numbers of the frames from all hosts that have come to a port.
func (w *world) told(site, port string) (numbers []int) {
	for f := w.hosts[site].Receive(port); f != nil; f = w.hosts[site].Receive(port) {
		if l2ext.MAC(f[:6]) == vmMAC && f[12] == 0x88 {
			numbers = append(numbers, int(f[14]))
		}
	}
	return numbers
}

func (w *world) count(site string, c l2ext.Count) int {
	return int(w.ms[site].Segments()[0].Counts[c])
}

// TestParking sends to a VM from its source, its destination and a third site
// while it is paused: all frames reach it, in order, when it runs.
func TestParking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		w.hosts["a"].Unplug("br", "vm")
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		for n := range 20 { // the first of them are on their way by a
			for _, s := range []string{"a", "b", "c"} {
				w.say(s, n)
			}
		}
		w.settle()
		if got := w.told("b", "vm"); got != nil {
			t.Errorf("the paused VM got %v", got)
		}
		check(t, w.ms["b"].Settle(t.Context(), "j", nics))
		w.settle()
		var bySite [3][]int
		for f := w.hosts["b"].Receive("vm"); f != nil; f = w.hosts["b"].Receive("vm") {
			if i := int(f[11]) - 'a'; l2ext.MAC(f[:6]) == vmMAC && i >= 0 && i < 3 {
				bySite[i] = append(bySite[i], int(f[14]))
			}
		}
		for i, got := range bySite {
			if len(got) != 20 || !slices.IsSorted(got) {
				t.Errorf("from %c: %v", 'a'+i, got)
			}
		}
		if p, r := w.count("b", l2ext.Parked), w.count("b", l2ext.Released); p != 60 || r != 60 {
			t.Errorf("%d frames were parked, %d released", p, r)
		}
		w.say("b", 99) // the kernel finds it by itself now
		if got := w.told("b", "vm"); !slices.Equal(got, []int{99}) {
			t.Errorf("after the move it got %v", got)
		}
		if s := w.hosts["b"].String(); strings.Contains(s, vmMAC.String()) || strings.Contains(s, "muted") {
			t.Errorf("host b is\n%s", s)
		}
	})
}

// TestParkedGoBack revokes a move: frames that waited follow the VM.
func TestParkedGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 20 * time.Millisecond
		w := switching(t, l2exttest.Line{Delay: delay}, "a", "b", "c")
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.pass(delay)
		for n := range 10 {
			w.say("c", n)
		}
		w.settle()
		check(t, w.ms["a"].Revoke(t.Context(), "j"))
		w.say("c", 10) // still sent to b, and from there on
		w.pass(3 * delay)
		if got := w.told("a", "vm"); !slices.Equal(got, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}) {
			t.Errorf("the VM got %v", got)
		}
		w.want(vmMAC, "a: a 5 confirmed j; b: a 5 confirmed j; c: a 5 confirmed j")
		if s := w.hosts["b"].String(); strings.Contains(s, "muted") {
			t.Errorf("host b is\n%s", s)
		}
	})
}

// TestRevokeAfterRARP misses the STOP: the destination's RARP has taken the MAC
// along, and the move fails after that.
func TestRevokeAfterRARP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		w.appear("b", "vm", vmMAC, "")
		w.want(vmMAC, "a: b 3 pending j; b: b 3 pending j; c: b 3 pending j")
		check(t, w.ms["a"].Revoke(t.Context(), "j"))
		w.pass(21 * time.Millisecond)
		if got := w.where(vmMAC); !strings.Contains(got, "a: a 5") || !strings.Contains(got, "b: a 5") || !strings.Contains(got, "c: a 5") {
			t.Errorf("the VM is at %s", got)
		}
	})
}

// TestRevokeReachesAll: one one-way delay after the revoke nobody sends to the
// destination any more.
func TestRevokeReachesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 50 * time.Millisecond
		w := switching(t, l2exttest.Line{Delay: delay}, "a", "b", "c")
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		before := w.count("b", l2ext.Received) + w.count("b", l2ext.Redirected)
		check(t, w.ms["a"].Revoke(t.Context(), "j"))
		w.pass(delay + time.Millisecond)
		w.want(vmMAC, "a: a 5 confirmed j; b: a 5 confirmed j; c: a 5 confirmed j")
		w.say("c", 1)
		w.pass(delay)
		if got := w.told("a", "vm"); !slices.Equal(got, []int{1}) {
			t.Errorf("the VM got %v", got)
		}
		if n := w.count("b", l2ext.Received) + w.count("b", l2ext.Redirected); n != before {
			t.Errorf("%d frames went by the destination", n-before)
		}
	})
}

// TestParkingIsBounded fills the lot, and then nobody tells that the VM runs.
func TestParkingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{}, "a", "b")
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		const n = 1200
		for i := range n {
			check(t, w.hosts["b"].Send("lan", frameTo(vmMAC, hostOf("b"), 1500)))
			if i%100 == 99 {
				w.pass(time.Millisecond)
			}
		}
		kept := 1500
		if l2ext.Mode(*mode) == l2ext.SecureFast { // with what the kernel has left undone of it
			kept += fast.OffloadLen
		}
		kept += 64 // for what it is kept in
		if p, d := w.count("b", l2ext.Parked), w.count("b", l2ext.DropParked); p != 1<<20/kept || p+d != n {
			t.Errorf("%d frames were parked, %d dropped", p, d)
		}
		w.pass(12 * time.Second)
		if r := w.count("b", l2ext.Released); r != 1<<20/kept {
			t.Errorf("%d frames were released in the end", r)
		}
		if s := w.hosts["b"].String(); strings.Contains(s, "fdb lhvx100 "+vmMAC.String()) {
			t.Errorf("host b is\n%s", s)
		}
	})
}

// TestFirstFrameEndsParking: a RARP tells only that the VM is loaded, any other
// frame that it runs.
func TestFirstFrameEndsParking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{}, "a", "b")
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		w.say("b", 1)
		w.appear("b", "vm", vmMAC, "")
		if got := w.told("b", "vm"); got != nil {
			t.Errorf("after a RARP it got %v", got)
		}
		check(t, w.hosts["b"].Send("vm", frameTo(hostOf("a"), vmMAC, 100)))
		w.settle()
		if got := w.told("b", "vm"); !slices.Equal(got, []int{1}) {
			t.Errorf("after its first frame it got %v", got)
		}
	})
}

// TestMutedUntilItRuns is finding 5: broadcasts of the time before do not wait
// in the port of the VM.
func TestMutedUntilItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{}, "a", "b")
		old := frameTo(ether.Broadcast, hostOf("b"), 100)
		check(t, w.hosts["b"].Send("lan", old))
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		check(t, w.ms["b"].Settle(t.Context(), "j", nics))
		w.settle()
		if got := w.receive("b", "vm", hostOf("b")); len(got) != 0 {
			t.Errorf("the VM got %d old broadcasts", len(got))
		}
		check(t, w.hosts["b"].Send("lan", old))
		if got := w.receive("b", "vm", hostOf("b")); len(got) != 1 {
			t.Errorf("the VM got %d new broadcasts", len(got))
		}
	})
}

// TestEvacuationIsAnnounced flips more hosts than are announced in one step: the
// LAN of the source hears of each of them once, in their order.
func TestEvacuationIsAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b")
		w.hosts["a"].Plug("br", "vm")
		many := make([]l2ext.NIC, 1000)
		for i := range many {
			many[i] = l2ext.NIC{MAC: l2ext.MAC{2, 7, 0, 0, byte(i >> 8), byte(i)}, Tap: "vm"}
		}
		check(t, w.ms["a"].Prepare(t.Context(), "j", many, "b"))
		w.settle()
		for w.hosts["a"].Receive("lan") != nil { // what was said until now
		}
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		var heard []l2ext.MAC
		for f := w.hosts["a"].Receive("lan"); f != nil; f = w.hosts["a"].Receive("lan") {
			if f[7] == 7 { // no loop probe
				heard = append(heard, l2ext.MAC(f[6:12]))
			}
		}
		if len(heard) != len(many) {
			t.Fatalf("%d of %d hosts are announced", len(heard), len(many))
		}
		for i, mac := range heard {
			if mac != many[i].MAC {
				t.Fatalf("announcement %d is of %v", i, mac)
			}
		}
	})
}

// TestLANIsTold: at RESUME the destination's LAN hears a RARP and the VM's
// addresses, also over the port of a gateway that says it alone.
func TestLANIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{}, "a", "b")
		w.appear("a", "vm", vmMAC, "fe80::9")
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		w.receive("b", "lan", vmMAC)
		check(t, w.ms["b"].Settle(t.Context(), "j", nics))
		w.settle()
		var kinds []string
		for _, f := range w.receive("b", "lan", vmMAC) {
			kinds = append(kinds, fmt.Sprintf("%x", f[12:14]))
		}
		if !slices.Equal(kinds, []string{"8035", "0806", "86dd"}) {
			t.Errorf("the LAN was told %v", kinds)
		}
	})
}

// TestGap measures what the VM's peers see of its move.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b")
		check(t, w.hosts["a"].Send("vm", frameTo(hostOf("b"), vmMAC, 100)))
		w.pass(30 * time.Millisecond)
		check(t, w.hosts["a"].Send("vm", frameTo(hostOf("a"), vmMAC, 100))) // does not cross: only the bridge sees it
		w.pass(3 * time.Millisecond)                                        // it says nothing more until STOP
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.pass(60 * time.Millisecond)
		w.say("a", 1)
		check(t, w.ms["b"].Settle(t.Context(), "j", nics))
		w.pass(5 * time.Millisecond)
		check(t, w.ms["b"].Confirm(t.Context(), "j"), w.ms["a"].Confirm(t.Context(), "j")) // it may be quick
		check(t, w.hosts["b"].Send("vm", frameTo(hostOf("a"), vmMAC, 100)))
		w.settle()
		g, err := w.ms["a"].Gap(t.Context(), "j")
		check(t, err)
		// 60 and 1 until Settle, of which the flip was under way for 20; 5 more
		if want := (l2ext.Gap{Before: 3 * time.Millisecond, After: 46 * time.Millisecond}); g.Before != want.Before || g.After != want.After {
			t.Errorf("gap %+v, want %+v", g, want)
		}
		if n, us := w.count("a", l2ext.Gaps), w.count("a", l2ext.GapMicros); n != 1 || us != 49_000 || w.count("b", l2ext.Gaps) != 0 {
			t.Errorf("%d gaps of %d us are counted", n, us)
		}
		if _, err := w.ms["a"].Gap(t.Context(), "none"); err == nil {
			t.Error("a job that is not has a gap")
		}
	})
}

// TestDeafSite cuts a third site off while a VM moves: when it is back it finds
// the VM.
func TestDeafSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
		w.wire.Isolate("c")
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		check(t, w.ms["b"].Settle(t.Context(), "j", nics), w.ms["a"].Confirm(t.Context(), "j"), w.ms["b"].Confirm(t.Context(), "j"))
		w.pass(time.Minute)
		if got := w.where(vmMAC); !strings.Contains(got, "c: a ") {
			t.Errorf("the deaf site knows it all: %s", got)
		}
		w.wire.Rejoin("c")
		w.pass(50 * time.Millisecond)
		w.say("c", 1)
		w.settle()
		if got := w.told("b", "vm"); !slices.Equal(got, []int{1}) {
			t.Errorf("from c the VM got %v", got)
		}
	})
}

// TestPingPong moves a binding 1000 times; nothing is left over.
func TestPingPong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b", "c")
		way := []string{"a", "b"}
		check(t, w.ms["a"].Revoke(t.Context(), "j"))
		w.pass(10 * time.Millisecond)
		b, _ := binding(w.ms["c"], vmMAC)
		seq := b.Seq
		for i := range 1000 {
			job := fmt.Sprint("job", i)
			src, dst := w.ms[way[0]], w.ms[way[1]]
			check(t, src.Prepare(t.Context(), job, nics, way[1]))
			w.pass(2 * time.Millisecond)
			check(t, dst.Expect(t.Context(), job, nics), src.Flip(t.Context(), job))
			w.pass(2 * time.Millisecond)
			check(t, dst.Settle(t.Context(), job, nics), dst.Confirm(t.Context(), job), src.Confirm(t.Context(), job))
			w.pass(2 * time.Millisecond)
			way[0], way[1] = way[1], way[0]
		}
		w.want(vmMAC, fmt.Sprintf("a: a %[1]d confirmed job999; b: a %[1]d confirmed job999; c: a %[1]d confirmed job999", seq+1000))
		if n := w.ms["c"].Jobs(t.Context()); n != 0 { // and so many less that it could watch
			t.Errorf("the third site still watches %d jobs", n)
		}
		for s, want := range map[string]bool{"a": false, "b": true, "c": true} {
			if got := w.hosts[s].String(); strings.Contains(got, "fdb lhvx100 "+vmMAC.String()) != want || strings.Contains(got, "muted") {
				t.Errorf("host %s is\n%s", s, got)
			}
		}
		w.receive("a", "vm", hostOf("c"))
		w.say("c", 1)
		if got := w.told("a", "vm"); !slices.Equal(got, []int{1}) {
			t.Errorf("the VM got %v", got)
		}
	})
}
