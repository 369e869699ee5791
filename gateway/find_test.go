package gateway_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// Two hosts of a site have a VM of that name: neither is taken for the one that is
// meant. When one of them only is what a move has left, the other is.
func TestTwoHostsHaveTheVM(t *testing.T) {
	t.Parallel()
	second := hvtest.NewFakeHost("host-a2", new(hvtest.Ledger))
	t.Cleanup(second.Close)
	second.Add(hvtest.Guest{Name: "db1"})
	a, b, ledger := newPairWith(t, hvtest.Guest{}, nil, func(s *site) {
		if s.name == "a" {
			s.others = []gateway.Host{second}
		}
	})
	for _, state := range []string{"running", "paused"} {
		_, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b"})
		if !errors.Is(err, gateway.ErrBusy) || !strings.Contains(err.Error(), "host-a has it (running), and so has host host-a2 ("+state+")") {
			t.Errorf("%s at a2: %v", state, err)
		}
		second.Pause("db1")
	}
	second.Fail(hvtest.StepSource, errors.New("broken on purpose"))
	if end := a.migrate("b"); end.State != gateway.JobDone {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	onlyAt(t, b, a, ledger)
	if end := a.migrate("b"); end.State != gateway.JobFailed { // that at a2: b has one
		t.Errorf("%s: %s", end.State, end.Error)
	}
	if n := second.Count("db1"); n != 1 {
		t.Errorf("%d processes at a2", n)
	}
}

// A host has the VM twice, or cannot be asked, and another has one: that need not be the
// one that is meant. When it runs, a host that cannot be asked does not keep it.
func TestAnotherHostDoesNotTell(t *testing.T) {
	t.Parallel()
	second := hvtest.NewFakeHost("host-a2", new(hvtest.Ledger))
	t.Cleanup(second.Close)
	a, b, ledger := newPairWith(t, hvtest.Guest{}, nil, func(s *site) {
		if s.name == "a" {
			s.others = []gateway.Host{second}
		}
	})
	refused := func(kind error, text string) {
		t.Helper()
		_, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b"})
		if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %v: %s", err, kind, text)
		}
	}
	for range 2 {
		second.Add(hvtest.Guest{Name: "db1"})
	}
	refused(gateway.ErrBusy, "host-a has it (running), and another may have it too: host host-a2: several")
	a.host.Pause("db1")
	refused(gateway.ErrBusy, "host-a has it (paused), and another may have it too: host host-a2: several")
	second.Crash("db1")
	second.Fail(hvtest.StepSource, gateway.ErrUnavailable)
	refused(gateway.ErrUnavailable, "host-a has it (paused), and another may have it too: host host-a2")
	a.resume()
	second.Fail(hvtest.StepSource, gateway.ErrUnavailable)
	if end := a.migrate("b"); end.State != gateway.JobDone {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	onlyAt(t, b, a, ledger)
}
