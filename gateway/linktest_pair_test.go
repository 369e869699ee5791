package gateway_test

import (
	"errors"
	"strings"
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

// TestLinkTestsWait: the two ends do not test a link at the same time, also when they begin
// together: neither would find what the line carries.
func TestLinkTestsWait(t *testing.T) {
	a, b, _ := newPair(t, hvtest.Guest{})
	hurry := func(long time.Duration) {
		a.g.HurryLinkTests(100*time.Millisecond, long)
		b.g.HurryLinkTests(100*time.Millisecond, long)
	}
	served := func(at *site, by string, want bool) {
		t.Helper()
		for until := time.Now().Add(time.Minute); at.g.ServesLinkTest(by) != want; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("the test of %s is served: %t", by, !want)
			}
		}
	}
	// On a busy machine a dial that took long may still take the place of the link's connection.
	for since := time.Now(); time.Since(since) < time.Second; time.Sleep(10 * time.Millisecond) {
		if s := a.node.Link("b").State(); !s.Up || s.Since.After(since) {
			since = time.Now()
		}
	}
	hurry(100 * time.Millisecond)
	if _, err := a.g.StartLinkTest(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.g.StartLinkTest(t.Context(), "a"); err != nil && !errors.Is(err, gateway.ErrBusy) {
		t.Fatal(err)
	} else if err == nil { // it began before it could know
		if got := b.endOfTest("a"); got.State != gateway.LinkTestFailed || got.Error != "the peer refuses: a test of this link is running already" {
			t.Errorf("begun together, at b: %+v", got)
		}
	}
	if got := a.endOfTest("b"); got.State != gateway.LinkTestDone {
		t.Errorf("begun together, at a: %+v", got)
	}
	served(b, "a", false)

	hurry(30 * time.Second)
	for _, tt := range []struct {
		first, second *site
		of, by        string
	}{{a, b, "b", "a"}, {b, a, "a", "b"}} {
		if _, err := tt.first.g.StartLinkTest(t.Context(), tt.of); err != nil {
			t.Fatal(err)
		}
		served(tt.second, tt.by, true)
		_, err := tt.second.g.StartLinkTest(t.Context(), tt.by)
		if !errors.Is(err, gateway.ErrBusy) || !strings.HasSuffix(err.Error(), "that site is testing it") {
			t.Errorf("beside a test of the other end: %v", err)
		}
		if err := tt.first.g.StopLinkTest(t.Context(), tt.of); err != nil {
			t.Fatal(err)
		}
		tt.first.endOfTest(tt.of)
		served(tt.second, tt.by, false)
	}
}

// TestLinkTestLost: a test during which the link is lost says so, and gives no figures.
func TestLinkTestLost(t *testing.T) {
	a, b, _ := newPair(t, hvtest.Guest{})
	a.g.HurryLinkTests(100*time.Millisecond, 30*time.Second)
	if _, err := a.g.StartLinkTest(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	b.stop()
	got := a.endOfTest("b")
	if got.State != gateway.LinkTestFailed || !strings.HasPrefix(got.Error, "the link was lost during the test: ") || got.Verdict != "" {
		t.Errorf("%+v", got)
	}
}
