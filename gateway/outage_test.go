package gateway_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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
	select {
	case <-reached:
	case <-time.After(busyTime):
		now, err := from.g.Job(t.Context(), j.ID)
		t.Fatalf("phase %s is not reached: %+v (%v)", p, now, err)
	}
	deed()
	close(goOn)
	return j
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
	select {
	case <-again:
	case <-time.After(busyTime):
		t.Fatal("the migration is not cancelled by the new connection")
	}
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

// chaos moves a VM to and fro, and does something bad in a random phase of each
// move: a gateway or both are killed, control connections drop, the WAN is cut,
// a call fails before or after it took effect.
func chaos(t *testing.T, seed uint64, a, b *site, wan *testwan.WAN, ledger *hvtest.Ledger) {
	r := rand.New(rand.NewPCG(seed, 0))
	from, to := a, b
	if where := ledger.Running("db1"); !slices.Equal(where, []string{"host-a"}) {
		from, to = b, a
	}
	p := phases[r.IntN(len(phases))]
	what := []string{"kill source", "kill sink", "kill both", "cut", "drop source", "drop sink", "fail", "fail after"}[r.IntN(8)]
	var err error
	if strings.HasPrefix(what, "fail") || what == "kill both" || what == "kill source" && !p.sink || what == "kill sink" && p.sink {
		err = errors.New("broken on purpose")
	}
	note := fmt.Sprintf("seed %d: from %s, at %s: %s", seed, from.name, p, what)
	defer func() {
		if t.Failed() {
			t.Log(note)
		}
	}()
	var again []*site
	j := interrupt(t, from, to, p, what == "fail after", err, func() {
		switch what {
		case "kill source":
			again = []*site{from}
		case "kill sink":
			again = []*site{to}
		case "kill both":
			again = []*site{from, to}
		case "cut":
			wan.Cut()
			time.AfterFunc(time.Duration(r.IntN(500))*time.Millisecond, wan.Heal)
		case "drop source":
			from.host.DropGateway()
		case "drop sink":
			to.host.DropGateway()
		}
		for _, s := range again {
			s.kill()
		}
	})
	for _, s := range again {
		s.start()
	}
	from.waitUp(to.name)
	to.waitUp(from.name)
	until(t, "the journal is read", func() bool {
		_, err := from.g.Job(t.Context(), j.ID)
		return err == nil
	})
	end := from.wait(j.ID)
	from.host.ClearFaults()
	to.host.ClearFaults()
	noMoves(t, a, b)
	where := ledger.Running("db1")
	if len(where) != 1 || (end.State == gateway.JobDone) != (where[0] == "host-"+to.name) {
		t.Fatalf("%s: the job is %s (%s), and db1 runs at %v\n%s", note, end.State, end.Error, where, ledger)
	}
	ledger.Check(t, "db1", where[0])
}

// TestChaos runs 50 seeds, or as many as fit into its time; the seed of a
// failure is printed.
func TestChaos(t *testing.T) {
	t.Parallel()
	wan := newWAN(t)
	a, b, ledger := newPairOver(t, hvtest.Guest{}, wan)
	first := rand.Uint64()
	end := time.Now().Add(8 * time.Second)
	for n := range uint64(50) {
		if time.Now().After(end) && !chaosAll {
			t.Logf("%d of 50 seeds", n)
			break
		}
		chaos(t, first+n, a, b, wan, ledger)
		if t.Failed() {
			return
		}
	}
}

// chaosAll lifts the limit of time.
const chaosAll = false
