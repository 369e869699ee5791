package gateway_test

import (
	"errors"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// onlyAt waits until one process of db1 is left, and checks that it runs at a site.
func onlyAt(t *testing.T, s, other *site, ledger *hvtest.Ledger) {
	t.Helper()
	until(t, "all other processes end", func() bool {
		return s.host.Count("db1") == 1 && other.host.Count("db1") == 0
	})
	ledger.Check(t, "db1", "host-"+s.name)
}

// hold has the next call of a step at s wait, and returns when it has come.
func (s *site) hold(step hvtest.Step, err error) (reached, goOn chan struct{}) {
	reached, goOn = make(chan struct{}), make(chan struct{})
	s.host.Inject(hvtest.Fault{Step: step, Err: err, Reached: reached, Wait: goOn})
	return reached, goOn
}

// The destination has loaded the VM, gives it up, and its gateway dies before the
// process has been ended; or the hypervisor does not obey. The process would be in
// the way of the next move.
func TestDestinationIsLeft(t *testing.T) {
	for name, dies := range map[string]bool{"killed": true, "refused": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, ledger := newPair(t, hvtest.Guest{})
			b.host.Fail(hvtest.StepState, errors.New("broken on purpose"))
			reached, goOn := b.hold(hvtest.StepDiscard, errors.New("not now"))
			j := a.begin("b")
			a.await(reached, j.ID, "the end of the destination")
			if dies {
				b.kill()
			}
			close(goOn)
			if dies {
				b.start()
				a.waitUp("b")
			}
			if end := a.wait(j.ID); end.State != gateway.JobFailed {
				t.Errorf("%s: %s", end.State, end.Error)
			}
			if end := a.migrate("b"); end.State != gateway.JobDone {
				t.Errorf("the next move: %s: %s", end.State, end.Error)
			}
			onlyAt(t, b, a, ledger)
		})
	}
}

// The source does not end when it is told to, and goes on not to. When the VM
// comes home it is gone.
func TestSourceIsLeft(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	a.host.Inject(hvtest.Fault{Step: hvtest.StepRelease, Err: errors.New("not now"), Times: 3})
	if end := a.migrate("b"); end.State != gateway.JobDone {
		t.Fatalf("%s: %s", end.State, end.Error)
	}
	if end := b.migrate("a"); end.State != gateway.JobDone {
		t.Errorf("the trip home: %s: %s", end.State, end.Error)
	}
	onlyAt(t, a, b, ledger)
}

// The source's gateway is stopped while the process there is being ended: the
// next run ends it.
func TestStoppedInTheRelease(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	reached, _ := a.hold(hvtest.StepRelease, nil)
	j := a.begin("b")
	a.await(reached, j.ID, "the release")
	a.stop()
	a.start()
	a.inState(j.ID, gateway.JobDone)
	onlyAt(t, b, a, ledger)
}

// The source's gateway dies in a move and begins anew: the next move need not wait
// until the destination asks what has become of the first.
func TestNextMoveAfterARestart(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	b.g.Hurry(time.Hour, time.Minute, time.Second)
	reached, goOn := a.hold(hvtest.StepStart, errors.New("the gateway died"))
	j := a.begin("b")
	a.await(reached, j.ID, "the start")
	a.kill()
	close(goOn)
	a.start()
	a.inState(j.ID, gateway.JobFailed)
	if end := a.migrateAgain("b"); end.State != gateway.JobDone {
		t.Errorf("the next move: %s: %s", end.State, end.Error)
	}
	onlyAt(t, b, a, ledger)
}

// The destination's gateway dies when the VM runs there, and begins anew: the VM may
// move on before its process has been looked at.
func TestMoveOnAfterARestart(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	reached, goOn := a.hold(hvtest.StepRelease, nil)
	j := a.begin("b")
	a.await(reached, j.ID, "the release")
	b.kill()
	_, look := b.hold(hvtest.StepAttach, nil)
	b.start()
	close(goOn)
	a.wait(j.ID)
	meet(a, b)
	if end := b.migrate("a"); end.State != gateway.JobDone {
		t.Errorf("the next move: %s: %s", end.State, end.Error)
	}
	close(look)
	noMoves(t, a, b)
	onlyAt(t, a, b, ledger)
}

// migrateAgain is migrate over a link that may be coming up.
func (s *site) migrateAgain(to string) gateway.Job {
	s.t.Helper()
	s.waitUp(to)
	return s.wait(s.begin(to).ID)
}

// The hypervisor does not take the order to cancel, several times: the job has not
// ended before the migration has.
func TestCancelIsRepeated(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	a.host.Fail(hvtest.StepContinue, errors.New("broken on purpose"))
	a.host.Inject(hvtest.Fault{Step: hvtest.StepCancel, Err: errors.New("not now"), Times: 5})
	reached, goOn := a.hold(hvtest.StepCancel, nil)
	j := a.begin("b")
	a.await(reached, j.ID, "the sixth order to cancel")
	if now, err := a.g.Job(t.Context(), j.ID); err != nil || now.State.Ended() {
		t.Errorf("while the migration is under way the job is %s (%v)", now.State, err)
	}
	close(goOn)
	if end := a.wait(j.ID); end.State != gateway.JobFailed {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	if end := a.migrate("b"); end.State != gateway.JobDone {
		t.Errorf("the next move: %s: %s", end.State, end.Error)
	}
	onlyAt(t, b, a, ledger)
}
