package gateway_test

import (
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
	"github.com/longhaul-project/longhaul/internal/testwan"
)

func newWAN(t *testing.T) *testwan.WAN {
	t.Helper()
	wan := testwan.New(testwan.Line{Delay: 2 * time.Millisecond}, 1)
	t.Cleanup(wan.Close)
	return wan
}

// A phase is a call of a hypervisor during a move from the one site to the other.
type phase struct {
	step hvtest.Step
	sink bool // at the site that the VM comes to
}

var phases = []phase{
	{hvtest.StepPrepare, true}, {hvtest.StepStart, false}, {hvtest.StepDial, true}, {hvtest.StepProgress, false},
	{hvtest.StepContinue, false}, {hvtest.StepState, true}, {hvtest.StepSinkResume, true}, {hvtest.StepRelease, false},
}

func (p phase) String() string { return string(p.step) }

// interrupt begins a move, and calls deed while the phase waits to go on.
func interrupt(t *testing.T, from, to *site, p phase, after bool, err error, deed func()) gateway.Job {
	t.Helper()
	host := from.host
	if p.sink {
		host = to.host
	}
	reached, goOn := make(chan struct{}), make(chan struct{})
	host.Inject(hvtest.Fault{Step: p.step, After: after, Err: err, Reached: reached, Wait: goOn})
	j := from.begin(to.name)
	from.await(reached, j.ID, "phase "+p.String())
	deed()
	close(goOn)
	return j
}

// await waits until a phase of a job is reached, which it is before the job ends.
func (s *site) await(reached <-chan struct{}, id, what string) {
	s.t.Helper()
	events := s.watch(id)
	for last := (gateway.JobEvent{}); ; {
		select {
		case <-reached:
			return
		case ev, more := <-events:
			if more {
				last = ev
				continue
			}
		}
		select {
		case <-reached: // as both were ready
		default:
			s.t.Fatalf("%s is not reached: %+v", what, last.Job)
		}
		return
	}
}

// The WAN goes away for a moment, in each phase: the move takes as much longer.
func TestOutageInEachPhase(t *testing.T) {
	for _, p := range phases {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			wan := newWAN(t)
			a, b, ledger := newPairOver(t, hvtest.Guest{}, wan)
			j := interrupt(t, a, b, p, false, nil, wan.Cut)
			time.Sleep(time.Second)
			wan.Heal()
			if end := a.wait(j.ID); end.State != gateway.JobDone {
				t.Errorf("%s: %s", end.State, end.Error)
			}
			ledger.Check(t, "db1", "host-b")
			noMoves(t, a, b)
			noChannels(t, 0, a, b)
		})
	}
}

// The WAN is away until the link is known to be down. While the VM stands still
// before the order to run, it goes back; after the order, both wait.
func TestLongOutageAtTheSwitchover(t *testing.T) {
	for _, p := range []phase{{hvtest.StepContinue, false}, {hvtest.StepSinkResume, true}} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			wan := newWAN(t)
			a, b, ledger := newPairOver(t, hvtest.Guest{}, wan)
			j := interrupt(t, a, b, p, false, nil, wan.Cut)
			want, state := "host-b", gateway.JobDone
			if p.sink {
				a.inState(j.ID, gateway.JobInDoubt)
			} else {
				want, state = "host-a", gateway.JobFailed
				a.wait(j.ID)
				ledger.Check(t, "db1", want)
			}
			wan.Heal()
			if end := a.wait(j.ID); end.State != state {
				t.Errorf("%s: %s", end.State, end.Error)
			}
			noMoves(t, a, b)
			ledger.Check(t, "db1", want)
			noChannels(t, 0, a, b)
		})
	}
}

// The control connection to the source ends while memory crosses: the job has not
// ended before the migration has, or the next move would find it under way.
func TestSourceLostInTheMiddle(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	again, goOn := make(chan struct{}), make(chan struct{})
	a.host.Inject(hvtest.Fault{Step: hvtest.StepCancel})
	a.host.Inject(hvtest.Fault{Step: hvtest.StepCancel, Reached: again, Wait: goOn})
	j := interrupt(t, a, b, phase{hvtest.StepDial, true}, false, nil, a.host.DropGateway)
	a.await(again, j.ID, "the order to cancel by the new connection")
	if now, err := a.g.Job(t.Context(), j.ID); err != nil || now.State.Ended() {
		t.Errorf("while the migration is under way the job is %s (%v)", now.State, err)
	}
	close(goOn)
	if end := a.wait(j.ID); end.State != gateway.JobFailed {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	ledger.Check(t, "db1", "host-a")
	if end := a.migrate("b"); end.State != gateway.JobDone {
		t.Errorf("the next try: %s: %s", end.State, end.Error)
	}
	ledger.Check(t, "db1", "host-b")
}

// The source's gateway is stopped in the middle of a move: its destination is told so,
// and need not wait until that gateway runs again.
func TestStopTellsTheDestination(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{Rounds: -1})
	j := a.begin("b")
	a.inState(j.ID, gateway.JobMoving)
	a.stop()
	b.inState(j.ID, gateway.JobFailed)
	noMoves(t, b)
	if n := b.host.Count("db1"); n != 0 {
		t.Errorf("%d processes of db1 are left at b", n)
	}
	ledger.Check(t, "db1", "host-a")
}
