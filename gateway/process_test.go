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
	reached, goOn := b.hold(hvtest.StepState, errors.New("the gateway died"))
	j := a.begin("b")
	a.await(reached, j.ID, "the order to run")
	b.kill()
	close(goOn)
	a.stop()
	a.byHand()
	b.start()
	a.start()
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

// In doubt an operator resumes the source by hand, thinks better of it and pauses it,
// while its gateway is away. When the destination runs the VM, that copy is ended.
func TestPausedByHandInDoubt(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	reached, goOn := b.hold(hvtest.StepState, errors.New("the gateway died"))
	j := a.begin("b")
	a.await(reached, j.ID, "the order to run")
	b.kill()
	close(goOn)
	a.stop()
	a.resume()
	a.host.Pause("db1")
	b.start()
	a.start()
	a.inState(j.ID, gateway.JobDone)
	noMoves(t, a, b)
	until(t, "the source ends", func() bool { return a.host.Count("db1") == 0 })
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
// name, as it was.
func TestJournalWithoutProcess(t *testing.T) {
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
	b.start()
	a.start()
	a.inState(j.ID, gateway.JobDone)
	noMoves(t, a, b)
	onlyAt(t, b, a, ledger)
}
