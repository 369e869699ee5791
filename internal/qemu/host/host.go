package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/qemu/launch"
	"github.com/longhaul-project/longhaul/internal/qemu/qmp"
)

// Host is a gateway.Host for the QEMU processes of this machine.
type Host struct {
	cfg      Config
	log      *slog.Logger
	monitors monitors

	mu       sync.Mutex
	starting map[string]bool   // tokens of destinations that are being started
	names    map[string]string // of the VMs that the last scan could ask, by socket
}

var _ gateway.Host = (*Host)(nil)

// New returns a host. It opens nothing.
func New(cfg Config) (*Host, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Host{
		cfg: cfg, log: cfg.Logger, starting: make(map[string]bool), names: make(map[string]string),
		monitors: monitors{byPath: make(map[string]*monitor)},
	}, nil
}

// Close lets go of all monitors. The VMs go on.
func (h *Host) Close() error {
	h.monitors.close()
	return nil
}

// Name implements gateway.Host.
func (h *Host) Name() string { return h.cfg.Name }

// reserve keeps others, and sweep, away from a token's place.
func (h *Host) reserve(token string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.starting[token] {
		return false
	}
	h.starting[token] = true
	return true
}

func (h *Host) unreserve(token string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.starting, token)
}

func (h *Host) isReserved(token string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.starting[token]
}

// sockets returns the paths at which there may be VMs.
func (h *Host) sockets() ([]string, error) {
	paths := slices.Clone(h.cfg.Sockets)
	if h.cfg.Dir != "" {
		entries, err := os.ReadDir(h.cfg.Dir)
		if err != nil {
			return nil, fmt.Errorf("reading qmp_dir: %w: %w", err, gateway.ErrUnavailable)
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); ext == ".sock" || ext == ".qmp" {
				paths = append(paths, filepath.Join(h.cfg.Dir, e.Name()))
			}
		}
	}
	places, err := h.sweep()
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		paths = append(paths, p.qmp())
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

// Limits of a list: how many VMs are asked at a time, and for how long each.
const (
	askAtOnce = 8
	askFor    = 5 * time.Second
)

// found is one VM and where it was found.
type found struct {
	gateway.VMInfo
	path  string
	proc  launch.Process // zero if it cannot be seen from here
	known bool           // the name is the VM's own, or the one that it had
}

// scan asks all VMs.
func (h *Host) scan(ctx context.Context) ([]found, error) {
	paths, err := h.sockets()
	if err != nil {
		return nil, err
	}
	results := make([]*found, len(paths))
	var g errgroup.Group
	g.SetLimit(askAtOnce)
	for i, path := range paths {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, askFor)
			defer cancel()
			results[i] = h.ask(ctx, path)
			return nil
		})
	}
	g.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("listing VMs: %w", context.Cause(ctx))
	}
	var vms []found
	names := make(map[string]string)
	for _, f := range results {
		if f == nil {
			continue
		}
		vms = append(vms, *f)
		if f.known {
			names[f.path] = f.VMInfo.Name
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names = names
	return vms, nil
}

// VMs implements gateway.Host.
func (h *Host) VMs(ctx context.Context) ([]gateway.VMInfo, error) {
	all, err := h.scan(ctx)
	if err != nil {
		return nil, err
	}
	vms := make([]gateway.VMInfo, len(all))
	for i, f := range all {
		vms[i] = f.VMInfo
	}
	return vms, nil
}

// find picks the VM's process that matters most: one that runs, else one that
// can, else what is left of a move.
func (h *Host) find(ctx context.Context, vm string) (found, error) {
	all, err := h.scan(ctx)
	if err != nil {
		return found{}, err
	}
	for _, state := range []gateway.RunState{gateway.Running, gateway.Paused, gateway.Moved} {
		switch is := distinct(all, vm, state); len(is) {
		case 0:
		case 1:
			return is[0], nil
		default: // one may be of another time
			return found{}, fmt.Errorf("%s at %s: %d processes of that name are %s, at %s and %s; end the wrong one: %w",
				vm, h.cfg.Name, len(is), state, is[0].path, is[1].path, gateway.ErrBusy)
		}
	}
	return found{}, h.without(vm, all)
}

// distinct are the processes of a name and a state, as far as they can be told apart: one
// may have two sockets.
func distinct(all []found, vm string, state gateway.RunState) (is []found) {
	for _, f := range all {
		same := func(o found) bool { return o.proc == f.proc || o.proc.PID == 0 || f.proc.PID == 0 }
		if f.VMInfo.Name == vm && f.State == state && !slices.ContainsFunc(is, same) {
			is = append(is, f)
		}
	}
	return is
}

// without tells why there is no process of the VM to be picked. Only when all
// could be asked, and are other VMs, is it ErrNoVM.
func (h *Host) without(vm string, all []found) error {
	for _, f := range all {
		switch {
		case f.VMInfo.Name == vm && f.State == gateway.Incoming:
			return fmt.Errorf("%s at %s waits for a stream: %w", vm, h.cfg.Name, gateway.ErrBusy)
		case f.VMInfo.Name == vm:
			return fmt.Errorf("%s at %s: %w: %s", vm, h.cfg.Name, gateway.ErrUnavailable, f.Problem)
		case !f.known:
			return fmt.Errorf("%s may be at %s: %w: %s", vm, h.cfg.Name, gateway.ErrUnavailable, f.Problem)
		}
	}
	return fmt.Errorf("%s at %s: %w", vm, h.cfg.Name, gateway.ErrNoVM)
}

// ask asks one VM for all that a list shows; nil means that there is none.
func (h *Host) ask(ctx context.Context, path string) *found {
	m, err := h.monitors.acquire(ctx, path)
	if absent(err) {
		return nil
	}
	f := &found{path: path, VMInfo: gateway.VMInfo{Host: h.cfg.Name, State: gateway.Unknown}}
	f.VMInfo.Name, f.known = h.nameAt(path)
	if err != nil {
		f.Problem = err.Error()
		return f
	}
	defer h.monitors.release(m)
	if err := m.fill(ctx, &f.VMInfo); err != nil {
		if m.dead() && !listening(path) { // it ended while we asked
			return nil
		}
		f.Problem = err.Error()
		return f
	}
	f.known, f.proc = true, m.proc
	return f
}

// absent tells whether err means that nobody listens at a socket.
func absent(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}

// listening tells whether somebody listens at a socket. QEMU does not mind a
// client that goes at once, at a monitor.
func listening(path string) bool {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return !absent(err)
	}
	conn.Close()
	return true
}

// nameAt is what we call a VM that does not tell its name, and whether it had
// that name when it could still be asked.
func (h *Host) nameAt(path string) (name string, known bool) {
	if dir := filepath.Dir(path); filepath.Dir(dir) == filepath.Clean(h.cfg.RunDir) {
		if n, err := (place{dir}).read(); err == nil {
			return n.Spec.VM, true
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if name, ok := h.names[path]; ok {
		return name, true
	}
	base := filepath.Base(path)
	return strings.TrimSuffix(base, filepath.Ext(base)), false
}

// fill asks a VM for what is in vm.
func (m *monitor) fill(ctx context.Context, vm *gateway.VMInfo) error {
	vm.Version = m.Version().String()
	vm.Uptime = m.proc.Age()
	status, err := m.QueryStatus(ctx)
	if err != nil {
		return err
	}
	vm.State = stateOf(status.Status)
	if vm.State == gateway.Unknown {
		vm.Problem = "QEMU says that the VM is " + status.Status
	}
	name, err := m.QueryName(ctx)
	if err != nil {
		return err
	}
	if name != "" {
		vm.Name = name
	}
	if vm.UUID, err = m.uuid(ctx); err != nil {
		return err
	}
	if vm.Memory, err = m.QueryMemory(ctx); err != nil {
		return err
	}
	if vm.NICs, err = m.nics(ctx); err != nil {
		return err
	}
	vm.Disks, err = m.disks(ctx)
	return err
}

// uuid is empty for a VM that was started without one.
func (m *monitor) uuid(ctx context.Context) (string, error) {
	uuid, err := m.QueryUUID(ctx)
	if uuid == "00000000-0000-0000-0000-000000000000" {
		uuid = ""
	}
	return uuid, err
}

// nics returns the VM's NICs with the interfaces behind them. A QEMU without
// human monitor does not tell.
func (m *monitor) nics(ctx context.Context) ([]gateway.NIC, error) {
	list, err := m.QueryNICs(ctx)
	if qmp.IsUnknownCommand(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var nics []gateway.NIC
	for _, n := range list {
		tap := n.IfName
		if tap == "" && n.Kind == "tap" {
			tap = m.proc.Tap(n.FD)
		}
		nics = append(nics, gateway.NIC{MAC: n.MAC, Tap: tap})
	}
	return nics, nil
}

// disks returns the block devices that the VM can write.
func (m *monitor) disks(ctx context.Context) ([]gateway.Disk, error) {
	list, err := m.QueryBlock(ctx)
	if err != nil {
		return nil, err
	}
	var disks []gateway.Disk
	for _, d := range list {
		if d.Inserted == nil || d.Inserted.ReadOnly {
			continue
		}
		node := d.Device
		if node == "" {
			node = d.Inserted.NodeName
		}
		disks = append(disks, gateway.Disk{Node: node, Path: d.Inserted.File, Size: d.Inserted.Image.VirtualSize})
	}
	return disks, nil
}

// stateOf maps QEMU's words (qapi/run-state.json) to those of the path.
func stateOf(status string) gateway.RunState {
	switch status {
	case "running":
		return gateway.Running
	case "inmigrate":
		return gateway.Incoming
	case "postmigrate":
		return gateway.Moved
	case "paused", "prelaunch", "finish-migrate", "io-error", "suspended", "watchdog", "debug", "save-vm", "restore-vm", "colo":
		return gateway.Paused
	}
	return gateway.Unknown // shutdown, guest-panicked, internal-error, preconfig: cont does not help
}
