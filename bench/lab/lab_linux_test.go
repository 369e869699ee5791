package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest"
	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/wanem"
	"github.com/longhaul-project/longhaul/internal/nstest"
)

// Flags to try other lines and guests by hand.
var (
	linkFlag       = flag.String("link", "", "WAN of TestMove, as rate=,rtt=,loss=")
	memoryFlag     = flag.Int64("memory", 96, "MiB of memory of TestMove's guest")
	patienceFlag   = flag.Duration("patience", 0, "patience of TestMove's plain move")
	congestionFlag = flag.String("congestion", "", "TCP congestion control of TestMove")
	dirtyFlag      = flag.Int("dirty", 200, "pages per second that TestMove's guest rewrites")
)

// TestMain makes the test binary the helpers of its own tests.
func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(crashMark) != "":
		err = crashing()
	case os.Getenv(childMark) != "":
		err = wanem.Serve(os.Stdin, os.Stdout)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const childMark = "LONGHAUL_WANEM_CHILD"

// newLab makes a lab for a test and removes it afterwards.
func newLab(t *testing.T, link Link) *Lab {
	t.Helper()
	nstest.NeedRoot(t)
	t.Setenv(childMark, "1")
	l, err := New(t.Context(), Options{Link: link, Seed: 1, Emulator: []string{"/proc/self/exe"}, Congestion: *congestionFlag})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("closing the lab: %v", err)
		}
	})
	return l
}

// TestMove is the whole lab: a guest serves a ping and a session of a third
// host, moves by plain QEMU, and everything about it is still right.
func TestMove(t *testing.T) {
	if testing.Short() {
		nstest.Skip(t, "boots a guest")
	}
	if err := Check(); err != nil {
		nstest.Skip(t, err.Error())
	}
	link := Link{Rate: 1e9, RTT: 10 * time.Millisecond}
	if *linkFlag != "" {
		if err := link.Set(*linkFlag); err != nil {
			t.Fatal(err)
		}
	}
	l := newLab(t, link)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := l.Stretch(); err != nil {
		t.Fatal(err)
	}
	img, err := guest.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := l.NewDisk("vm1", 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := l.A.StartGuest(ctx, guest.Options{Name: "vm1", Image: img, Disk: disk, Memory: *memoryFlag << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	ask, err := l.Control(ctx, GuestIP)
	if err != nil {
		t.Fatal(err)
	}
	defer ask.Close()
	if err := ask.SetDirty(ctx, control.Dirty{Rate: *dirtyFlag, Hot: 2000, Sparse: 75, Disk: 20}); err != nil {
		t.Fatal(err)
	}
	probe := startProbes(t, ctx, l)

	var reports []MoveReport
	for _, way := range [][2]*Site{{l.A, l.B}, {l.B, l.A}, {l.A, l.B}} { // there, home, and there again
		var r MoveReport
		if vm, r, err = l.PlainMove(ctx, PlainOptions{VM: vm, From: way[0], To: way[1], Patience: *patienceFlag}); err != nil {
			t.Fatal(err)
		}
		t.Logf("plain move from %s: %+v", way[0].Name, r)
		reports = append(reports, r)
		if r.Downtime <= 0 || r.Downtime > r.Total || r.Wire < r.Logical {
			t.Errorf("impossible figures: %+v", r)
		}
	}
	verdict, err := ask.Verify(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("verdict: %+v", verdict)
	stats, err := ask.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pings, session := probe()
	t.Logf("stats: %+v\npings: %+v\nsession: %+v", stats, pings, session)
	if !verdict.OK() || stats.Foreign != 0 {
		t.Errorf("the guest did not arrive whole: %+v, %+v", verdict, stats)
	}
	if !session.Alive || session.Ticks == 0 || session.Echoes == 0 {
		t.Errorf("the session did not survive: %+v", session)
	}
	// Plain VXLAN learns where the guest is from its announcement: what is
	// sent to the old site during the pause is lost.
	pause := 0
	for _, r := range reports {
		pause += int(r.Downtime / PingInterval)
	}
	if pings.Lost > pause+20*len(reports) {
		t.Errorf("%d pings lost in pauses of %d: %+v", pings.Lost, pause, pings)
	}
	if mac, err := l.Client.MAC(GuestIP); err != nil || mac != vm.HardwareAddr() {
		t.Errorf("the client finds the guest at %q, %v; want %s", mac, err, vm.HardwareAddr())
	}
	if on, err := l.B.Owns(vm.HardwareAddr(), vm.TapName()); err != nil || !on {
		t.Errorf("the guest is not on site b's bridge: %v, %v", on, err)
	}
}

// startProbes pings and holds a session from the client until the returned
// function is called.
func startProbes(t *testing.T, ctx context.Context, l *Lab) (stop func() (PingReport, SessionReport)) {
	t.Helper()
	p, err := l.Client.Pinger(GuestIP)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Client.Session(ctx, GuestIP)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ends := make(chan error, 2) // one for each probe
	go func() { ends <- p.Run(ctx) }()
	go func() { ends <- s.Run(ctx) }()
	return func() (PingReport, SessionReport) {
		cancel()
		if err := errors.Join(<-ends, <-ends); err != nil {
			t.Errorf("probes: %v", err)
		}
		return p.Report(), s.Report()
	}
}
