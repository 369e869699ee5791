package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/qemu/launch"
	"github.com/longhaul-project/longhaul/internal/qemu/qmp"
)

// Prepare implements gateway.Host.
func (h *Host) Prepare(ctx context.Context, spec gateway.Spec) (gateway.Sink, error) {
	p := h.place(spec.Token)
	values := launch.Values{Name: spec.VM, UUID: spec.UUID, Memory: spec.Memory, Token: spec.Token, QMP: p.qmp()}
	if err := values.Check(); err != nil {
		return nil, fmt.Errorf("preparing: %w: %w", gateway.ErrInvalid, err)
	}
	if err := checkNICs(spec.NICs); err != nil {
		return nil, fmt.Errorf("preparing %s: %w: %w", spec.VM, gateway.ErrInvalid, err)
	}
	if !h.reserve(spec.Token) {
		return nil, fmt.Errorf("destination with token %s: %w", spec.Token, gateway.ErrExists)
	}
	defer h.unreserve(spec.Token)
	if err := h.free(ctx, spec); err != nil {
		return nil, err
	}
	args, err := h.commandLine(spec, values, p)
	if err != nil {
		return nil, fmt.Errorf("preparing %s at %s: %w: %w", spec.VM, h.cfg.Name, gateway.ErrInvalid, err)
	}
	if err := os.MkdirAll(h.cfg.RunDir, 0o700); err != nil {
		return nil, fmt.Errorf("making the run directory: %w", err)
	}
	if err := os.Mkdir(p.dir, 0o700); errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("destination with token %s: %w", spec.Token, gateway.ErrExists)
	} else if err != nil {
		return nil, fmt.Errorf("making a place for the destination: %w", err)
	}
	sink, err := h.start(ctx, spec, args, p)
	if err != nil {
		return nil, fmt.Errorf("preparing %s at %s: %w", spec.VM, h.cfg.Name, err)
	}
	return sink, nil
}

// maxNICs bounds what a hook may be told; a q35 has room for about 30.
const maxNICs = 256

// checkNICs refuses what is no MAC or no name of an interface: hooks may be
// shell scripts.
func checkNICs(nics []gateway.NIC) error {
	if len(nics) > maxNICs {
		return fmt.Errorf("%d NICs", len(nics))
	}
	for _, n := range nics {
		if mac, err := net.ParseMAC(n.MAC); n.MAC != "" && (err != nil || len(mac) != 6) {
			return fmt.Errorf("MAC %.40q", n.MAC)
		}
		if n.Tap != "" && !launch.IsInterface(n.Tap) {
			return fmt.Errorf("interface %.40q", n.Tap)
		}
	}
	return nil
}

// free refuses a VM that this host has already, or of which an earlier move has
// left the source: there would be two of that name, and the VM could be taken for
// what it once was.
func (h *Host) free(ctx context.Context, spec gateway.Spec) error {
	all, err := h.scan(ctx)
	if err != nil {
		return err
	}
	for _, f := range all {
		switch {
		case f.VMInfo.Name != spec.VM:
		case f.State == gateway.Moved:
			return fmt.Errorf("%s has been migrated away from %s, and its process is still there; end that first: %w", spec.VM, h.cfg.Name, gateway.ErrExists)
		case f.State == gateway.Running || f.State == gateway.Paused:
			return fmt.Errorf("%s is %s at %s: %w", spec.VM, f.State, h.cfg.Name, gateway.ErrExists)
		}
	}
	return nil
}

// commandLine is what the destination is started with.
func (h *Host) commandLine(spec gateway.Spec, values launch.Values, p place) ([]string, error) {
	if len(h.cfg.Template) > 0 {
		return launch.Expand(h.cfg.Template, values)
	}
	return launch.Rewrite(spec.Args, launch.Options{
		Name: spec.VM, QMP: p.qmp(), Dir: p.dir, Emulators: h.cfg.Emulators,
	})
}

// start starts the destination, and leaves nothing behind when that fails.
func (h *Host) start(ctx context.Context, spec gateway.Spec, args []string, p place) (_ *sink, err error) {
	limit := h.cfg.startLimit(spec.Memory)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %v", limit))
	defer cancel()
	st := &starter{host: h, spec: spec, place: p}
	defer func() {
		if err != nil {
			st.undo(context.WithoutCancel(ctx))
		}
	}()
	if err := p.write(notes{Spec: spec}); err != nil {
		return nil, err
	}
	st.hooked = true // half a hook wants clearing up too
	if err := h.hook(ctx, "before", h.cfg.Before, spec); err != nil {
		return nil, err
	}
	if err := st.run(args); err != nil {
		return nil, st.explain(err)
	}
	m, err := st.connect(ctx)
	if err != nil {
		return nil, st.explain(err)
	}
	s := &sink{handle: h.open(m, spec.VM), place: p, nics: spec.NICs}
	if err = st.verify(ctx, m); err == nil {
		err = s.listen(ctx, m, spec.Channels)
	}
	if err != nil {
		s.Close()
		return nil, st.explain(err)
	}
	return s, nil
}

// A starter is one start of a destination.
type starter struct {
	host   *Host
	spec   gateway.Spec
	place  place
	hooked bool             // the hook before the start has been run
	procs  []launch.Process // what was started, and what then listened
}

// explain adds what the process said.
func (st *starter) explain(err error) error {
	if said := st.place.tail(); said != "" {
		return fmt.Errorf("%w; it says: %s", err, said)
	}
	return err
}

// undo ends what was started.
func (st *starter) undo(ctx context.Context) {
	for _, p := range st.procs {
		if err := p.Kill(); err != nil {
			st.host.log.Warn("ending a destination that did not start", "vm", st.spec.VM, "err", err)
		}
		wait, cancel := context.WithTimeout(ctx, killWait)
		p.Wait(wait)
		cancel()
	}
	if err := st.host.remove(st.place); err != nil {
		st.host.log.Warn("cleaning up after a destination that did not start", "vm", st.spec.VM, "err", err)
	}
	if !st.hooked {
		return
	}
	if err := st.host.hook(ctx, "after", st.host.cfg.After, st.spec); err != nil {
		st.host.log.Warn("running the hook after the end of a VM", "vm", st.spec.VM, "err", err)
	}
}

func (st *starter) run(args []string) error {
	log, err := os.OpenFile(st.place.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer log.Close()
	proc, err := launch.Start(args, st.host.env("run", st.spec), st.host.cfg.WorkDir, log)
	if err != nil {
		return err
	}
	return st.note(proc)
}

// note remembers a process, on disk first.
func (st *starter) note(p launch.Process) error {
	st.procs = append(st.procs, p)
	return st.place.write(notes{Spec: st.spec, Process: p})
}

// Waiting for the monitor: how often we look, and how long a template's
// command may have ended before that which it has left behind listens.
const (
	connectPoll  = 10 * time.Millisecond
	detachedWait = 2 * time.Second
)

// connect waits until the monitor answers: QEMU listens before it allocates the memory
// of its guest, and greets afterwards.
func (st *starter) connect(ctx context.Context) (*monitor, error) {
	tick := time.NewTicker(connectPoll)
	defer tick.Stop()
	var ended time.Time
	for {
		m, err := st.host.monitors.acquire(ctx, st.place.qmp())
		if err == nil {
			if m.proc.PID != 0 && m.proc != st.procs[0] { // the template's command has started it
				err = st.note(m.proc)
			}
			if err != nil {
				st.host.monitors.release(m)
				return nil, err
			}
			return m, nil
		}
		if !absent(err) && !errors.Is(err, qmp.ErrMonitorBusy) {
			return nil, err
		}
		if !st.procs[0].Alive() {
			if ended.IsZero() {
				ended = time.Now()
			}
			if len(st.host.cfg.Template) == 0 || time.Since(ended) > detachedWait {
				return nil, errors.New("it ended before its monitor answered")
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the monitor: %w", context.Cause(ctx))
		}
	}
}

// verify compares what was started with what was asked for, as a template may
// start anything.
func (st *starter) verify(ctx context.Context, m *monitor) error {
	var vm gateway.VMInfo
	if err := m.fill(ctx, &vm); err != nil {
		return err
	}
	if vm.State != gateway.Incoming {
		return fmt.Errorf("the VM is %s, it has to wait for a stream (-incoming defer): %w", vm.State, gateway.ErrInvalid)
	}
	if vm.UUID != st.spec.UUID {
		return fmt.Errorf("the VM has UUID %q, its source has %q: %w", vm.UUID, st.spec.UUID, gateway.ErrInvalid)
	}
	if vm.Memory != st.spec.Memory {
		return fmt.Errorf("the VM has %d bytes of memory, its source has %d: %w", vm.Memory, st.spec.Memory, gateway.ErrInvalid)
	}
	return nil
}
