package hvtest

import (
	"context"
	"fmt"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
)

// fakeSource implements gateway.Source.
type fakeSource struct{ *handle }

var _ gateway.Source = (*fakeSource)(nil)

// Process implements gateway.Source.
func (s *fakeSource) Process() string { return s.p.id() }

// Spec implements gateway.Source.
func (s *fakeSource) Spec(ctx context.Context) (spec gateway.Spec, err error) {
	err = s.call(ctx, StepSpec, func() error {
		g := s.p.guest
		spec = gateway.Spec{VM: g.Name, UUID: g.UUID, Memory: g.Memory, Args: g.args(), NICs: g.NICs, Disks: g.Disks}
		return nil
	})
	return spec, err
}

// Start implements gateway.Source.
func (s *fakeSource) Start(ctx context.Context, uri string, params gateway.MoveParams) error {
	return s.call(ctx, StepStart, func() error {
		if s.p.out.active() {
			return fmt.Errorf("a migration is under way: %w", gateway.ErrBusy)
		}
		if s.p.state != gateway.Running && s.p.state != gateway.Paused {
			return fmt.Errorf("the VM is %s: %w", s.p.state, gateway.ErrBusy)
		}
		s.p.startOutgoing(uri, params)
		return nil
	})
}

// Continue implements gateway.Source.
func (s *fakeSource) Continue(ctx context.Context) error {
	return s.call(ctx, StepContinue, func() error {
		if s.p.progress.Status != "pre-switchover" {
			return fmt.Errorf("migration is %q, not pre-switchover: %w", s.p.progress.Status, gateway.ErrBusy)
		}
		select {
		case s.p.out.proceed <- struct{}{}:
		default: // told already
		}
		return nil
	})
}

// Cancel implements gateway.Source. It waits until the migration has ended.
func (s *fakeSource) Cancel(ctx context.Context) error {
	var out *outgoing
	err := s.call(ctx, StepCancel, func() error {
		if out = s.p.out; out.active() {
			s.p.setStatus("cancelling")
			out.cancel(errCancelled)
		}
		return nil
	})
	if err != nil || out == nil {
		return err
	}
	select {
	case <-out.done:
	case <-ctx.Done():
		return fmt.Errorf("waiting for the migration to end: %w", context.Cause(ctx))
	}
	if state, err := s.State(ctx); err != nil || state != gateway.Moved {
		return err
	}
	return fmt.Errorf("the migration had completed: %w", gateway.ErrBusy)
}

// SetDowntime implements gateway.Source.
func (s *fakeSource) SetDowntime(ctx context.Context, limit time.Duration) error {
	return s.call(ctx, StepDowntime, func() error {
		if out := s.p.out; out.active() && limit > out.params.Downtime {
			out.raised = true
		}
		return nil
	})
}

// Resume implements gateway.Source.
func (s *fakeSource) Resume(ctx context.Context) error {
	return s.call(ctx, StepResume, func() error {
		if s.p.out.active() && s.p.state != gateway.Running {
			return fmt.Errorf("the migration has not ended, cancel it first: %w", gateway.ErrBusy)
		}
		s.p.run()
		return nil
	})
}

// Release implements gateway.Source.
func (s *fakeSource) Release(ctx context.Context) error { return s.quit(ctx, StepRelease) }

// quit ends a process whose guest does not run.
func (h *handle) quit(ctx context.Context, step Step) error {
	return h.p.host.do(ctx, step, func() error {
		h.p.mu.Lock()
		running := h.p.state == gateway.Running
		h.p.mu.Unlock()
		if running {
			return fmt.Errorf("%s: the VM runs: %w", step, gateway.ErrBusy)
		}
		h.p.exit("quit")
		return nil
	})
}
