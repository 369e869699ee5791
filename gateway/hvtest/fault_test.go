package hvtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
)

var errWished = errors.New("as the test wished")

func TestFaultsHappen(t *testing.T) {
	a, b, l := newFakes(t, testGuest)
	a.Fail(StepSource, errWished)
	if _, err := a.Source(t.Context(), "db1"); !errors.Is(err, errWished) {
		t.Errorf("Source: %v", err)
	}
	m := newMove(t, a, b, "db1", 0)
	m.start()
	m.load()

	b.Inject(Fault{Step: StepSinkResume, Err: errWished, After: true}) // the answer is lost, the VM runs
	if err := m.sink.Resume(m.ctx); !errors.Is(err, errWished) {
		t.Errorf("Resume: %v", err)
	}
	m.want(m.sink, gateway.Running)
	l.Check(t, "db1", "b")

	reached, wait := make(chan struct{}), make(chan struct{})
	a.Inject(Fault{Step: StepRelease, Reached: reached, Wait: wait})
	ctx, cancel := context.WithCancel(m.ctx)
	done := make(chan error, 1) // one answer
	go func() { done <- m.src.Release(ctx) }()
	<-reached
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Release: %v", err)
	}
	m.want(m.src, gateway.Moved)
	if got, want := a.String()+b.String(), "db1 moved 256 pages epoch 1 migration completed\ndb1 running 256 pages epoch 2 migration completed\n"; got != want {
		t.Errorf("hosts print\n%swant\n%s", got, want)
	}
}

// Nobody waits any more for a destination that is being started: it is not left.
func TestPrepareLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewFakeHost("b", new(Ledger))
		defer b.Close()
		b.Slow(3, time.Second)
		g := testGuest.withDefaults()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1) // one answer
		go func() {
			_, err := b.Prepare(ctx, gateway.Spec{VM: g.Name, Token: newToken(), UUID: g.UUID, Memory: g.Memory, Args: g.args()})
			done <- err
		}()
		for b.Count(g.Name) == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if n := b.Count(g.Name); n != 0 {
			t.Errorf("%d processes are left:\n%s", n, b)
		}
	})
}

func TestLegBreaksWhereWished(t *testing.T) {
	for _, at := range []int64{1, 7, 100, 10_000, 300_000} {
		for _, side := range []string{"a", "b"} {
			a, b, l := newFakes(t, testGuest)
			map[string]*FakeHost{"a": a, "b": b}[side].BreakLeg(at)
			m := newMove(t, a, b, "db1", 0)
			m.start()
			m.srcLog.await(t, gateway.EventStatus, "failed")
			l.Check(t, "db1", "a")
			m.close()
		}
	}
}

func TestNeverConvergesBeforeTheLimitIsRaised(t *testing.T) {
	g := testGuest
	g.Rounds = -1
	a, b, l := newFakes(t, g)
	m := newMove(t, a, b, "db1", 0)
	m.start()
	for range 10 {
		m.srcLog.await(t, gateway.EventPass, "")
	}
	if err := m.src.SetDowntime(m.ctx, 3*time.Second); err != nil {
		t.Fatal(err)
	}
	m.load()
	if got, want := string(b.Memory("db1")), string(a.Memory("db1")); got != want {
		t.Error("memory differs")
	}
	m.commit()
	l.Check(t, "db1", "b")
}

func TestLedgerSeesWhatMustNotHappen(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(a, b *proc)
		want string
	}{
		{"two run", func(a, b *proc) { b.epoch = 1; b.run() }, "executes at a and at b"},
		{"left behind", func(a, b *proc) { a.stop(); b.epoch = 1; b.run(); b.stop(); a.run() }, "left behind"},
		{"wrong memory", func(a, b *proc) { a.stop(); b.epoch, b.memoryOK = 1, false; b.run() }, "wrong memory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b, l := newFakes(t, testGuest)
			pa, pb := a.all()[0], b.newProc(testGuest.withDefaults())
			c.do(pa, pb)
			if got := strings.Join(l.Faults(), "; "); !strings.Contains(got, c.want) {
				t.Errorf("faults %q, want %q", got, c.want)
			}
		})
	}
}

func TestSilentConnectionHangsTheMonitor(t *testing.T) {
	a, b, _ := newFakes(t, testGuest)
	m := newMove(t, a, b, "db1", 0)
	conn, err := m.sink.Dial(m.ctx)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(m.ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := m.sink.State(ctx); err == nil || !strings.Contains(err.Error(), "silent") {
		t.Errorf("the monitor answers: %v", err)
	}
	conn.Close() // a probe: the process ends
	m.sinkLog.await(t, gateway.EventExit, "")
	m.want(m.sink, gateway.Gone)
}

func TestMainChannelComesFirst(t *testing.T) {
	a, b, _ := newFakes(t, testGuest)
	m := newMove(t, a, b, "db1", 2)
	conn, err := m.sink.Dial(m.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(channelInit([16]byte{}, 0))
	m.sinkLog.await(t, gateway.EventExit, "load of migration failed: not a migration stream")
}
