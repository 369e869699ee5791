package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/qemu/qmp"
)

// sink implements gateway.Sink.
type sink struct {
	*handle
	place place
	nics  []gateway.NIC
}

var _ gateway.Sink = (*sink)(nil)

// listen makes the destination ready for connections. Capabilities come first:
// they count from the moment that it listens.
func (s *sink) listen(ctx context.Context, m *monitor, channels int) error {
	known, err := m.MigrateCapabilities(ctx)
	if err != nil {
		return err
	}
	caps := map[string]bool{qmp.CapEvents: true, qmp.CapReturnPath: true, qmp.CapMultifd: channels > 0}
	if _, ok := known[qmp.CapLateBlockActivate]; ok {
		caps[qmp.CapLateBlockActivate] = true // the disks stay the source's until Resume
	}
	if err := m.SetMigrateCapabilities(ctx, caps); err != nil {
		return err
	}
	if channels > 0 {
		params := qmp.MigrateParameters{MultifdChannels: channels, MultifdCompression: "none"}
		if err := m.SetMigrateParameters(ctx, params); err != nil {
			return err
		}
	}
	return m.MigrateIncoming(ctx, "unix:"+s.place.in())
}

// Attach implements gateway.Host.
func (h *Host) Attach(ctx context.Context, spec gateway.Spec) (gateway.Sink, error) {
	if !isToken(spec.Token) {
		return nil, fmt.Errorf("token %.40q: %w", spec.Token, gateway.ErrInvalid)
	}
	p := h.place(spec.Token)
	n, err := p.read()
	switch {
	case errors.Is(err, os.ErrNotExist) || (err == nil && h.abandoned(p)):
		return nil, fmt.Errorf("destination of %s at %s with token %s: %w", spec.VM, h.cfg.Name, spec.Token, gateway.ErrNoVM)
	case err != nil:
		return nil, err
	}
	m, err := h.monitors.acquire(ctx, p.qmp())
	if err != nil {
		return nil, fmt.Errorf("attaching to %s at %s: %w: %w", n.Spec.VM, h.cfg.Name, gateway.ErrUnavailable, err)
	}
	s := &sink{handle: h.open(m, n.Spec.VM), place: p, nics: n.Spec.NICs}
	if err := s.catchUp(ctx, m, n); err != nil {
		return nil, errors.Join(s.unavailable(err), s.Close())
	}
	return s, nil
}

// catchUp does what Prepare had not come to when the gateway died.
func (s *sink) catchUp(ctx context.Context, m *monitor, n notes) error {
	if n.Process != m.proc && m.proc.PID != 0 {
		n.Process = m.proc
		if err := s.place.write(n); err != nil {
			return err
		}
	}
	status, err := m.QueryStatus(ctx)
	if err != nil || stateOf(status.Status) != gateway.Incoming {
		return err
	}
	q, err := m.QueryMigrate(ctx)
	if err != nil || (q.Status != "" && q.Status != "none") {
		return err
	}
	// QEMU 7.2 has no status of its own for listening, and to try the socket
	// would be the stream's first connection.
	if _, err := os.Lstat(s.place.in()); err == nil {
		return nil
	}
	return s.listen(ctx, m, n.Spec.Channels)
}

// Dial implements gateway.Sink.
func (s *sink) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", s.place.in())
	if err != nil {
		return nil, fmt.Errorf("connecting to the destination of %s: %w: %w", s.vm, gateway.ErrUnavailable, err)
	}
	return conn, nil
}

// Resume implements gateway.Sink. A VM that was paused at its source may be
// in another of QEMU's states; it can be resumed once the stream is loaded.
func (s *sink) Resume(ctx context.Context) error {
	return s.resume(ctx, "paused", "prelaunch", "io-error", "suspended")
}

// How NICs announce themselves: QEMU's own defaults (migration/options.c,
// announce-*), five times within a second.
const (
	announceInitial = 50 * time.Millisecond
	announceMax     = 550 * time.Millisecond
	announceStep    = 100 * time.Millisecond
	announceRounds  = 5
)

// Announce implements gateway.Sink.
func (s *sink) Announce(ctx context.Context) error {
	m, err := s.monitor(ctx)
	if err != nil {
		return s.unavailable(err)
	}
	if err := m.AnnounceSelf(ctx, announceInitial, announceMax, announceStep, announceRounds); err != nil {
		return fmt.Errorf("announcing %s: %w", s.vm, s.unavailable(err))
	}
	return nil
}

// Discard implements gateway.Sink.
func (s *sink) Discard(ctx context.Context) error { return s.end(ctx, "discarding") }

// NICs implements gateway.Sink.
func (s *sink) NICs() []gateway.NIC { return slices.Clone(s.nics) }
