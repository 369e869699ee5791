package l2ext_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// move moves the VM as a job does, with a pause in between.
func (l *lab) move(t testing.TB, v *vm, job string, way [2]string, pause time.Duration) {
	t.Helper()
	src, dst := l.sites[way[0]], l.sites[way[1]]
	ctx := t.Context()
	check(t, src.m.Prepare(ctx, job, v.nics(), dst.name))
	check(t, dst.m.Expect(ctx, job, v.nics()))
	v.put("") // STOP
	stop := time.Now()
	check(t, src.m.Flip(ctx, job))
	l.flips = append(l.flips, time.Since(stop))
	<-time.After(pause)
	v.put(dst.name) // RESUME
	check(t, dst.m.Settle(ctx, job, v.nics()))
	check(t, dst.m.Confirm(ctx, job), src.m.Confirm(ctx, job))
}

// TestFlipLosesNothing moves a VM under a probe of 1 kHz from its source, its
// destination and a third site:
// frames that reach the old site after the stop are sent on and wait for the
// VM, so that at most 2 are lost, not the pause's worth. A busy machine may
// stall the probe itself; then there is another series. Without the redirection
// none of them would pass: 40 are lost at the destination, 80 with RARP only.
func TestFlipLosesNothing(t *testing.T) {
	// All its clients are in this process: with one processor they would measure each other.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU()))
	l := newLabOf(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b", "c")
	v := boundVM(t, l)
	way := [2]string{"a", "b"}
	for series := range 3 {
		lost, gaps := make(map[string][]int), make(map[string][]time.Duration)
		for i := range 5 {
			l.probedMove(t, v, fmt.Sprintf("job%d.%d", series, i), way, func(role string, n int, gap time.Duration) {
				lost[role], gaps[role] = append(lost[role], n), append(gaps[role], gap)
			})
			way[0], way[1] = way[1], way[0]
		}
		worst := 0
		for role, n := range lost {
			t.Logf("client at the %s: lost %v, longest gaps %v with a pause of %v", role, n, gaps[role], pause)
			worst = max(worst, median(n))
		}
		t.Logf("Flip took %v", l.flips)
		if worst <= 2 {
			return
		}
	}
	t.Error("in three series the median of the probes lost was over 2")
}

// pause is how long a VM stands still, from STOP to RESUME.
const pause = 60 * time.Millisecond

// probedMove moves the VM while hosts at all sites probe it.
func (l *lab) probedMove(t *testing.T, v *vm, job string, way [2]string, result func(role string, lost int, gap time.Duration)) {
	l.probed(t, v, way, func() { l.move(t, v, job, way, pause) }, func(role string, p probed) { result(role, p.lost, p.gap) })
	until(t, "all sites agree", func() bool { return l.isAt(v.mac, way[1]) })
}

// probed calls move while hosts at all sites probe the VM.
func (l *lab) probed(t testing.TB, v *vm, way [2]string, move func(), result func(role string, p probed)) {
	roles := map[string]string{way[0]: "source", way[1]: "destination", "c": "third site"}
	stops := make(map[string]func() probed)
	for name, s := range l.sites {
		stops[name] = probe(t, s.host, v.ip+":7")
	}
	<-time.After(150 * time.Millisecond)
	move()
	<-time.After(150 * time.Millisecond)
	for name, stop := range stops {
		result(roles[name], stop())
	}
}

// TestRevoke takes a VM back after its flip.
func TestRevoke(t *testing.T) {
	l := newLab(t, l2exttest.Line{Delay: 5 * time.Millisecond})
	v := newVM(t, l)
	a, b, ctx := l.sites["a"], l.sites["b"], t.Context()
	c := dialUDP(t, b.host, v.ip+":7")
	check(t, echoed(c, 100))
	until(t, "the VM is bound", func() bool { return l.isAt(v.mac, "a") })
	check(t, a.m.Prepare(ctx, "j", v.nics(), "b"))
	until(t, "the destination knows the job", func() bool { bind, _ := b.binding(v.mac); return bind.State == l2ext.Pending && bind.Job == "j" })
	v.put("")
	check(t, a.m.Flip(ctx, "j"), a.m.Flip(ctx, "j"))
	until(t, "the flip has arrived", func() bool { return l.isAt(v.mac, "b") })
	v.put("a")
	check(t, a.m.Revoke(ctx, "j"), a.m.Revoke(ctx, "j"))
	until(t, "the way back has arrived", func() bool { return l.isAt(v.mac, "a") })
	check(t, echoed(c, 1472))
	check(t, echoed(dialUDP(t, a.host, v.ip+":7"), 100))
	if err := a.m.Flip(ctx, "j"); err == nil {
		t.Error("a revoked job was flipped")
	}
	if bind, _ := a.binding(v.mac); bind.State != l2ext.Confirmed {
		t.Errorf("binding %+v", bind)
	}
}

// TestSilentMove moves a VM without any job: the kernel and the first frames
// tell.
func TestSilentMove(t *testing.T) {
	l := newLab(t, l2exttest.Line{Delay: 5 * time.Millisecond})
	v := newVM(t, l)
	a, b := l.sites["a"], l.sites["b"]
	check(t, echoed(dialUDP(t, a.host, v.ip+":7"), 100))
	until(t, "the VM is bound", func() bool { return l.isAt(v.mac, "a") })
	<-time.After(1100 * time.Millisecond) // younger bindings are not taken away
	v.put("b")
	go echoed(dialUDP(t, v.ns, b.ip+":9"), 10) // it wants something from its new LAN
	until(t, "the VM is found", func() bool { return l.isAt(v.mac, "b") })
	check(t, echoed(dialUDP(t, a.host, v.ip+":7"), 100))
}

// TestBackAndForth moves a VM 20 times; what the kernel knows afterwards is
// what it knew at first.
func TestBackAndForth(t *testing.T) {
	l := newLab(t, l2exttest.Line{Delay: 2 * time.Millisecond, Loss: 0.01, Seed: 7})
	v := boundVM(t, l)
	state := func() (all string) {
		for _, name := range []string{"a", "b"} {
			fdb, err := l.sites[name].gw.FDB()
			check(t, err)
			for _, line := range fdb {
				if strings.Contains(line, "lhvx") {
					all += name + " " + line + "\n"
				}
			}
		}
		return all
	}
	entries := 2 // of the bridge and of the VXLAN device
	if l.mode == l2ext.SecureFast {
		entries = 1
	}
	until(t, "the kernels agree", func() bool { return strings.Count(state(), v.mac.String()) == entries })
	c := dialUDP(t, l.sites["a"].host, v.ip+":7")
	before := state()
	way := [2]string{"a", "b"}
	for i := range 20 {
		l.move(t, v, fmt.Sprintf("job%d", i), way, time.Millisecond)
		until(t, "both sites agree", func() bool { return l.isAt(v.mac, way[1]) })
		check(t, echoed(c, 1472))
		way[0], way[1] = way[1], way[0]
	}
	for deadline := time.Now().Add(l2exttest.Patience); state() != before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("entries were\n%s\nand are\n%s", before, state())
		}
	}
}
