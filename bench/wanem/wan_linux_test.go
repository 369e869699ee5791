package wanem

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

var ceiling = flag.Bool("ceiling", false, "measure what the emulator can carry; takes half a minute of an idle machine")

// rig is two namespaces joined by a WAN.
type rig struct {
	a, b *nstest.NS
	wan  Emulator
}

// TestMain makes the test binary a child of its own tests.
func TestMain(m *testing.M) {
	if os.Getenv(childMark) != "" {
		if err := Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const childMark = "LONGHAUL_WANEM_CHILD"

// newRig joins two namespaces by a WAN in this process.
func newRig(t *testing.T, p Profile) *rig {
	t.Helper()
	return newRigOf(t, true, p)
}

// newRigOf does so with TAPs that take UDP in messages of many packets, or as those of
// Linux before 6.2.
func newRigOf(t *testing.T, joins bool, p Profile) *rig {
	t.Helper()
	r, taps := newEnds(t)
	wan, err := New(taps[0], taps[1], Config{AB: p, BA: p, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	r.wan = wan
	for i, h := range wan.half {
		if !joins {
			h.joins = false
			if err := unix.IoctlSetInt(int(taps[i].file.Fd()), unix.TUNSETOFFLOAD, unix.TUN_F_CSUM); err != nil {
				t.Fatal(err)
			}
			if err := unix.SetNonblock(h.from, true); err != nil { // Fd has undone that
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1) // of Run
	go func() { end <- wan.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-end; err != nil {
			t.Errorf("running the wan: %v", err)
		}
	})
	return r
}

// newChildRig joins two namespaces by a WAN in a child.
func newChildRig(t *testing.T, p Profile) *rig {
	t.Helper()
	r, taps := newEnds(t)
	t.Setenv(childMark, "1")
	child, err := StartChild([]string{"/proc/self/exe"}, taps[0], taps[1], Config{AB: p, BA: p, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	r.wan = child
	t.Cleanup(func() {
		if err := child.Close(); err != nil {
			t.Errorf("closing the child: %v", err)
		}
	})
	return r
}

func newEnds(t *testing.T) (r *rig, taps []*Tap) {
	t.Helper()
	r = &rig{a: nstest.New(t), b: nstest.New(t)}
	for i, ns := range []*nstest.NS{r.a, r.b} {
		err := errors.Join(
			ns.Sysctl("ipv6.conf.default.disable_ipv6", "1"),
			ns.Do(func() error {
				tap, err := OpenTap("wan0")
				taps = append(taps, tap)
				return err
			}))
		if err == nil {
			t.Cleanup(func() { taps[i].Close() })
			err = errors.Join(ns.Up("wan0"), ns.Addr("wan0", []string{"10.1.0.1/24", "10.1.0.2/24"}[i]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return r, taps
}

// listen opens a UDP socket in a namespace.
func listen(t *testing.T, ns *nstest.NS, addr string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestRoundTrip: a datagram and its echo take twice the delay.
func TestRoundTrip(t *testing.T) {
	const delay = 15 * time.Millisecond
	r := newRig(t, Profile{Rate: 200e6, Delay: delay})
	a, b := listen(t, r.a, "10.1.0.1:1000"), listen(t, r.b, "10.1.0.2:1000")
	go echo(b)
	var took []time.Duration
	buf := make([]byte, 100)
	for range 30 {
		begin := time.Now()
		if _, err := a.WriteTo(buf, b.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		a.SetReadDeadline(begin.Add(time.Minute))
		if _, _, err := a.ReadFrom(buf); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	t.Logf("round trips from %v to %v, median %v", took[0], took[29], took[15])
	// A shared machine may delay any one of them, and our own reading.
	if took[0] < 2*delay || took[15] > 2*delay+3*time.Millisecond {
		t.Errorf("the median round trip is %v, the shortest %v; want %v", took[15], took[0], 2*delay)
	}
}

func echo(c *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		c.WriteToUDPAddrPort(buf[:n], from)
	}
}

// TestCutAndHeal: nothing crosses a cut WAN, and the counters say why, in this
// process and in a child.
func TestCutAndHeal(t *testing.T) {
	for name, start := range map[string]func(*testing.T, Profile) *rig{"own": newRig, "child": newChildRig} {
		t.Run(name, func(t *testing.T) { cutAndHeal(t, start(t, Profile{})) })
	}
}

func cutAndHeal(t *testing.T, r *rig) {
	a, b := listen(t, r.a, "10.1.0.1:1000"), listen(t, r.b, "10.1.0.2:1000")
	go echo(b)
	buf := make([]byte, 10)
	exchange := func(patience time.Duration) error {
		if _, err := a.WriteTo(buf, b.LocalAddr()); err != nil {
			return err
		}
		a.SetReadDeadline(time.Now().Add(patience))
		_, _, err := a.ReadFrom(buf)
		return err
	}
	if err := exchange(2 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := Both(r.wan.Cut); err != nil {
		t.Fatal(err)
	}
	if err := exchange(50 * time.Millisecond); err == nil {
		t.Error("a cut WAN carries")
	}
	if err := Both(r.wan.Heal); err != nil {
		t.Fatal(err)
	}
	if err := exchange(2 * time.Second); err != nil {
		t.Errorf("a healed WAN does not carry: %v", err)
	}
	c, err := r.wan.Counters(AB)
	if err != nil {
		t.Fatal(err)
	}
	udp := c.Sum(func(f Flow) bool { return f.Between(UDP, 1000) })
	if c.Cut.Packets == 0 || udp != (Count{3, 3 * (14 + 20 + 8 + 10)}) {
		t.Errorf("%d cut, flow %+v; want 3 packets of 52 bytes", c.Cut.Packets, udp)
	}
}

// TestRate: the bottleneck passes its rate, and a change takes effect at once.
// A busy machine may hold up sender or emulator in any one try, but not in all.
func TestRate(t *testing.T) {
	r := newChildRig(t, Profile{Rate: 50e6, Delay: 2 * time.Millisecond})
	for _, rate := range []int64{50e6, 100e6} {
		// The queue holds 0.3 s, so that a late sender does not leave the line idle.
		if err := r.wan.Set(AB, Profile{Rate: rate, Delay: 2 * time.Millisecond, Queue: rate / 8 * 3 / 10}); err != nil {
			t.Fatal(err)
		}
		right := false
		for try := 0; try < 5 && !right; try++ {
			got := r.blast(t, 1.5*float64(rate), 500*time.Millisecond)
			t.Logf("%d Mbit/s: %+v", rate/1e6, got)
			right = got.rate > 0.97*float64(rate) && got.rate < 1.02*float64(rate)
		}
		if !right {
			t.Errorf("a line of %d Mbit/s carries something else, five times", rate/1e6)
		}
	}
}

// outcome of a blast.
type outcome struct {
	rate    float64 // delivered, bits per second
	packets float64 // delivered per second
	late    time.Duration
	mean    time.Duration
	cpu     float64 // of the emulator's process, in cores
}

// blast sends full datagrams from a to b at a rate, or as fast as the socket
// takes them when that is zero, and counts what the emulator delivers.
func (r *rig) blast(t *testing.T, rate float64, d time.Duration) outcome {
	t.Helper()
	a := listen(t, r.a, "10.1.0.1:0")
	b := listen(t, r.b, "10.1.0.2:2000") // so that no ICMP errors come back
	defer b.Close()
	option(t, a, unix.SOL_UDP, unix.UDP_SEGMENT, 1472)
	defer a.Close()
	to := netip.MustParseAddrPort("10.1.0.2:2000")
	buf := make([]byte, 16*1472)
	send := func(until time.Time) {
		var sent float64 // bits
		for begin := time.Now(); time.Now().Before(until); sent += 16 * 1514 * 8 {
			for rate > 0 && sent > rate*time.Since(begin).Seconds() {
				unix.Nanosleep(&unix.Timespec{Nsec: 100_000}, nil)
			}
			if _, err := a.WriteToUDPAddrPort(buf, to); err != nil && !errors.Is(err, unix.ENOBUFS) {
				t.Fatal(err)
			}
		}
	}
	send(time.Now().Add(100 * time.Millisecond)) // fill queue and line
	before, cpu, begin := r.counters(t), r.cpu(t), time.Now()
	send(begin.Add(d))
	took := time.Since(begin).Seconds()
	after := r.counters(t)
	out := after.Out.Sub(before.Out)
	return outcome{
		rate: float64(out.Bytes) * 8 / took, packets: float64(out.Packets) / took, late: after.LateMax,
		mean: (after.LateSum - before.LateSum) / time.Duration(max(out.Packets, 1)), cpu: (r.cpu(t) - cpu).Seconds() / took,
	}
}

func (r *rig) counters(t *testing.T) Counters {
	t.Helper()
	c, err := r.wan.Counters(AB)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// cpu is what the emulator's process has used, receiving included: the kernel
// does that in the thread that writes the TAP.
func (r *rig) cpu(t *testing.T) time.Duration {
	t.Helper()
	pid := os.Getpid()
	if c, ok := r.wan.(*Child); ok {
		pid = c.PID()
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.Atoi(f[11]) // proc(5), fields 14 and 15, in ticks of 10 ms
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// TestCeiling measures the emulator itself; its figures go to bench/results.
func TestCeiling(t *testing.T) {
	if !*ceiling {
		t.Skip("a measurement, on request: -ceiling")
	}
	for _, rate := range []int64{100e6, 200e6, 500e6, 1e9, 2e9, 0} {
		r := newChildRig(t, Profile{Rate: rate, Delay: 10 * time.Millisecond})
		got := r.blast(t, 1.1*float64(rate), 3*time.Second)
		t.Logf("line %5d Mbit/s: delivered %7.1f Mbit/s (%6.2f %%), %7.0f packets/s, late by %v on average and %v at most, %.2f cores",
			rate/1e6, got.rate/1e6, 100*got.rate/max(float64(rate), got.rate), got.packets, got.mean, got.late, got.cpu)
	}
}

// TestQuantum: rounds are short against the line's delay, on a line that is changed too.
func TestQuantum(t *testing.T) {
	for _, tt := range []struct{ delay, want time.Duration }{
		{0, 150 * time.Microsecond},
		{25 * time.Millisecond, 250 * time.Microsecond},
		{75 * time.Millisecond, 500 * time.Microsecond},
	} {
		p := Profile{Delay: tt.delay}
		if got := quantum(p); got != tt.want {
			t.Errorf("a delay of %v gives rounds of %v, want %v", tt.delay, got, tt.want)
		}
		w := &WAN{half: [2]*half{{line: NewLine(Profile{}, 1, 1514), wake: -1}}}
		if err := w.Set(AB, p); err != nil || w.half[AB].line.lead != tt.want {
			t.Errorf("set to a delay of %v: %v, %v", tt.delay, w.half[AB].line.lead, err)
		}
	}
}
