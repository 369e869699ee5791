package gateway_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream"
)

func newOpaque() page.Scanner { return vmstream.NewOpaque() }

// fakeL2 notes what a move asks of the network.
type fakeL2 struct {
	mu    sync.Mutex
	deeds []string
}

func (f *fakeL2) note(deed string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deeds = append(f.deeds, deed)
}

func (f *fakeL2) Prepare(_ string, nics []gateway.NIC, to string) {
	f.note(fmt.Sprintf("prepare %v to %s", nics, to))
}
func (f *fakeL2) Flip(string)                         { f.note("flip") }
func (f *fakeL2) Expect(_ string, nics []gateway.NIC) { f.note(fmt.Sprintf("expect %v", nics)) }
func (f *fakeL2) Silence(_, _ string) *gateway.Silence {
	return &gateway.Silence{Gap: 42, Held: 7}
}
func (f *fakeL2) Settle(_ string, nics []gateway.NIC) { f.note(fmt.Sprintf("settle %v", nics)) }
func (f *fakeL2) Confirm(string)                      { f.note("confirm") }
func (f *fakeL2) Revoke(string)                       { f.note("revoke") }

func (f *fakeL2) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.deeds, "; ")
}

func TestMove(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{Memory: 8 << 20, NICs: []gateway.NIC{{MAC: "52:54:00:00:00:01", Tap: "tap0"}}})
	// So thin a line that it is worth compressing on any machine.
	j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b", Rate: 40e6})
	if err != nil {
		t.Fatal(err)
	}
	if j = a.wait(j.ID); j.State != gateway.JobDone {
		t.Fatalf("job: %s: %s", j.State, j.Error)
	}
	ledger.Check(t, "db1", "host-b")
	r := j.Report
	if r == nil || r.Pages < 2000 || r.Digest == "" || r.LogicalBytes < 6<<20 || r.WireBytes > r.LogicalBytes/2 || r.Rounds < 3 || r.Downtime <= 0 || r.Network == nil || r.Network.Gap != 42 {
		t.Errorf("report %+v", r)
	}
	if got, want := a.l2.String(), "prepare [{52:54:00:00:00:01 tap0}] to b; flip; confirm"; got != want {
		t.Errorf("network at a: %s, want %s", got, want)
	}
	far := b.wait(j.ID)
	if far.State != gateway.JobDone || far.Role != "destination" || far.From != "a" {
		t.Errorf("job at b: %+v", far)
	}
	if p := far.Progress; p.Rounds != r.Rounds || p.LogicalBytes != r.LogicalBytes || p.Remaining != 0 {
		t.Errorf("at b the move has ended with %+v, its report says %+v", p, *r)
	}
	if got, want := b.l2.String(), "expect [{52:54:00:00:00:01 tap0}]; settle [{52:54:00:00:00:01 tap0}]; confirm"; got != want {
		t.Errorf("network at b: %s, want %s", got, want)
	}
	for _, s := range []*site{a, b} {
		if open, err := s.g.OpenMoves(); len(open) > 0 || err != nil {
			t.Errorf("journal of %s has open moves: %+v, %v", s.name, open, err)
		}
	}
}

func TestTripHomeIsCheap(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{Memory: 16 << 20, Dirty: 8})
	there := a.migrate("b")
	back := b.migrate("a")
	again := a.migrate("b")
	for _, j := range []gateway.Job{there, back, again} {
		if j.State != gateway.JobDone {
			t.Fatalf("%s -> %s: %s: %s", j.From, j.To, j.State, j.Error)
		}
	}
	ledger.Check(t, "db1", "host-b")
	if there.Report.WireBytes >= there.Report.LogicalBytes {
		t.Errorf("without a cap the way there took %d bytes for %d", there.Report.WireBytes, there.Report.LogicalBytes)
	}
	if back.Report.WireBytes*10 > there.Report.WireBytes || again.Report.WireBytes*10 > there.Report.WireBytes {
		t.Errorf("the way there took %d bytes, back %d, there again %d: the store does not help\n%+v\n%+v\n%+v",
			there.Report.WireBytes, back.Report.WireBytes, again.Report.WireBytes, *there.Report, *back.Report, *again.Report)
	}
}

// TestMultifd: pages of multifd channels are pages as any others: counted, and
// known at the far side when the VM goes home.
func TestMultifd(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{Memory: 16 << 20, Dirty: 8})
	var trips []gateway.Job
	for _, s := range []struct {
		from *site
		to   string
	}{{a, "b"}, {b, "a"}} {
		j, err := s.from.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: s.to, Channels: 2})
		if err != nil {
			t.Fatal(err)
		}
		trips = append(trips, s.from.wait(j.ID))
		if end := trips[len(trips)-1]; end.State != gateway.JobDone || end.Report.Pages < 4000 {
			t.Fatalf("to %s: %s: %s; report %+v", s.to, end.State, end.Error, end.Report)
		}
	}
	ledger.Check(t, "db1", "host-a")
	if there, back := trips[0].Report, trips[1].Report; back.WireBytes*5 > there.WireBytes || back.Refs*2 < back.Pages-back.ZeroPages {
		t.Errorf("the way there took %d bytes, back %d: the store does not help\n%+v\n%+v",
			there.WireBytes, back.WireBytes, *there, *back)
	} else {
		t.Logf("the way there took %d bytes, back %d", there.WireBytes, back.WireBytes)
	}
}

func TestTwoMovesOfOneVM(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{Rounds: -1})
	j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b"}); !errors.Is(err, gateway.ErrBusy) {
		t.Errorf("a second move of db1: %v, want ErrBusy", err)
	}
	if _, err := a.g.AbortJob(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	if end := a.wait(j.ID); end.State != gateway.JobAborted {
		t.Errorf("aborted job is %s: %s", end.State, end.Error)
	}
	if far, err := b.g.Job(t.Context(), j.ID); err == nil && b.wait(j.ID).State != gateway.JobAborted {
		t.Errorf("at b the aborted job is %s: %s", far.State, far.Error)
	}
	ledger.Check(t, "db1", "host-a")
}

// TestCapBoundsTheBacklog: what is on its way follows the cap of the move from
// its begin, not what the link could carry.
func TestCapBoundsTheBacklog(t *testing.T) {
	t.Parallel()
	a, _, _ := newPair(t, hvtest.Guest{Memory: 8 << 20, Rounds: -1})
	j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b", Rate: 2_000_000})
	if err != nil {
		t.Fatal(err)
	}
	events, err := a.g.WatchJob(t.Context(), j.ID)
	if err != nil {
		t.Fatal(err)
	}
	for ev := range events {
		if bound := ev.Job.Progress.BacklogMax; bound > 1<<20 {
			t.Errorf("the backlog of a move capped to 2 Mbit/s may be %d bytes", bound)
		} else if bound == 0 {
			continue
		}
		break
	}
	if _, err := a.g.AbortJob(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	a.wait(j.ID)
}

// TestStandingVMHearsNoOrder: the connections to the source of a move that is aborted while
// its VM stands still end before any order to the source: here it never hears that to
// cancel, finds its connection gone, and resumes the VM by itself, as QEMU does.
func TestStandingVMHearsNoOrder(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{Rounds: 1})
	a.g.DrainFor(time.Hour) // so that it is not this that ends the connection
	reached, heard := make(chan struct{}), make(chan struct{})
	a.host.Inject(hvtest.Fault{Step: hvtest.StepContinue, Reached: reached, Wait: make(chan struct{})})
	a.host.Inject(hvtest.Fault{Step: hvtest.StepCancel, Wait: heard})
	j := a.begin("b")
	a.await(reached, j.ID, "the switchover")
	if at := ledger.Running("db1"); len(at) != 0 {
		t.Fatalf("the VM runs at %v", at)
	}
	if _, err := a.g.AbortJob(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	await(t, "the VM resumes", func() ([]string, bool) {
		at := ledger.Running("db1")
		return at, len(at) == 1
	})
	if j, err := a.g.Job(t.Context(), j.ID); err != nil || j.State.Ended() {
		t.Errorf("the job has ended before the source could hear anything: %+v, %v", j, err)
	}
	close(heard)
	a.wait(j.ID)
	b.wait(j.ID)
	ledger.Check(t, "db1", "host-a")
}

// TestRetryIsCheapOnceTheVMStood: what was on its way when a move was aborted, after its
// VM had been stopped, has arrived: the next move does not send it again. By the cap it
// takes a quarter of a second and more.
func TestRetryIsCheapOnceTheVMStood(t *testing.T) {
	for _, channels := range []int{0, 2} {
		t.Run(fmt.Sprint(channels, " channels"), func(t *testing.T) {
			t.Parallel()
			a, _, ledger := newPair(t, hvtest.Guest{Memory: 8 << 20, Rounds: 1, Dirty: 8})
			reached := make(chan struct{})
			a.host.Inject(hvtest.Fault{Step: hvtest.StepContinue, Reached: reached, Wait: make(chan struct{})})
			j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b", Rate: 10e6, Channels: channels})
			if err != nil {
				t.Fatal(err)
			}
			a.await(reached, j.ID, "the switchover")
			if _, err := a.g.AbortJob(t.Context(), j.ID); err != nil {
				t.Fatal(err)
			}
			first := a.wait(j.ID)
			ledger.Check(t, "db1", "host-a")
			if first.State != gateway.JobAborted {
				t.Fatalf("the first move is %s: %s", first.State, first.Error)
			}
			again := a.migrate("b")
			ledger.Check(t, "db1", "host-b")
			if again.State != gateway.JobDone {
				t.Fatalf("the next move is %s: %s", again.State, again.Error)
			}
			t.Logf("%d bytes crossed at first, of which %d were on their way; %d in the next move", first.Progress.WireBytes, first.Progress.Backlog, again.Report.WireBytes)
			// What the source had said and nobody had read yet, of which the socket's
			// buffers hold some 200 KiB for each connection, crosses for the first time.
			if most := first.Progress.Backlog / 2; again.Report.WireBytes > most {
				t.Errorf("%d bytes crossed in the next move, %d at most", again.Report.WireBytes, most)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	a, _, ledger := newPair(t, hvtest.Guest{})
	for _, c := range []struct {
		req  gateway.MigrateRequest
		want error
		text string
	}{
		{gateway.MigrateRequest{VM: "db2", To: "b"}, gateway.ErrNoVM, `vm "db2" at site a`},
		{gateway.MigrateRequest{VM: "db1", To: "c"}, gateway.ErrNoSite, `site "c": no such site; this gateway knows b`},
		{gateway.MigrateRequest{VM: "db1", To: "a"}, gateway.ErrInvalid, "is this one"},
	} {
		if _, err := a.g.Migrate(t.Context(), c.req); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v, want %v: %s", c.req, err, c.want, c.text)
		}
	}
	j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b", ToHost: "no-such"})
	if err != nil {
		t.Fatal(err)
	}
	if end := a.wait(j.ID); end.State != gateway.JobFailed || !strings.Contains(end.Error, "no-such") {
		t.Errorf("a host that does not exist: %s: %s", end.State, end.Error)
	}
	ledger.Check(t, "db1", "host-a")
}

// Failures of a hypervisor before the commit: the VM stays where it is, the
// reason is told in one line, and the next try works.
func TestFailureLeavesVMAtSource(t *testing.T) {
	broken := errors.New("broken on purpose")
	for _, c := range []struct {
		name   string
		break_ func(a, b *site)
	}{
		{"prepare", func(a, b *site) { b.host.Fail(hvtest.StepPrepare, broken) }},
		{"start", func(a, b *site) { a.host.Fail(hvtest.StepStart, broken) }},
		{"dial", func(a, b *site) { b.host.Fail(hvtest.StepDial, broken) }},
		{"continue", func(a, b *site) { a.host.Fail(hvtest.StepContinue, broken) }},
		{"source leg breaks", func(a, b *site) { a.host.BreakLeg(100_000) }},
		{"sink breaks", func(a, b *site) { b.host.BreakLeg(100_000) }},
		{"sink is found gone at the commit", func(a, b *site) { b.host.Fail(hvtest.StepState, broken) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b, ledger := newPair(t, hvtest.Guest{})
			c.break_(a, b)
			j := a.migrate("b")
			if j.State != gateway.JobFailed || j.Error == "" || strings.Contains(j.Error, "\n") {
				t.Errorf("job is %s: %q", j.State, j.Error)
			}
			ledger.Check(t, "db1", "host-a")
			if got := a.l2.String(); !strings.HasSuffix(got, "revoke") {
				t.Errorf("network: %s", got)
			}
			a.host.ClearFaults()
			b.host.ClearFaults()
			if j := a.migrate("b"); j.State != gateway.JobDone {
				t.Errorf("the next try: %s: %s", j.State, j.Error)
			}
			ledger.Check(t, "db1", "host-b")
		})
	}
}

// Every phase, every gateway: kill -9, restart, and the VM runs at exactly one
// site; then the move works.
func TestKilledGateway(t *testing.T) {
	type phase struct {
		name string
		at   func(a, b *site) *hvtest.FakeHost
		f    hvtest.Fault
	}
	atA := func(a, b *site) *hvtest.FakeHost { return a.host }
	atB := func(a, b *site) *hvtest.FakeHost { return b.host }
	phases := []phase{
		{"prepare", atB, hvtest.Fault{Step: hvtest.StepPrepare}},
		{"prepared, answer lost", atB, hvtest.Fault{Step: hvtest.StepPrepare, After: true}},
		{"start", atA, hvtest.Fault{Step: hvtest.StepStart}},
		{"dial", atB, hvtest.Fault{Step: hvtest.StepDial}},
		{"before the switchover", atA, hvtest.Fault{Step: hvtest.StepContinue}},
		{"order received", atB, hvtest.Fault{Step: hvtest.StepSinkResume}},
		{"order carried out", atB, hvtest.Fault{Step: hvtest.StepSinkResume, After: true}},
		{"release", atA, hvtest.Fault{Step: hvtest.StepRelease}},
		{"released", atA, hvtest.Fault{Step: hvtest.StepRelease, After: true}},
	}
	for _, p := range phases {
		for _, victims := range []string{"a", "b", "ab"} {
			t.Run(p.name+"/"+victims, func(t *testing.T) {
				t.Parallel()
				a, b, ledger := newPair(t, hvtest.Guest{})
				reached := make(chan struct{})
				f := p.f
				goOn := make(chan struct{})
				f.Reached, f.Wait = reached, goOn
				dies := slices.ContainsFunc([]*site{a, b}, func(s *site) bool {
					return strings.Contains(victims, s.name) && s.host == p.at(a, b)
				})
				if dies {
					f.Err = errors.New("the gateway died")
				}
				p.at(a, b).Inject(f)
				j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b"})
				if err != nil {
					t.Fatal(err)
				}
				a.await(reached, j.ID, "the phase")
				for _, s := range []*site{a, b} {
					if strings.Contains(victims, s.name) {
						s.kill()
					}
				}
				close(goOn) // the call of a gateway that lives goes on
				for _, s := range []*site{a, b} {
					if strings.Contains(victims, s.name) {
						s.start()
					}
				}
				a.waitUp("b")
				settle(t, a, b, ledger, j.ID)
			})
		}
	}
}

// TestReportOverARestart: what a move took is told over a restart of the source's
// gateway as far as it can be, and the move is counted once.
func TestReportOverARestart(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	reached, goOn := make(chan struct{}), make(chan struct{})
	b.host.Inject(hvtest.Fault{Step: hvtest.StepSinkResume, Reached: reached, Wait: goOn})
	j := a.begin("b")
	a.await(reached, j.ID, "the order to run")
	a.kill()
	a.start()
	close(goOn)
	a.inState(j.ID, gateway.JobDone)
	end := a.wait(j.ID)
	r := end.Report
	if end.State != gateway.JobDone || r == nil || r.Downtime != -1 || r.LogicalBytes == 0 || r.Total < time.Since(j.Started).Milliseconds()/2 {
		t.Errorf("the job is %s, %s: %+v", end.State, end.Error, r)
	}
	until(t, "the move is counted", func() bool {
		st, err := a.g.Status(t.Context())
		m := st.Moves
		return err == nil && m.Done == 1 && m.Failed == 0 && m.Logical > 0 && m.Wire > 0 && m.Downtime == 0
	})
	if took := a.g.MoveTimes(); took.Duration.Sum == 0 || took.Downtime.Sum != 0 {
		t.Errorf("%+v", took)
	}
}

// settle waits until a move that was disturbed has ended at both sites, checks
// that the VM runs at one, and moves it to the other.
func settle(t *testing.T, a, b *site, ledger *hvtest.Ledger, id string) {
	t.Helper()
	end := a.wait(id)
	where := ledger.Running("db1")
	if len(where) != 1 {
		t.Fatalf("after the job has %s (%s), db1 runs at %v\n%s", end.State, end.Error, where, ledger)
	}
	if (end.State == gateway.JobDone) != (where[0] == "host-b") {
		t.Errorf("the job is %s, and db1 runs at %s", end.State, where[0])
	}
	ledger.Check(t, "db1", where[0])
	noMoves(t, a, b)
	from, to := a, b
	if where[0] == "host-b" {
		from, to = b, a
	}
	from.waitUp(to.name)
	if j := from.migrate(to.name); j.State != gateway.JobDone {
		t.Fatalf("the next move: %s: %s", j.State, j.Error)
	}
	ledger.Check(t, "db1", "host-"+to.name)
}
