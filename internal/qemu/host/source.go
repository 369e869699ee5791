package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/qemu/launch"
	"github.com/longhaul-project/longhaul/internal/qemu/qmp"
)

// source implements gateway.Source.
type source struct{ *handle }

var _ gateway.Source = (*source)(nil)

// Source implements gateway.Host.
func (h *Host) Source(ctx context.Context, vm string) (gateway.Source, error) {
	f, err := h.find(ctx, vm)
	if err != nil {
		return nil, err
	}
	return h.openSource(ctx, f, vm)
}

func (h *Host) openSource(ctx context.Context, f found, vm string) (gateway.Source, error) {
	m, err := h.monitors.acquire(ctx, f.path)
	if err != nil {
		return nil, fmt.Errorf("opening %s at %s: %w: %w", vm, h.cfg.Name, gateway.ErrUnavailable, err)
	}
	return &source{h.open(m, vm)}, nil
}

// Reopen implements gateway.Host.
func (h *Host) Reopen(ctx context.Context, vm, process string) (gateway.Source, error) {
	proc, err := launch.ParseID(process)
	if errors.Is(err, launch.ErrID) {
		return nil, fmt.Errorf("opening %s at %s: %w: %w", vm, h.cfg.Name, gateway.ErrInvalid, err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s at %s: %w: %w", vm, h.cfg.Name, gateway.ErrUnavailable, err)
	}
	all, err := h.scan(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if f.proc == proc && proc.PID != 0 {
			return h.reopen(ctx, f, vm)
		}
	}
	if proc.Alive() {
		return nil, fmt.Errorf("%s at %s: no monitor of its process %d answers: %w", vm, h.cfg.Name, proc.PID, gateway.ErrUnavailable)
	}
	err = fmt.Errorf("%s at %s: its process has ended: %w", vm, h.cfg.Name, gateway.ErrNoVM)
	for _, f := range all {
		if f.VMInfo.Name == vm {
			err = fmt.Errorf("%w; process %d at %s has its name now, and is left alone", err, f.proc.PID, f.path)
		}
	}
	return nil, err
}

// reopen opens what a scan has found, unless another process has come to listen there.
func (h *Host) reopen(ctx context.Context, f found, vm string) (gateway.Source, error) {
	src, err := h.openSource(ctx, f, vm)
	if err == nil && src.Process() != f.proc.ID() {
		return nil, errors.Join(fmt.Errorf("%s at %s: another process listens at %s now: %w", vm, h.cfg.Name, f.path, gateway.ErrUnavailable), src.Close())
	}
	return src, err
}

// Process implements gateway.Source.
func (s *source) Process() string { return s.proc.ID() }

// Spec implements gateway.Source. Args are missing if the process cannot be
// seen from here; a destination with a template does without.
func (s *source) Spec(ctx context.Context) (gateway.Spec, error) {
	m, err := s.monitor(ctx)
	if err != nil {
		return gateway.Spec{}, s.unavailable(err)
	}
	vm := gateway.VMInfo{Name: s.vm}
	if err := m.fill(ctx, &vm); err != nil {
		return gateway.Spec{}, s.unavailable(err)
	}
	spec := gateway.Spec{VM: s.vm, UUID: vm.UUID, Memory: vm.Memory, NICs: vm.NICs, Disks: vm.Disks}
	if s.proc.PID != 0 {
		if spec.Args, err = s.proc.Args(); err != nil {
			return gateway.Spec{}, fmt.Errorf("describing %s at %s: %w", s.vm, s.host.cfg.Name, err)
		}
	}
	return spec, nil
}

// defaultBandwidth is what QEMU may write when the move does not say: more
// than any leg takes, as it is the legs that pace it. QEMU's own default of
// 128 MiB/s is not.
const defaultBandwidth = 16 << 30 // bytes per second

// Start implements gateway.Source.
func (s *source) Start(ctx context.Context, uri string, p gateway.MoveParams) error {
	m, err := s.monitor(ctx)
	if err != nil {
		return s.unavailable(err)
	}
	if err := s.startable(ctx, m); err != nil {
		return err
	}
	known, err := m.MigrateCapabilities(ctx)
	if err != nil {
		return s.unavailable(err)
	}
	caps, err := sourceCapabilities(known, p)
	if err != nil {
		return fmt.Errorf("migrating %s: %w", s.vm, err)
	}
	if err := m.SetMigrateCapabilities(ctx, caps); err != nil {
		return fmt.Errorf("migrating %s: %w", s.vm, s.unavailable(err))
	}
	params := qmp.MigrateParameters{
		MaxBandwidth: cmp.Or(p.Bandwidth, defaultBandwidth), DowntimeLimit: downtimeLimit(p.Downtime), MultifdChannels: p.Channels,
	}
	if p.Channels > 0 {
		params.MultifdCompression = "none" // we do that better, over all channels
	}
	if err := m.SetMigrateParameters(ctx, params); err != nil {
		return fmt.Errorf("migrating %s: %w", s.vm, s.unavailable(err))
	}
	if err := m.Migrate(ctx, uri); err != nil {
		return fmt.Errorf("migrating %s to %s: %w", s.vm, uri, s.unavailable(err))
	}
	return nil
}

// startable tells why a migration cannot begin now.
func (s *source) startable(ctx context.Context, m *monitor) error {
	q, err := m.QueryMigrate(ctx)
	if err != nil {
		return s.unavailable(err)
	}
	if !q.Ended() {
		return fmt.Errorf("migrating %s: a migration is %s: %w", s.vm, q.Status, gateway.ErrBusy)
	}
	if len(q.Blocked) > 0 {
		return fmt.Errorf("migrating %s: QEMU cannot: %s: %w", s.vm, q.Blocked[0], gateway.ErrInvalid)
	}
	status, err := m.QueryStatus(ctx)
	if err != nil {
		return s.unavailable(err)
	}
	if state := stateOf(status.Status); state != gateway.Running && state != gateway.Paused {
		return fmt.Errorf("migrating %s: QEMU says that it is %s: %w", s.vm, status.Status, gateway.ErrBusy)
	}
	return nil
}

// maxDowntime is QEMU's (migration/options.c, MAX_MIGRATE_DOWNTIME).
const maxDowntime = 2000 * time.Second

// downtimeLimit is in milliseconds, and 0 leaves QEMU's default of 300.
func downtimeLimit(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return max(1, min(d, maxDowntime).Milliseconds())
}

// sourceCapabilities turns on what the path needs, and off what it cannot
// have, of what this QEMU knows.
func sourceCapabilities(known map[string]bool, p gateway.MoveParams) (map[string]bool, error) {
	want := map[string]bool{
		qmp.CapEvents: true, qmp.CapReturnPath: true, qmp.CapPauseBeforeSwitch: true,
		qmp.CapMultifd: p.Channels > 0, qmp.CapAutoConverge: p.Throttle,
		// Off: what compresses before we can see pages, moves execution before
		// the commit, or leaves part of the VM behind.
		qmp.CapXBZRLE: false, qmp.CapCompress: false, qmp.CapPostcopyRAM: false, qmp.CapPostcopyPreempt: false,
		qmp.CapBackgroundSnapshot: false, qmp.CapZeroCopySend: false, qmp.CapReleaseRAM: false, qmp.CapXColo: false,
		qmp.CapMappedRAM: false, qmp.CapXIgnoreShared: false, qmp.CapBlock: false,
	}
	caps := make(map[string]bool)
	for name, on := range want {
		if _, ok := known[name]; ok {
			caps[name] = on
		} else if on {
			return nil, fmt.Errorf("this QEMU has no capability %s: %w", name, gateway.ErrInvalid)
		}
	}
	return caps, nil
}

// Continue implements gateway.Source.
func (s *source) Continue(ctx context.Context) error {
	m, err := s.monitor(ctx)
	if err != nil {
		return s.unavailable(err)
	}
	if err := m.MigrateContinue(ctx, "pre-switchover"); err != nil {
		return fmt.Errorf("continuing the migration of %s: %w", s.vm, s.unavailable(err))
	}
	return nil
}

// SetDowntime implements gateway.Source.
func (s *source) SetDowntime(ctx context.Context, limit time.Duration) error {
	m, err := s.monitor(ctx)
	if err != nil {
		return s.unavailable(err)
	}
	if err := m.SetMigrateParameters(ctx, qmp.MigrateParameters{DowntimeLimit: downtimeLimit(limit)}); err != nil {
		return fmt.Errorf("changing the downtime of %s: %w", s.vm, s.unavailable(err))
	}
	return nil
}

// How Cancel waits: cancelling takes QEMU some milliseconds, as it shuts its
// sockets down; where it does not, yank does.
const (
	cancelPoll = 20 * time.Millisecond
	yankAfter  = 3 * time.Second
)

// Cancel implements gateway.Source. It returns when the migration has ended.
// ErrBusy: it had completed, and both copies are stopped.
func (s *source) Cancel(ctx context.Context) error {
	m, err := s.monitor(ctx)
	if err != nil {
		return s.unavailable(err)
	}
	q, err := m.QueryMigrate(ctx)
	if err != nil {
		return s.unavailable(err)
	}
	if !q.Ended() {
		if err := m.MigrateCancel(ctx); err != nil {
			return fmt.Errorf("cancelling the migration of %s: %w", s.vm, s.unavailable(err))
		}
	}
	tick := time.NewTicker(cancelPoll)
	defer tick.Stop()
	yank := time.NewTimer(yankAfter)
	defer yank.Stop()
	for {
		done, err := s.settled(ctx, m)
		if done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-yank.C:
			if err := m.YankMigration(ctx); err != nil {
				s.host.log.Warn("yanking the sockets of a migration", "vm", s.vm, "err", err)
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting for the migration of %s to end: %w", s.vm, context.Cause(ctx))
		}
	}
}

// settled tells whether no migration is under way and the VM has been resumed,
// if QEMU had stopped it.
func (s *source) settled(ctx context.Context, m *monitor) (bool, error) {
	q, err := m.QueryMigrate(ctx)
	if err != nil {
		return false, s.unavailable(err)
	}
	status, err := m.QueryStatus(ctx)
	if err != nil {
		return false, s.unavailable(err)
	}
	if status.Status == "postmigrate" {
		return false, fmt.Errorf("the migration of %s had completed: %w", s.vm, gateway.ErrBusy)
	}
	return q.Ended() && status.Status != "finish-migrate", nil
}

// Resume implements gateway.Source. QEMU takes its disks back as it does.
func (s *source) Resume(ctx context.Context) error {
	return s.resume(ctx, "paused", "postmigrate", "prelaunch", "io-error")
}

// Release implements gateway.Source.
func (s *source) Release(ctx context.Context) error {
	m, err := s.monitor(ctx)
	if err == nil {
		q, err := m.QueryMigrate(ctx)
		if err == nil && !q.Ended() {
			return fmt.Errorf("releasing %s at %s: its migration is %s: %w", s.vm, s.host.cfg.Name, q.Status, gateway.ErrBusy)
		}
	} else if errors.Is(err, errHandleClosed) {
		return s.unavailable(err)
	}
	return s.end(ctx, "releasing")
}
