package gateway_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// refuseDone has the journal not take that the moves away from here are done.
func (s *site) refuseDone() {
	s.g.RefuseJournal(func(e gateway.Entry) error {
		if e.Step == gateway.StepDone && e.Role == gateway.RoleSource {
			return errDisk
		}
		return nil
	})
}

// The end of a move was not written down, the VM has come home since, and was paused
// by its operator: the source's next run does not take it for what the move has left.
func TestHomeAgainIsNotReleased(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	a.refuseDone()
	if end := a.migrate("b"); end.State != gateway.JobDone {
		t.Fatalf("%s: %s", end.State, end.Error)
	}
	if end := b.migrate("a"); end.State != gateway.JobDone {
		t.Fatalf("the trip home: %s: %s", end.State, end.Error)
	}
	onlyAt(t, a, b, ledger)
	a.host.Pause("db1")
	a.stop()
	a.start()
	noMoves(t, a, b)
	if n := a.host.Count("db1"); n != 1 {
		t.Errorf("%d processes of db1 at a after its gateway has started again", n)
	}
}

// Neither was the end of a move written down nor did its source end: the next run of
// the gateway ends both.
func TestReleasedByTheNextRun(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	a.refuseDone()
	a.host.Inject(hvtest.Fault{Step: hvtest.StepRelease, Err: errors.New("not now"), Times: 3})
	if end := a.migrate("b"); end.State != gateway.JobDone {
		t.Fatalf("%s: %s", end.State, end.Error)
	}
	a.stop()
	a.start()
	onlyAt(t, b, a, ledger)
	noMoves(t, a, b)
}

// The end of a move was not written down, its source has ended, and somebody has
// started a VM of that name by hand: it is left alone.
func TestStartedByHandIsNotReleased(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	a.refuseDone()
	if end := a.migrate("b"); end.State != gateway.JobDone {
		t.Fatalf("%s: %s", end.State, end.Error)
	}
	a.stop()
	b.host.Crash("db1")
	a.host.Add(hvtest.Guest{Name: "db1"})
	a.host.Pause("db1")
	a.start()
	noMoves(t, a)
	if n := a.host.Count("db1"); n != 1 {
		t.Errorf("%d processes of db1 at a", n)
	}
}

// That a move had failed was not written down, the next one has moved the VM, and what
// that has left is there when the gateway starts again: nothing runs it.
func TestOldMoveIsNotTakenUp(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	a.g.RefuseJournal(func(e gateway.Entry) error {
		if e.Step == gateway.StepAborted && e.Role == gateway.RoleSource {
			return errDisk
		}
		return nil
	})
	a.host.Fail(hvtest.StepContinue, errors.New("broken on purpose"))
	if end := a.migrate("b"); end.State != gateway.JobFailed {
		t.Fatalf("%s: %s", end.State, end.Error)
	}
	a.host.Inject(hvtest.Fault{Step: hvtest.StepRelease, Err: errors.New("not now"), Times: 3})
	if end := a.migrate("b"); end.State != gateway.JobDone {
		t.Fatalf("the next try: %s: %s", end.State, end.Error)
	}
	a.stop()
	a.start()
	noMoves(t, a)
	onlyAt(t, b, a, ledger)
}

// Two processes have the VM's name, and both have handed it over: neither is taken
// for the VM.
func TestTwoOfOneName(t *testing.T) {
	t.Parallel()
	a, _, _ := newPair(t, hvtest.Guest{})
	a.host.Add(hvtest.Guest{Name: "db1"})
	if _, err := a.host.Source(t.Context(), "db1"); !errors.Is(err, gateway.ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
}

// leftAt waits until a site's status tells of one thing that a move has left, or of none.
func (s *site) leftAt(text string) {
	s.t.Helper()
	until(s.t, "left at "+s.name+": "+text, func() bool {
		st, err := s.g.Status(s.t.Context())
		if err != nil || text == "" {
			return err == nil && len(st.Left) == 0
		}
		return len(st.Left) == 1 && strings.Contains(st.Left[0].Problem, text) && st.Left[0].Host == "host-"+s.name && st.Left[0].VM == "db1"
	})
}

// Neither is the end of a move written down nor does its source end, for a while: both
// are shown, and done by the same run of the gateway.
func TestReleasedWithoutARestart(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	var full atomic.Bool
	full.Store(true)
	a.g.RefuseJournal(func(e gateway.Entry) error {
		if full.Load() && e.Step == gateway.StepDone {
			return errDisk
		}
		return nil
	})
	a.host.Inject(hvtest.Fault{Step: hvtest.StepRelease, Err: errors.New("not now"), Times: 3})
	reached, goOn := a.hold(hvtest.StepRelease, errors.New("nor now"))
	if end := a.migrate("b"); end.State != gateway.JobDone {
		t.Fatalf("%s: %s", end.State, end.Error)
	}
	a.leftAt(errDisk.Error())
	full.Store(false)
	<-reached
	close(goOn)
	a.leftAt("nor now")
	a.leftAt("")
	noMoves(t, a, b)
	onlyAt(t, b, a, ledger)
}

// That a move has failed is not written down for a while, and then it is: a restart does
// not resume what an operator has paused since.
func TestFailureIsWrittenLater(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	var full atomic.Bool
	full.Store(true)
	a.g.RefuseJournal(func(e gateway.Entry) error {
		if full.Load() && e.Step == gateway.StepAborted {
			return errDisk
		}
		return nil
	})
	a.host.Fail(hvtest.StepContinue, errors.New("broken on purpose"))
	if end := a.migrate("b"); end.State != gateway.JobFailed {
		t.Fatalf("%s: %s", end.State, end.Error)
	}
	a.leftAt(errDisk.Error())
	a.host.Pause("db1")
	full.Store(false)
	a.leftAt("")
	noMoves(t, a, b)
	a.stop()
	a.start()
	noMoves(t, a)
	ledger.Check(t, "db1", "")
}

// The source of a move is not released, and is resumed by hand: only an operator knows
// what for, and is told of it until it has ended, whether it runs or is paused again.
func TestResumedByHandIsShown(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	a.host.Inject(hvtest.Fault{Step: hvtest.StepRelease, Err: errors.New("not now"), Times: 3})
	reached, goOn := a.hold(hvtest.StepRelease, errors.New("nor now"))
	if end := a.migrate("b"); end.State != gateway.JobDone {
		t.Fatalf("%s: %s", end.State, end.Error)
	}
	<-reached
	a.resume()
	close(goOn)
	a.leftAt("end one of them by hand at once")
	a.untouched(gateway.Running)
	a.host.Pause("db1")
	a.leftAt("is paused; if db1 runs at site b, end it by hand")
	a.untouched(gateway.Paused)
	a.host.Crash("db1")
	a.leftAt("")
	b.untouched(gateway.Running)
}

// A journal of a version that did not tell processes apart: what has the VM's name at its
// source may be another VM. It is neither ended nor shown as what the move has left.
func TestOtherOfTheNameIsNotShown(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	a.host.Inject(hvtest.Fault{Step: hvtest.StepRelease, Err: errors.New("not now"), Times: -1})
	if end := a.migrate("b"); end.State != gateway.JobDone {
		t.Fatalf("%s: %s", end.State, end.Error)
	}
	a.leftAt("not now")
	all, err := a.g.Moves()
	if err != nil || len(all) != 1 || !all[0].Left || all[0].Process == "" {
		t.Fatalf("the journal has %+v, %v", all, err)
	}
	all[0].Process = ""
	if err := a.g.WriteJournal(all[0]); err != nil {
		t.Fatal(err)
	}
	a.byHand()
	a.host.Pause("db1")
	a.host.ClearFaults()
	a.leftAt("")
	a.untouched(gateway.Paused)
	b.untouched(gateway.Running)
}
