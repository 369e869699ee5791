package gateway_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// byHand ends the VM's process at a site and starts another of its name, as somebody may
// while the gateway is away.
func (s *site) byHand() {
	s.host.Crash("db1")
	s.host.Add(hvtest.Guest{Name: "db1"})
}

// untouched checks that one process of the VM is at a site, in a state.
func (s *site) untouched(state gateway.RunState) {
	s.t.Helper()
	vms, err := s.host.VMs(s.t.Context())
	if err != nil || len(vms) != 1 || vms[0].State != state {
		s.t.Errorf("at %s: %+v, %v; want one that is %s", s.name, vms, err, state)
	}
}

// In the middle of a move its source's gateway dies, the VM's process ends, and another
// of its name is started by hand, and paused: it is not resumed.
func TestStartedByHandInTheMove(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	reached, goOn := a.hold(hvtest.StepStart, errors.New("the gateway died"))
	j := a.begin("b")
	a.await(reached, j.ID, "the start")
	a.kill()
	close(goOn)
	a.byHand()
	a.host.Pause("db1")
	a.start()
	a.inState(j.ID, gateway.JobFailed)
	if end := a.wait(j.ID); !strings.Contains(end.Error, "has its name") {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	noMoves(t, a, b)
	a.untouched(gateway.Paused)
	until(t, "the destination ends", func() bool { return b.host.Count("db1") == 0 })
}

// The order to run may have been sent when the gateways end, and another process of the
// VM's name is started at the source: it is left alone, and the destination is not told
// to run beside it. When it has ended the move goes on.
func TestStartedByHandInDoubt(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	j := whileAway(t, a, b, a.byHand)
	until(t, "the job tells of the other process", func() bool {
		v, err := a.g.Job(t.Context(), j.ID)
		return err == nil && v.State == gateway.JobInDoubt && strings.Contains(v.Phase, "another process") && strings.Contains(v.Safe, "end that process")
	})
	a.untouched(gateway.Running)
	b.untouched(gateway.Paused)
	a.host.Crash("db1")
	if end := a.wait(j.ID); end.State != gateway.JobDone {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	noMoves(t, a, b)
	b.untouched(gateway.Running)
}

// runsOn ends the process at a that keeps a move in doubt: the VM runs at b then, as the one copy.
func runsOn(t *testing.T, a, b *site, j gateway.Job, ledger *hvtest.Ledger) {
	t.Helper()
	a.host.Crash("db1")
	if end := a.wait(j.ID); end.State != gateway.JobDone {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	noMoves(t, a, b)
	b.untouched(gateway.Running)
	onceAt(t, b, ledger)
}

// whileAway ends both gateways when the order to run may have been sent, has deed happen
// at a, and starts them.
func whileAway(t *testing.T, a, b *site, deed func()) gateway.Job {
	t.Helper()
	reached, goOn := b.hold(hvtest.StepState, errors.New("the gateway died"))
	j := a.begin("b")
	a.await(reached, j.ID, "the order to run")
	b.kill()
	close(goOn)
	a.kill()
	deed()
	b.start()
	a.start()
	return j
}

// The same in one run of the source's gateway.
func TestStartedByHandInTheSameRun(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	reached, goOn := b.hold(hvtest.StepState, errors.New("the gateway died"))
	j := a.begin("b")
	a.await(reached, j.ID, "the order to run")
	b.kill()
	close(goOn)
	a.byHand()
	b.start()
	a.inDoubtFor(j.ID, "another process")
	b.untouched(gateway.Paused)
	runsOn(t, a, b, j, ledger)
}

// The WAN is cut when the order to run is sent, and the source is resumed by hand. When
// the WAN is back that order does not arrive any more, but that to give up does.
func TestOrderIsRecalled(t *testing.T) {
	t.Parallel()
	wan := newWAN(t)
	a, b, ledger := newPairOver(t, hvtest.Guest{}, wan)
	a.g.RefuseJournal(func(e gateway.Entry) error {
		if e.Step == gateway.StepHandover {
			wan.Cut()
		}
		return nil
	})
	j := a.begin("b")
	a.inDoubtFor(j.ID, "no answer")
	a.resume()
	a.inDoubtFor(j.ID, "told to give up")
	until(t, "the link is down", func() bool { return !a.node.Link("b").State().Up && !b.node.Link("a").State().Up })
	wan.Heal()
	a.inState(j.ID, gateway.JobFailed)
	noMoves(t, a, b)
	onlyAt(t, a, b, ledger)
}

// pass lets the next calls of a step at a site pass.
func (s *site) pass(step hvtest.Step, times int) {
	s.host.Inject(hvtest.Fault{Step: step, Times: times})
}

// inDoubtFor waits until a job is in doubt for a reason.
func (s *site) inDoubtFor(id, why string) {
	s.t.Helper()
	until(s.t, "in doubt for: "+why, func() bool {
		v, err := s.g.Job(s.t.Context(), id)
		return err == nil && v.State == gateway.JobInDoubt && strings.Contains(v.Phase, why)
	})
}

// onceAt fails if the VM has executed at a site beside another copy of it.
func onceAt(t *testing.T, s *site, ledger *hvtest.Ledger) {
	t.Helper()
	for _, f := range ledger.Faults() {
		if strings.Contains(f, " and at host-"+s.name) {
			t.Error(f)
		}
	}
}

// As many as two of the VM's name are started at the source, or the host cannot be asked
// for it: that is no word that there is none.
func TestStrangersThatAreNotTold(t *testing.T) {
	for name, c := range map[string]struct {
		strangers int
		err       error
		why       string
	}{
		"two":              {strangers: 2, why: "several processes"},
		"one, not told of": {strangers: 1, err: gateway.ErrUnavailable, why: "it is not known whether another process"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, ledger := newPair(t, hvtest.Guest{})
			j := whileAway(t, a, b, func() {
				a.host.Crash("db1")
				for range c.strangers {
					a.host.Add(hvtest.Guest{Name: "db1"})
				}
				if c.err != nil {
					a.pass(hvtest.StepSource, 1) // Reopen
					a.host.Inject(hvtest.Fault{Step: hvtest.StepSource, Err: c.err, Times: -1})
				}
			})
			a.inDoubtFor(j.ID, c.why)
			b.untouched(gateway.Paused)
			a.host.ClearFaults()
			runsOn(t, a, b, j, ledger)
		})
	}
}

// The destination has ended, and the VM is to run at its source again: not while it is
// unknown whether another process of its name runs there.
func TestNotResumedBesideAStranger(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	var reached, goOn chan struct{}
	j := whileAway(t, a, b, func() {
		b.host.Crash("db1")
		a.pass(hvtest.StepSource, 2) // Reopen, and before the order
		reached, goOn = a.hold(hvtest.StepSource, gateway.ErrUnavailable)
	})
	<-reached
	a.host.Add(hvtest.Guest{Name: "db1"})
	close(goOn)
	if end := a.wait(j.ID); end.State != gateway.JobFailed || !strings.Contains(end.Error, "not resumed at its source: another process") {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	noMoves(t, a, b)
	onceAt(t, a, &hvtest.Ledger{})
	if where := ledger.Running("db1"); len(where) != 1 {
		t.Errorf("db1 runs at %v", where)
	}
}

// The source was resumed by hand, and does not tell so at once: the destination is not
// told to run beside it.
func TestResumedByHandAndNotTold(t *testing.T) {
	for name, tell := range map[string]func(*hvtest.FakeHost){
		"no answer": func(h *hvtest.FakeHost) {
			h.Inject(hvtest.Fault{Step: hvtest.StepState, Err: gateway.ErrUnavailable, Times: 2})
		},
		"unknown": func(h *hvtest.FakeHost) { h.Blur("db1", 1) },
		"dropped": func(h *hvtest.FakeHost) { h.Fail(hvtest.StepState, gateway.ErrUnavailable) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, ledger := newPair(t, hvtest.Guest{})
			j := whileAway(t, a, b, func() {
				a.resume()
				tell(a.host)
			})
			a.inState(j.ID, gateway.JobFailed)
			noMoves(t, a, b)
			onlyAt(t, a, b, ledger)
		})
	}
}

// In doubt an operator resumes the source by hand, thinks better of it and pauses it. What
// the VM did there counts: the destination does not run from before that.
func TestPausedByHandInDoubt(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	j := whileAway(t, a, b, func() {
		a.resume()
		a.host.Pause("db1")
	})
	a.inState(j.ID, gateway.JobFailed)
	noMoves(t, a, b)
	onlyAt(t, a, b, ledger)
}

// The same without a restart of the source's gateway.
func TestPausedByHandInTheSameRun(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	reached, goOn := b.hold(hvtest.StepState, errors.New("the gateway died"))
	j := a.begin("b")
	a.await(reached, j.ID, "the order to run")
	a.resume()
	a.host.Pause("db1")
	b.kill()
	close(goOn)
	b.start()
	if end := a.wait(j.ID); end.State != gateway.JobFailed {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	noMoves(t, a, b)
	onlyAt(t, a, b, ledger)
}

// The destination runs the VM, its answer is lost, and the source is resumed by hand
// beside it, and paused: the move is done, and that copy is left to operators.
func TestPausedByHandBesideTheDestination(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	reached, goOn := b.hold(hvtest.StepSinkResume, nil)
	j := a.begin("b")
	a.await(reached, j.ID, "the order to run")
	a.kill()
	close(goOn)
	until(t, "db1 runs at b", func() bool { return len(ledger.Running("db1")) == 1 })
	a.resume()
	a.host.Pause("db1")
	a.start()
	a.inState(j.ID, gateway.JobDone)
	noMoves(t, a, b)
	a.leftAt("end it by hand")
	a.untouched(gateway.Paused)
	b.untouched(gateway.Running)
}

// resume executes the VM at a site by hand.
func (s *site) resume() {
	s.t.Helper()
	src, err := s.host.Source(s.t.Context(), "db1")
	if err != nil {
		s.t.Fatal(err)
	}
	defer src.Close()
	if err := src.Resume(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// A journal of a version that did not tell processes apart: the source is found by its
// name, as it was. One of that name that is paused may be another, which decides nothing.
func TestJournalWithoutProcess(t *testing.T) {
	for name, another := range map[string]bool{"its own": false, "another": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, ledger := newPair(t, hvtest.Guest{})
			reached, goOn := b.hold(hvtest.StepState, errors.New("the gateway died"))
			j := a.begin("b")
			a.await(reached, j.ID, "the order to run")
			b.kill()
			close(goOn)
			open, err := a.g.OpenMoves()
			if err != nil || len(open) != 1 || open[0].Process == "" {
				t.Fatalf("the journal has %+v, %v", open, err)
			}
			open[0].Process = ""
			if err := a.g.WriteJournal(open[0]); err != nil {
				t.Fatal(err)
			}
			a.kill()
			if another {
				a.byHand()
				a.host.Pause("db1")
			}
			b.start()
			a.start()
			if another {
				a.inDoubtFor(j.ID, "not known whether it is that of the move")
				a.untouched(gateway.Paused)
				b.untouched(gateway.Paused)
				return
			}
			a.inState(j.ID, gateway.JobDone)
			noMoves(t, a, b)
			onlyAt(t, b, a, ledger)
		})
	}
}
