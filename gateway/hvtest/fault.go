package hvtest

import (
	"context"
	"fmt"
	"slices"
)

// Step names a call of gateway.Host, Source or Sink at which a fake can fail.
type Step string

// The steps: those of the host, of a source, of a sink.
const (
	StepVMs     Step = "vms"
	StepSource  Step = "source"
	StepPrepare Step = "prepare"
	StepAttach  Step = "attach"

	StepSpec     Step = "spec"
	StepStart    Step = "start"
	StepContinue Step = "continue"
	StepCancel   Step = "cancel"
	StepDowntime Step = "downtime"
	StepResume   Step = "resume" // of the source
	StepRelease  Step = "release"

	StepDial       Step = "dial"
	StepSinkResume Step = "sink-resume"
	StepAnnounce   Step = "announce"
	StepDiscard    Step = "discard"

	StepProgress Step = "progress" // of either
	StepState    Step = "state"    // of either
)

// Steps lists all steps, for tests that break each of them.
func Steps() []Step {
	return []Step{
		StepVMs, StepSource, StepPrepare, StepAttach, StepSpec, StepStart, StepContinue, StepCancel, StepDowntime,
		StepResume, StepRelease, StepDial, StepSinkResume, StepAnnounce, StepDiscard, StepProgress, StepState,
	}
}

// A Fault is what happens instead of, or on top of, a step.
type Fault struct {
	Step Step

	// Err is what the call returns. Nil: the call goes well (after Wait).
	Err error

	// After lets the call take effect before it returns Err: the answer was
	// lost, the deed was done.
	After bool

	// Reached is closed, if not nil, when the call arrives.
	Reached chan struct{}

	// Wait holds the call, if not nil, until it is closed or the call's
	// context ends.
	Wait chan struct{}

	// Times is how often the fault happens. Zero means once, -1 for ever.
	Times int
}

// Inject makes the next call of a step fail. Several faults of one step
// happen one after the other.
func (h *FakeHost) Inject(f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f.Times = orOne(f.Times)
	h.faults = append(h.faults, &f)
}

// Fail makes the next call of step return err and do nothing.
func (h *FakeHost) Fail(step Step, err error) { h.Inject(Fault{Step: step, Err: err}) }

// ClearFaults forgets the faults that have not happened yet.
func (h *FakeHost) ClearFaults() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = nil
	h.breakAt, h.blurs = 0, 0
}

// Blur makes the hypervisor say Unknown the next times that it is asked for the state of
// the VM, as QEMU does in states of which no command leads.
func (h *FakeHost) Blur(vm string, times int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blurred, h.blurs = vm, times
}

// blur tells whether the state of the VM is not told this time.
func (h *FakeHost) blur(vm string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.blurred != vm || h.blurs == 0 {
		return false
	}
	h.blurs--
	return true
}

// BreakLeg makes the next migration at this host, out or in, break its main
// connection after n bytes of stream. A sink's process ends with it.
func (h *FakeHost) BreakLeg(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.breakAt = n
}

// takeBreak returns the number of bytes after which to break; 0 is never.
func (h *FakeHost) takeBreak() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.breakAt
	h.breakAt = 0
	return n
}

// do runs one step, with the fault that waits for it.
func (h *FakeHost) do(ctx context.Context, step Step, f func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	fault := h.takeFault(step)
	if fault.Reached != nil {
		close(fault.Reached)
	}
	if fault.Wait != nil {
		select {
		case <-fault.Wait:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", step, context.Cause(ctx))
		}
	}
	if fault.Err != nil && !fault.After {
		return fault.Err
	}
	if err := h.answer(ctx, step, f); err != nil {
		return err
	}
	return fault.Err
}

func (h *FakeHost) takeFault(step Step) Fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.faults, func(f *Fault) bool { return f.Step == step })
	if i < 0 {
		return Fault{}
	}
	f := h.faults[i]
	taken := *f
	f.Reached = nil // closed once
	if f.Times > 0 {
		f.Times--
	}
	if f.Times == 0 {
		h.faults = slices.Delete(h.faults, i, i+1)
	}
	return taken
}

func orOne(n int) int {
	if n == 0 {
		return 1
	}
	return n
}
