package lab

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest"
	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/internal/nstest"
)

// newLab makes a lab for a test and removes it afterwards.
func newLab(t *testing.T, link Link) *Lab {
	t.Helper()
	nstest.NeedRoot(t)
	l, err := New(t.Context(), Options{Link: link, Seed: 1})
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
	l := newLab(t, Link{Rate: 400e6, RTT: 20 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
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
	vm, err := l.A.StartGuest(ctx, guest.Options{Name: "vm1", Image: img, Disk: disk, Memory: 128 << 20})
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
	if err := ask.SetDirty(ctx, control.Dirty{Rate: 200, Hot: 500, Sparse: 75, Disk: 20}); err != nil {
		t.Fatal(err)
	}
	probe := startProbes(t, ctx, l)

	vm, report, err := l.PlainMove(ctx, PlainOptions{VM: vm, From: l.A, To: l.B})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("plain move: %+v", report)
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
	if !session.Alive || pings.Lost > pings.Sent/10 {
		t.Errorf("connections did not survive: %+v, %+v", pings, session)
	}
	if report.Downtime <= 0 || report.Downtime > report.Total || report.Wire < report.Logical || report.Wire > report.Logical*11/10 {
		t.Errorf("impossible figures: %+v", report)
	}
	b, _ := os.ReadFile(vm.Console)
	t.Logf("console of the destination: %q", b)
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
