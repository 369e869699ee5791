package l2ext_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// The benchmarks of this file are what `make bench-layer2` runs: three sites of
// kernels, a line in memory with a one-way delay, and a stand-in for a VM. With
// -benchtime 50x there are 50 moves. It runs BenchmarkGuestMoves as well, of
// cmd/longhaul/e2e, where a real guest moves.

// trigger is what tells the network that the VM has moved. What is missing was
// lost, or nobody was there to tell.
type trigger struct {
	name   string
	stop   bool // the STOP at the source
	rarp   bool // the hypervisor's RARP at the destination
	settle bool // the RESUME at the destination
	speaks bool // the VM itself says something 100 ms after it has resumed
}

var triggers = []trigger{
	{name: "all", stop: true, rarp: true, settle: true},
	{name: "rarp", rarp: true},
	{name: "resume", settle: true},
	{name: "frame", speaks: true},
}

// trip moves the VM as far as the trigger lets the network know.
func (l *lab) trip(t testing.TB, v *vm, job string, way [2]string, by trigger) {
	src, dst, ctx := l.sites[way[0]].m, l.sites[way[1]].m, t.Context()
	check(t, src.Prepare(ctx, job, v.nics(), way[1]), dst.Expect(ctx, job, v.nics()))
	v.put("") // STOP
	if by.stop {
		stop := time.Now()
		check(t, src.Flip(ctx, job))
		l.flips = append(l.flips, time.Since(stop))
	}
	<-time.After(pause)
	if by.rarp {
		v.taps[way[1]].Write(ether.AppendAnnounce(nil, v.mac, netip.Addr{}))
	}
	v.put(way[1]) // RESUME
	if by.settle {
		check(t, dst.Settle(ctx, job, v.nics()))
	}
	if by.speaks {
		<-time.After(100 * time.Millisecond)
		v.taps[way[1]].Write(frameTo(l2ext.MAC{2, 0, 0, 0, 0, 0x99}, v.mac, 64))
	}
}

// endTrip has the gateways agree on the VM's place, however they came to know it.
func (l *lab) endTrip(t testing.TB, v *vm, job string, way [2]string) {
	ctx := t.Context()
	check(t, l.sites[way[1]].m.Settle(ctx, job, v.nics()), l.sites[way[1]].m.Confirm(ctx, job))
	until(t, "all sites agree", func() bool { return l.isAt(v.mac, way[1]) })
	check(t, l.sites[way[0]].m.Confirm(ctx, job))
}

// BenchmarkMove: probes lost by clients at the source, the destination and a
// third site, at 1 kHz: so many ms of loss; and their longest silence.
func BenchmarkMove(b *testing.B) {
	for _, delay := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond} {
		for _, by := range triggers {
			b.Run(fmt.Sprintf("owd=%v/trigger=%s", delay, by.name), func(b *testing.B) { benchMove(b, delay, by) })
		}
	}
}

func benchMove(b *testing.B, delay time.Duration, by trigger) {
	l := newLabOf(b, l2exttest.Line{Delay: delay}, "a", "b", "c")
	v := boundVM(b, l)
	lost, gaps := make(map[string][]int), make(map[string][]time.Duration)
	l.flips = nil
	way := [2]string{"a", "b"}
	for i := range b.N {
		job := fmt.Sprintf("job%d", i)
		l.probed(b, v, way, func() {
			l.trip(b, v, job, way, by)
			<-time.After(2*delay + 200*time.Millisecond) // whatever it takes
		}, func(role string, p probed) {
			lost[role], gaps[role] = append(lost[role], p.lost), append(gaps[role], p.gap)
		})
		l.endTrip(b, v, job, way)
		way[0], way[1] = way[1], way[0]
		<-time.After(1100 * time.Millisecond) // a younger binding is not taken away by a frame alone
		if !by.stop {
			for _, s := range l.sites { // the job's word counts for 30 s; this bench has not that long
				check(b, s.m.Clear(b.Context(), "prod", v.mac))
			}
			<-time.After(2 * delay)
		}
	}
	for role, unit := range map[string]string{"source": "src", "destination": "dst", "third site": "3rd"} {
		b.ReportMetric(float64(median(lost[role])), "lost-"+unit)
		b.ReportMetric(float64(slices.Max(lost[role])), "worst-"+unit)
		b.ReportMetric(float64(median(gaps[role]))/1e6, "gap-ms-"+unit)
	}
	if by.stop {
		b.ReportMetric(float64(median(l.flips))/1e6, "flip-ms")
		b.ReportMetric(float64(slices.Max(l.flips))/1e6, "worst-flip-ms")
	}
	b.ReportMetric(float64(pause.Milliseconds()), "pause-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkMoveTCP: the longest silence on a TCP connection with 1000 small
// messages a second.
func BenchmarkMoveTCP(b *testing.B) {
	for _, delay := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond} {
		b.Run(fmt.Sprintf("owd=%v", delay), func(b *testing.B) {
			l := newLabOf(b, l2exttest.Line{Delay: delay}, "a", "b", "c")
			v := newVM(b, l)
			echoTCP(b, v.ns, v.ip+":8")
			stalls := make(map[string][]time.Duration)
			way := [2]string{"a", "b"}
			for i := range b.N {
				stops := make(map[string]func() probed)
				for name, s := range l.sites {
					stops[name] = probeTCP(b, s.host, v.ip+":8")
				}
				<-time.After(300 * time.Millisecond)
				until(b, "the VM is bound", func() bool { return l.isAt(v.mac, way[0]) })
				job := fmt.Sprintf("job%d", i)
				l.trip(b, v, job, way, triggers[0])
				<-time.After(2*delay + 300*time.Millisecond)
				l.endTrip(b, v, job, way)
				for name, role := range map[string]string{way[0]: "src", way[1]: "dst", "c": "3rd"} {
					stalls[role] = append(stalls[role], stops[name]().gap)
				}
				way[0], way[1] = way[1], way[0]
			}
			for role, d := range stalls {
				slices.Sort(d) // two heaps: where a frame was lost at the STOP, the client's TCP needs a round trip more
				b.Logf("%s: %v", role, d)
				b.ReportMetric(float64(median(d))/1e6, "stall-ms-"+role)
				b.ReportMetric(float64(slices.Max(d))/1e6, "worst-ms-"+role)
			}
			b.ReportMetric(float64((pause+3*delay).Milliseconds())+10, "allowed-ms") // pause, one way, a round trip, and 10
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkBindings moves 10 000 MACs by one job, until the kernels of all
// three sites have them, and holds 40 000 more.
func BenchmarkBindings(b *testing.B) {
	const moved, held = 10_000, 40_000
	l := newLabOf(b, l2exttest.Line{Delay: time.Millisecond}, "a", "b", "c")
	nics := make([]l2ext.NIC, moved)
	for i := range nics {
		nics[i].MAC = l2ext.MAC{2, 2, 0, 0, byte(i >> 8), byte(i)}
	}
	for part := range held / 10_000 {
		more := make([]l2ext.NIC, 10_000)
		for i := range more {
			more[i].MAC = l2ext.MAC{2, 3, 0, byte(part), byte(i >> 8), byte(i)}
		}
		check(b, l.sites["c"].m.Prepare(b.Context(), fmt.Sprintf("held%d", part), more, "a"))
	}
	way := [2]string{"a", "b"}
	check(b, l.sites["a"].m.Prepare(b.Context(), "job0", nics, "b"))
	slowly := func(what string, cond func() bool) { // a look at 50 000 bindings takes its time
		for deadline := time.Now().Add(3 * l2exttest.Patience); !cond(); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(deadline) {
				b.Fatalf("not in time: %s", what)
			}
		}
	}
	at := func(s *site, where string) (n int) {
		for _, bind := range s.m.Segments()[0].Bindings {
			if bind.Site == where && bind.MAC[1] == 2 {
				n++
			}
		}
		return n
	}
	for _, s := range l.sites {
		slowly("all are bound", func() bool { return len(s.m.Segments()[0].Bindings) >= moved+held })
	}
	var took, flip, cpu []time.Duration
	for i := range b.N {
		job := fmt.Sprintf("job%d", i)
		src, dst := l.sites[way[0]], l.sites[way[1]]
		if i > 0 {
			check(b, src.m.Prepare(b.Context(), job, nics, way[1]))
			time.Sleep(time.Second)
		}
		third := l.sites["c"].net.entries.Load()
		start, used := time.Now(), cpuTime(b)
		check(b, src.m.Flip(b.Context(), job)) // its own kernel has it when this returns
		flip = append(flip, time.Since(start))
		until(b, "the third site's kernel has it", func() bool { return l.sites["c"].net.entries.Load()-third >= moved })
		took, cpu = append(took, time.Since(start)), append(cpu, cpuTime(b)-used)
		check(b, dst.m.Settle(b.Context(), job, nil))
		slowly("all sites agree", func() bool {
			return at(src, way[1]) == moved && at(dst, way[1]) == moved && at(l.sites["c"], way[1]) == moved
		})
		check(b, dst.m.Confirm(b.Context(), job), src.m.Confirm(b.Context(), job))
		way[0], way[1] = way[1], way[0]
	}
	b.ReportMetric(float64(median(took))/1e6, "ms/10000")
	b.ReportMetric(float64(slices.Max(took))/1e6, "worst-ms")
	b.ReportMetric(float64(median(flip))/1e6, "flip-ms")
	b.ReportMetric(float64(median(cpu))/1e6, "cpu-ms") // of all three sites: what it would take at least on one idle CPU
	b.ReportMetric(float64(len(l.sites["b"].m.Segments()[0].Bindings)), "held")
	b.ReportMetric(0, "ns/op")
}

// cpuTime is what this process has used, in user mode and for it in the kernel.
func cpuTime(t testing.TB) time.Duration {
	var u unix.Rusage
	check(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
