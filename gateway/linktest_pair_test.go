package gateway_test

import (
	"errors"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// endOfTest waits for the end of a test of the link to a site.
func (s *site) endOfTest(to string) gateway.LinkTest {
	s.t.Helper()
	for {
		got, err := s.g.LinkTest(s.t.Context(), to)
		if err != nil {
			s.t.Fatal(err)
		}
		if got.State != gateway.LinkTestRunning {
			return got
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-s.t.Context().Done():
			s.t.Fatal("the test does not end")
		}
	}
}

// TestLinkTest runs a test between two gateways; a move beside it gets through.
func TestLinkTest(t *testing.T) {
	a, b, ledger := newPair(t, hvtest.Guest{})
	a.g.HurryLinkTests(100*time.Millisecond, 500*time.Millisecond)
	if _, err := a.g.LinkTest(t.Context(), "b"); !errors.Is(err, gateway.ErrNotFound) {
		t.Errorf("before there was one: %v", err)
	}
	if _, err := a.g.StartLinkTest(t.Context(), "q"); !errors.Is(err, gateway.ErrNoSite) {
		t.Errorf("to nobody: %v", err)
	}
	began, err := a.g.StartLinkTest(t.Context(), "b")
	if err != nil || began.State != gateway.LinkTestRunning {
		t.Fatalf("%+v, %v", began, err)
	}
	if _, err := a.g.StartLinkTest(t.Context(), "b"); !errors.Is(err, gateway.ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	if j := a.migrate("b"); j.State != gateway.JobDone {
		t.Errorf("the move beside it: %s, %s", j.State, j.Error)
	}
	got := a.endOfTest("b")
	if got.State != gateway.LinkTestDone || got.There == nil || got.Back == nil || got.Verdict == "" {
		t.Errorf("%+v", got)
	}
	ledger.Check(t, "db1", "host-b")

	a.g.HurryLinkTests(30*time.Second, 30*time.Second) // it is still there when it is stopped
	if _, err := a.g.StartLinkTest(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if err := a.g.StopLinkTest(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if got := a.endOfTest("b"); got.State != gateway.LinkTestFailed || got.Error != "stopped by an operator" {
		t.Errorf("stopped: %+v", got)
	}
	b.stop()
	for {
		s, changed := a.node.Link("b").Watch()
		if !s.Up {
			break
		}
		<-changed
	}
	if _, err := a.g.StartLinkTest(t.Context(), "b"); !errors.Is(err, gateway.ErrUnavailable) {
		t.Errorf("without a link: %v", err)
	}
}
