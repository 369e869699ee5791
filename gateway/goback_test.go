package gateway_test

import (
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// stopIn stops a gateway that is in the middle of something, which then goes on: the
// gateway waits for it.
func (s *site) stopIn(goOn chan struct{}) {
	s.t.Helper()
	var wg sync.WaitGroup
	wg.Go(s.stop)
	if s.g.EndsWithin(500 * time.Millisecond) {
		s.t.Errorf("gateway %s has not waited", s.name)
	}
	close(goOn)
	wg.Wait()
}

// The source's gateway is stopped between the handover and the order to run: the VM
// runs at the destination when it has ended.
func TestStoppedInTheHandover(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	reached, goOn := make(chan struct{}), make(chan struct{})
	a.g.RefuseJournal(func(e gateway.Entry) error {
		if e.Step == gateway.StepHandover {
			close(reached)
			<-goOn
		}
		return nil
	})
	j := a.begin("b")
	a.await(reached, j.ID, "the handover")
	a.stopIn(goOn)
	ledger.Check(t, "db1", "host-b")
	a.start()
	a.inState(j.ID, gateway.JobDone)
	noMoves(t, a, b)
	onlyAt(t, b, a, ledger)
}

// The same when the gateway had taken up the move.
func TestStoppedInTheHandoverTakenUp(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	var opened, open, reached, goOn chan struct{}
	j := whileAway(t, a, b, func() {
		opened, open = a.hold(hvtest.StepSource, nil) // Reopen
		reached, goOn = a.hold(hvtest.StepSource, nil)
	})
	<-opened
	a.waitUp("b")
	close(open)
	<-reached
	a.stopIn(goOn)
	ledger.Check(t, "db1", "host-b")
	a.start()
	a.inState(j.ID, gateway.JobDone)
	noMoves(t, a, b)
	onlyAt(t, b, a, ledger)
}

// The destination's gateway is stopped while it resumes the VM.
func TestStoppedInTheResume(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	reached, goOn := b.hold(hvtest.StepSinkResume, nil)
	j := a.begin("b")
	a.await(reached, j.ID, "the order to run")
	b.stopIn(goOn)
	ledger.Check(t, "db1", "host-b")
	b.start()
	if end := a.wait(j.ID); end.State != gateway.JobDone {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	noMoves(t, a, b)
	onlyAt(t, b, a, ledger)
}
