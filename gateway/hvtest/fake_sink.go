package hvtest

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/longhaul-project/longhaul/gateway"
)

// fakeSink implements gateway.Sink.
type fakeSink struct{ *handle }

var _ gateway.Sink = (*fakeSink)(nil)

// Dial implements gateway.Sink. Unlike a command it needs no monitor.
func (s *fakeSink) Dial(ctx context.Context) (conn net.Conn, err error) {
	err = s.p.host.do(ctx, StepDial, func() error {
		near, far, err := s.p.host.pipe()
		if err != nil {
			return err
		}
		s.p.mu.Lock()
		defer s.p.mu.Unlock()
		if s.p.state != gateway.Incoming {
			near.Close()
			far.Close()
			return fmt.Errorf("dialling %s: it is %s: %w", s.p.guest.Name, s.p.state, gateway.ErrUnavailable)
		}
		s.p.in.accept(far)
		conn = near
		return nil
	})
	return conn, err
}

// Resume implements gateway.Sink.
func (s *fakeSink) Resume(ctx context.Context) error {
	return s.call(ctx, StepSinkResume, func() error {
		if s.p.state != gateway.Paused && s.p.state != gateway.Running {
			return fmt.Errorf("the VM is %s: %w", s.p.state, gateway.ErrBusy)
		}
		s.p.run()
		return nil
	})
}

// Announce implements gateway.Sink.
func (s *fakeSink) Announce(ctx context.Context) error {
	return s.call(ctx, StepAnnounce, func() error {
		s.p.host.note("announce " + s.p.guest.Name)
		return nil
	})
}

// Discard implements gateway.Sink.
func (s *fakeSink) Discard(ctx context.Context) error { return s.quit(ctx, StepDiscard) }

// NICs implements gateway.Sink.
func (s *fakeSink) NICs() []gateway.NIC { return slices.Clone(s.p.guest.NICs) }
