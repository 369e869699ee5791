package hvtest

import (
	"errors"
	"slices"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
)

// A Pair is two hosts of two sites and a VM that runs at A.
type Pair struct {
	A, B gateway.Host
	VM   string

	// Restart does to a host what the death and the restart of its gateway
	// do: it closes all control connections and returns the host as the new
	// gateway finds it. May be nil, which leaves out the tests that need it.
	Restart func(t *testing.T, h gateway.Host) gateway.Host

	// Check looks at what the interface does not show, such as processes and
	// files that were left behind, when the VM must be running at the named
	// host and nowhere else. May be nil.
	Check func(t *testing.T, at string)
}

// Run tests an adaptor. mk makes a new pair, and registers with t.Cleanup what
// ends it.
func Run(t *testing.T, mk func(t *testing.T) Pair) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p Pair)
	}{
		{"list", testList},
		{"no such vm", testNoVM},
		{"spec", testSpec},
		{"prepare and discard", testPrepare},
		{"refuses what is not safe", testRefusals},
		{"move", testMove},
		{"move with two channels", testChannels},
		{"back and forth", testBackAndForth},
		{"cancel before start", testCancelIdle},
		{"cancel while active", testCancelActive},
		{"cancel before switchover", testCancelSwitchover},
		{"cancel after the stream", testCancelLate},
		{"leg breaks while active", testLegBreaks},
		{"leg breaks in the switchover", testLegBreaksLate},
		{"sink ends while active", testSinkEnds},
		{"resume the source of a finished migration", testResumeMoved},
		{"attach before the stream", testAttachEarly},
		{"attach after the stream", testAttachLate},
		{"restart of both gateways", testRestart},
		{"a process is told from another", testProcess},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mk(t)
			c.test(t, p)
		})
	}
}

func testList(t *testing.T, p Pair) {
	vm := find(t, p.A, p.VM)
	if vm == nil {
		t.Fatalf("%s does not list %s", p.A.Name(), p.VM)
	}
	if vm.State != gateway.Running || vm.Host != p.A.Name() || vm.Memory <= 0 || vm.UUID == "" || vm.Version == "" || vm.Problem != "" {
		t.Errorf("listed as %+v", *vm)
	}
	if vm := find(t, p.B, p.VM); vm != nil {
		t.Errorf("%s lists %+v", p.B.Name(), *vm)
	}
	p.check(t, p.A)
}

// find returns the VM as the host lists it.
func find(t *testing.T, h gateway.Host, name string) *gateway.VMInfo {
	t.Helper()
	vms, err := h.VMs(t.Context())
	if err != nil {
		t.Fatalf("listing the VMs of %s: %v", h.Name(), err)
	}
	if i := slices.IndexFunc(vms, func(vm gateway.VMInfo) bool { return vm.Name == name }); i >= 0 {
		return &vms[i]
	}
	return nil
}

// check ends a test: the VM runs at h, and at no other host.
func (p Pair) check(t *testing.T, h gateway.Host) {
	t.Helper()
	for _, host := range []gateway.Host{p.A, p.B} {
		vm := find(t, host, p.VM)
		if host.Name() != h.Name() && vm != nil {
			t.Errorf("%s still lists %+v", host.Name(), *vm)
		}
		if host.Name() == h.Name() && (vm == nil || vm.State != gateway.Running) {
			t.Errorf("%s lists %+v, want it running", host.Name(), vm)
		}
	}
	if p.Check != nil {
		p.Check(t, h.Name())
	}
}

func testNoVM(t *testing.T, p Pair) {
	if _, err := p.A.Source(t.Context(), "no-such-vm"); !errors.Is(err, gateway.ErrNoVM) {
		t.Errorf("Source of no VM: %v, want ErrNoVM", err)
	}
	if _, err := p.B.Attach(t.Context(), gateway.Spec{VM: p.VM, Token: newToken()}); !errors.Is(err, gateway.ErrNoVM) {
		t.Errorf("Attach with an unknown token: %v, want ErrNoVM", err)
	}
	p.check(t, p.A)
}

func testSpec(t *testing.T, p Pair) {
	src, err := p.A.Source(t.Context(), p.VM)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := src.Spec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vm := find(t, p.A, p.VM)
	if spec.VM != p.VM || spec.UUID != vm.UUID || spec.Memory != vm.Memory || len(spec.Args) == 0 {
		t.Errorf("spec %+v of %+v", spec, *vm)
	}
	if !slices.Equal(spec.NICs, vm.NICs) {
		t.Errorf("spec has NICs %v, the list has %v", spec.NICs, vm.NICs)
	}
	log := logEvents("source", src.Events())
	if err := src.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	log.await(t, gateway.EventClosed, "")
	p.check(t, p.A)
}

func testPrepare(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 0)
	m.want(m.sink, gateway.Incoming)
	if vm := find(t, p.B, p.VM); vm == nil || vm.State != gateway.Incoming {
		t.Errorf("%s lists %+v, want it incoming", p.B.Name(), vm)
	}
	if len(m.sink.NICs()) != len(m.spec.NICs) {
		t.Errorf("sink has NICs %v, want %v", m.sink.NICs(), m.spec.NICs)
	}
	if _, err := p.B.Prepare(m.ctx, m.spec); !errors.Is(err, gateway.ErrExists) {
		t.Errorf("preparing the same token again: %v, want ErrExists", err)
	}
	if _, err := p.B.Source(m.ctx, p.VM); !errors.Is(err, gateway.ErrBusy) {
		t.Errorf("Source of a VM that waits for a stream: %v, want ErrBusy", err)
	}
	m.discard()
	if _, err := p.B.Attach(m.ctx, m.spec); !errors.Is(err, gateway.ErrNoVM) {
		t.Errorf("Attach after Discard: %v, want ErrNoVM", err)
	}
	m.close()
	p.check(t, p.A)
}

// discard ends the sink, and does so again, which is no error.
func (m *move) discard() {
	m.t.Helper()
	for range 2 {
		if err := m.sink.Discard(m.ctx); err != nil {
			m.t.Errorf("discarding: %v", err)
		}
	}
	m.want(m.sink, gateway.Gone)
}

func testRefusals(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 0)
	for _, token := range []string{"", "../../../../../../../etc/x", "0123456789abcdef", m.spec.Token + "00"} {
		bad := m.spec
		bad.Token = token
		if _, err := p.B.Prepare(m.ctx, bad); !errors.Is(err, gateway.ErrInvalid) {
			t.Errorf("preparing with token %q: %v, want ErrInvalid", token, err)
		}
	}
	twice := m.spec
	twice.Token = newToken()
	if _, err := p.A.Prepare(m.ctx, twice); !errors.Is(err, gateway.ErrExists) {
		t.Errorf("preparing a VM where it runs: %v, want ErrExists", err)
	}
	if err := m.sink.Resume(m.ctx); err == nil {
		t.Error("resumed a sink that waits for its stream")
	}
	if err := m.src.Release(m.ctx); !errors.Is(err, gateway.ErrBusy) {
		t.Errorf("releasing a VM that runs: %v, want ErrBusy", err)
	}
	if err := m.src.Continue(m.ctx); err == nil {
		t.Error("continued without a migration")
	}
	m.start()
	m.srcLog.await(t, gateway.EventStatus, "pre-switchover")
	if err := m.src.Start(m.ctx, m.leg.uri, m.params()); !errors.Is(err, gateway.ErrBusy) {
		t.Errorf("starting twice: %v, want ErrBusy", err)
	}
	if err := m.src.Resume(m.ctx); err == nil {
		t.Error("resumed the source in the middle of its switchover")
	}
	m.want(m.src, gateway.Paused)
	m.load() // and the refused Resume of the sink has not made it start by itself
	if _, err := p.A.Prepare(m.ctx, twice); !errors.Is(err, gateway.ErrExists) {
		t.Errorf("preparing a VM where its source has not been released: %v, want ErrExists", err)
	}
	m.commit()
	p.check(t, p.B)
}

func testMove(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 0)
	m.want(m.src, gateway.Running)
	m.start()
	m.load()
	if pr, err := m.src.Progress(m.ctx); err != nil || pr.Status != "completed" || pr.Total <= 0 || pr.Transferred <= 0 || pr.Rounds < 1 {
		t.Errorf("progress of the source %+v, error %v", pr, err)
	}
	if pr, err := m.sink.Progress(m.ctx); err != nil || pr.Status != "completed" {
		t.Errorf("progress of the sink %+v, error %v", pr, err)
	}
	if vm := find(t, p.A, p.VM); vm == nil || vm.State != gateway.Moved {
		t.Errorf("%s lists %+v, want it moved", p.A.Name(), vm)
	}
	m.commit()
	status := func(s string) gateway.Event { return gateway.Event{Kind: gateway.EventStatus, Text: s} }
	m.srcLog.inOrder(t, gateway.Event{Kind: gateway.EventPass}, status("active"), gateway.Event{Kind: gateway.EventStop},
		status("pre-switchover"), status("device"), status("completed"), gateway.Event{Kind: gateway.EventClosed})
	m.sinkLog.inOrder(t, status("active"), status("completed"), gateway.Event{Kind: gateway.EventResume}, gateway.Event{Kind: gateway.EventClosed})
	p.check(t, p.B)
}

func testChannels(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 2)
	m.start()
	m.load()
	m.commit()
	p.check(t, p.B)
}

func testBackAndForth(t *testing.T, p Pair) {
	from, to := p.A, p.B
	var args int
	for trip := range 6 {
		m := newMove(t, from, to, p.VM, 0)
		switch {
		case trip == 2: // both hosts have started it once by now
			args = len(m.spec.Args)
		case trip > 2 && len(m.spec.Args) != args:
			t.Errorf("trip %d: the command line has %d words, it had %d: %q", trip, len(m.spec.Args), args, m.spec.Args)
		}
		m.start()
		m.load()
		m.commit()
		from, to = to, from
	}
	p.check(t, p.A)
}

// testProcess moves the VM there and home: the source that was first is not taken
// for the one that came home, and neither for that at the other host.
func testProcess(t *testing.T, p Pair) {
	seen := map[string]bool{}
	for _, trip := range []struct{ from, to gateway.Host }{{p.A, p.B}, {p.B, p.A}} {
		m := newMove(t, trip.from, trip.to, p.VM, 0)
		id := m.src.Process()
		if id == "" || seen[id] {
			t.Errorf("the process at %s is %q; those before were %v", trip.from.Name(), id, seen)
		}
		for old := range seen {
			if _, err := trip.from.Reopen(m.ctx, p.VM, old); !errors.Is(err, gateway.ErrNoVM) {
				t.Errorf("reopening %q at %s: %v, want ErrNoVM", old, trip.from.Name(), err)
			}
		}
		seen[id] = true
		m.start()
		m.load()
		again, err := trip.from.Reopen(m.ctx, p.VM, id)
		if err != nil {
			t.Fatalf("reopening: %v", err)
		}
		if state, err := again.State(m.ctx); again.Process() != id || state != gateway.Moved || err != nil {
			t.Errorf("reopened: %q is %s, error %v; want %q moved", again.Process(), state, err, id)
		}
		again.Close()
		m.commit()
		if _, err := trip.from.Reopen(m.ctx, p.VM, id); !errors.Is(err, gateway.ErrNoVM) {
			t.Errorf("reopening after the release: %v, want ErrNoVM", err)
		}
	}
	if _, err := p.A.Reopen(t.Context(), p.VM, "no identity"); err == nil {
		t.Error("reopened what is no identity")
	}
	p.check(t, p.A)
}
