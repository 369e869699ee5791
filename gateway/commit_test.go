package gateway_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

var errDisk = errors.New("no space left on device")

// until waits for a condition that some goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(busyTime); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", busyTime, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *site) begin(to string) gateway.Job {
	s.t.Helper()
	var j gateway.Job
	until(s.t, "the move begins", func() (begun bool) {
		var err error
		j, err = s.g.Migrate(s.t.Context(), gateway.MigrateRequest{VM: "db1", To: to})
		if err != nil && !errors.Is(err, gateway.ErrUnavailable) { // a link that is coming up
			s.t.Fatal(err)
		}
		return err == nil
	})
	return j
}

func (s *site) inState(id string, want gateway.JobState) {
	s.t.Helper()
	until(s.t, "job "+string(want), func() bool {
		j, err := s.g.Job(s.t.Context(), id)
		return err == nil && j.State == want
	})
}

// noMoves checks that both journals hold no open move and that no job runs,
// within some time: a job ends a little after its entry, and one that a gateway
// has found in its journal begins a little after the gateway.
func noMoves(t testing.TB, sites ...*site) {
	t.Helper()
	for _, s := range sites {
		until(t, "no open move at "+s.name, func() bool {
			open, err := s.g.OpenMoves()
			if err != nil || len(open) > 0 {
				return false
			}
			jobs, err := s.g.Jobs(t.Context())
			return err == nil && !slices.ContainsFunc(jobs, func(j gateway.Job) bool { return !j.State.Ended() })
		})
	}
}

// A journal that does not take the handover, or takes it and says that it does
// not: the order to run is not sent, the VM goes on at its source, and no
// restart sends the order after all.
func TestJournalRefusesHandover(t *testing.T) {
	for name, c := range map[string]struct{ lies, stays bool }{
		"once": {}, "once, but it is on the disk": {lies: true}, "from then on": {stays: true}, "from then on, but it is on the disk": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, ledger := newPair(t, hvtest.Guest{})
			broken := false
			a.g.RefuseJournal(func(e gateway.Entry) error {
				if e.Step == gateway.StepHandover {
					broken = c.stays
					if c.lies {
						a.g.WriteJournal(e)
					}
					return errDisk
				}
				if broken {
					return errDisk
				}
				return nil
			})
			j := a.migrate("b")
			if j.State != gateway.JobFailed || !strings.Contains(j.Error, errDisk.Error()) {
				t.Errorf("%s: %s", j.State, j.Error)
			}
			ledger.Check(t, "db1", "host-a")
			a.stop()
			a.start()
			a.waitUp("b")
			noMoves(t, a, b)
			ledger.Check(t, "db1", "host-a")
			if j := a.migrate("b"); j.State != gateway.JobDone {
				t.Errorf("the next try: %s: %s", j.State, j.Error)
			}
			ledger.Check(t, "db1", "host-b")
		})
	}
}

// A journal that does not take for a moment that the destination runs.
func TestJournalRefusesRelease(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	left := 1
	a.g.RefuseJournal(func(e gateway.Entry) error {
		if e.Step == gateway.StepReleased && left > 0 {
			left--
			return errDisk
		}
		return nil
	})
	if j := a.migrate("b"); j.State != gateway.JobDone {
		t.Errorf("%s: %s", j.State, j.Error)
	}
	noMoves(t, a, b)
	ledger.Check(t, "db1", "host-b")
	noChannels(t, 0, a, b)
}

// The destination's journal takes nothing: it does not run the VM.
func TestJournalOfDestinationRefuses(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	b.g.RefuseJournal(func(e gateway.Entry) error {
		if e.Step == gateway.StepStarting {
			return errDisk
		}
		return nil
	})
	if j := a.migrate("b"); j.State != gateway.JobFailed || !strings.Contains(j.Error, errDisk.Error()) {
		t.Errorf("%s: %s", j.State, j.Error)
	}
	ledger.Check(t, "db1", "host-a")
	noMoves(t, a, b)
	noChannels(t, 0, a, b)
}

// The destination's journal does not take that the VM runs there, nor that the move is
// done, and the VM moves on: its first move ends nevertheless, in the same run of the
// gateway or in the next.
func TestJournalRefusesThatItRuns(t *testing.T) {
	for name, restart := range map[string]bool{"same run": false, "next run": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, ledger := newPair(t, hvtest.Guest{})
			b.g.RefuseJournal(func(e gateway.Entry) error {
				if e.Role == gateway.RoleDestination && (e.Step == gateway.StepRunning || e.Step == gateway.StepDone) {
					return errDisk
				}
				return nil
			})
			for _, s := range []*site{a, b} {
				to := map[*site]string{a: "b", b: "a"}[s]
				if end := s.migrate(to); end.State != gateway.JobDone {
					t.Fatalf("from %s: %s: %s", s.name, end.State, end.Error)
				}
			}
			b.g.RefuseJournal(nil)
			if restart {
				b.stop()
				b.start()
			}
			noMoves(t, a, b)
			onlyAt(t, a, b, ledger)
		})
	}
}

// A move that is asked for while the gateway has not read its journal yet is not taken
// for one of an earlier run.
func TestMoveBeforeTheJournalIsRead(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	a.stop()
	a.late = make(chan struct{})
	a.start()
	a.waitUp("b")
	if _, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b"}); !errors.Is(err, gateway.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	close(a.late)
	if end := a.wait(a.begin("b").ID); end.State != gateway.JobDone {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	noMoves(t, a, b)
	onlyAt(t, b, a, ledger)
}

// In doubt, an operator decides: at the source alone suffices.
func TestOperatorDecides(t *testing.T) {
	for _, where := range []string{"source", "destination"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			a, b, ledger := newPair(t, hvtest.Guest{})
			b.host.Inject(hvtest.Fault{Step: hvtest.StepSinkResume, Err: errors.New("not now"), Times: -1})
			j := a.begin("b")
			if _, err := a.g.RecoverJob(t.Context(), j.ID, where); !errors.Is(err, gateway.ErrBusy) {
				t.Errorf("a decision that is not needed: %v, want ErrBusy", err)
			}
			a.inState(j.ID, gateway.JobInDoubt)
			b.inState(j.ID, gateway.JobInDoubt)
			for _, s := range []*site{a, b} {
				v, err := s.g.Job(t.Context(), j.ID)
				if err != nil || !strings.Contains(v.Safe, "longhaul job recover "+j.ID+" --run source") || !strings.Contains(v.Phase+v.Error, "not now") {
					t.Errorf("at %s the job says that safe is %q, because %q, %q, %v", s.name, v.Safe, v.Phase, v.Error, err)
				}
			}
			if _, err := a.g.AbortJob(t.Context(), j.ID); !errors.Is(err, gateway.ErrBusy) {
				t.Errorf("aborting a move in doubt: %v, want ErrBusy", err)
			}
			if got := ledger.Running("db1"); len(got) != 0 {
				t.Errorf("in doubt, db1 runs at %v", got)
			}
			if _, err := a.g.RecoverJob(t.Context(), j.ID, where); err != nil {
				t.Fatal(err)
			}
			end := a.wait(j.ID)
			b.host.ClearFaults()
			noMoves(t, a, b)
			want, state := "host-b", gateway.JobDone
			if where == "source" {
				want, state = "host-a", gateway.JobFailed
			}
			if end.State != state {
				t.Errorf("%s: %s", end.State, end.Error)
			}
			until(t, "db1 runs", func() bool { return len(ledger.Running("db1")) == 1 })
			ledger.Check(t, "db1", want)
			noChannels(t, 0, a, b)
		})
	}
}

// Somebody resumes the source by hand while the destination is away: it must
// not be told to run any more.
func TestResumedByHandInDoubt(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	reached, goOn := make(chan struct{}), make(chan struct{})
	b.host.Inject(hvtest.Fault{Step: hvtest.StepState, Reached: reached, Wait: goOn, Err: errors.New("the gateway died")})
	j := a.begin("b")
	<-reached
	b.kill()
	close(goOn)
	src, err := a.host.Source(t.Context(), "db1")
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	src.Close()
	b.start()
	if end := a.wait(j.ID); end.State != gateway.JobFailed {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	noMoves(t, a, b)
	ledger.Check(t, "db1", "host-a")
}

// The source's control connection breaks while the destination refuses: the VM
// is resumed over another.
func TestSourceIsAskedAnew(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	reached, goOn := make(chan struct{}), make(chan struct{})
	b.host.Inject(hvtest.Fault{Step: hvtest.StepState, Reached: reached, Wait: goOn, Err: errors.New("broken")})
	j := a.begin("b")
	<-reached
	a.host.DropGateway()
	close(goOn)
	if end := a.wait(j.ID); end.State != gateway.JobFailed {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	ledger.Check(t, "db1", "host-a")
}

// The VM is shut down at the destination while its gateway is away, before the
// source has said that the move is done.
func TestDestinationEndsBeforeDone(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	reached, goOn := make(chan struct{}), make(chan struct{})
	a.host.Inject(hvtest.Fault{Step: hvtest.StepRelease, Reached: reached, Wait: goOn})
	j := a.begin("b")
	<-reached
	b.kill()
	b.host.Crash("db1")
	b.start()
	b.waitUp("a")
	close(goOn)
	if end := a.wait(j.ID); end.State != gateway.JobDone {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	if end := b.wait(j.ID); end.State != gateway.JobDone {
		t.Errorf("at b: %s: %s", end.State, end.Error)
	}
}

// A VM that is paused when it leaves arrives paused, as with virsh.
func TestPausedVMStaysPaused(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{NICs: []gateway.NIC{{MAC: "52:54:00:00:00:01", Tap: "tap0"}}})
	a.host.Pause("db1")
	j := a.migrate("b")
	if j.State != gateway.JobDone {
		t.Fatal(j.Error)
	}
	ledger.Check(t, "db1", "")
	if got := a.l2.String(); !strings.HasSuffix(got, "flip; confirm") {
		t.Errorf("network at a: %s", got)
	}
	src, err := b.host.Source(t.Context(), "db1")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if state, err := src.State(t.Context()); state != gateway.Paused || err != nil {
		t.Errorf("db1 is %s at b, %v; want paused", state, err)
	}
	if err := src.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	ledger.Check(t, "db1", "host-b")
}

// A hypervisor that hangs at the switchover: the VM goes on at its source.
func TestHungDestination(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	a.g.Hurry(time.Second, time.Second, time.Second)
	reached := make(chan struct{})
	b.host.Inject(hvtest.Fault{Step: hvtest.StepDial, Reached: reached, Wait: make(chan struct{})})
	j := a.begin("b")
	<-reached
	if end := a.wait(j.ID); end.State != gateway.JobFailed || !strings.Contains(end.Error, "moved") {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	ledger.Check(t, "db1", "host-a")
	noMoves(t, a, b)
	noChannels(t, 0, a, b)
}
