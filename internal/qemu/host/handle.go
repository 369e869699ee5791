package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/qemu/launch"
	"github.com/longhaul-project/longhaul/internal/qemu/qmp"
)

// A handle is what Source and Sink have in common: one VM, held.
type handle struct {
	host *Host
	vm   string
	path string         // of its monitor
	proc launch.Process // zero if it cannot be seen from here

	events chan gateway.Event
	cancel context.CancelFunc
	pumped sync.WaitGroup

	mu     sync.Mutex
	mon    *monitor // replaced when the connection was lost
	closed bool
}

// eventRoom is how many events may wait for the reader of Events; as many
// again as qmp keeps wait behind them.
const eventRoom = 16

// open makes a handle of a monitor, which it takes.
func (h *Host) open(m *monitor, vm string) *handle {
	ctx, cancel := context.WithCancel(context.Background())
	hd := &handle{
		host: h, vm: vm, path: m.path, proc: m.proc, mon: m,
		events: make(chan gateway.Event, eventRoom), cancel: cancel,
	}
	sub := m.Subscribe("MIGRATION", "MIGRATION_PASS", "STOP", "RESUME", "RESET", "SHUTDOWN")
	hd.pumped.Go(func() { hd.pump(ctx, sub) })
	return hd
}

// pump turns QEMU's events into ours until there are no more.
func (h *handle) pump(ctx context.Context, sub *qmp.Subscription) {
	defer close(h.events)
	defer sub.Close()
	for {
		ev, err := sub.Next(ctx)
		if err != nil {
			h.last(ctx, err)
			return
		}
		out, ok := eventOf(ev)
		if !ok {
			continue
		}
		select {
		case h.events <- out:
		case <-ctx.Done():
		}
	}
}

// last sends EventClosed. When the reader has closed the handle and left events
// unread, the oldest of them makes room.
func (h *handle) last(ctx context.Context, err error) {
	text := err.Error()
	if ctx.Err() != nil {
		text = "closed by this side"
	}
	closed := gateway.Event{Kind: gateway.EventClosed, At: time.Now(), Text: text}
	for {
		select {
		case h.events <- closed:
			return
		case <-ctx.Done():
		}
		select {
		case h.events <- closed:
			return
		case <-h.events:
		}
	}
}

// eventOf maps an event of QEMU.
func eventOf(ev qmp.Event) (gateway.Event, bool) {
	out := gateway.Event{At: ev.Read}
	var data struct {
		Status string `json:"status"`
		Reason string `json:"reason"`
		Pass   int    `json:"pass"`
	}
	if ev.Data != nil && json.Unmarshal(ev.Data, &data) != nil {
		return out, false
	}
	switch ev.Name {
	case "MIGRATION":
		out.Kind, out.Text = gateway.EventStatus, data.Status
	case "MIGRATION_PASS":
		out.Kind = gateway.EventPass
	case "STOP":
		out.Kind = gateway.EventStop
	case "RESUME":
		out.Kind = gateway.EventResume
	case "RESET":
		out.Kind = gateway.EventReset
	case "SHUTDOWN":
		out.Kind, out.Text = gateway.EventExit, data.Reason
	default:
		return out, false
	}
	return out, true
}

// Events implements gateway.Source and gateway.Sink.
func (h *handle) Events() <-chan gateway.Event { return h.events }

// Close implements gateway.Source and gateway.Sink.
func (h *handle) Close() error {
	h.mu.Lock()
	m := h.mon
	closed := h.closed
	h.closed, h.mon = true, nil
	h.mu.Unlock()
	if closed {
		return nil
	}
	h.cancel()
	h.pumped.Wait()
	if m != nil {
		h.host.monitors.release(m)
	}
	return nil
}

// errHandleClosed answers calls after Close.
var errHandleClosed = errors.New("closed by this side")

// monitor returns the connection, a new one if the last was lost.
func (h *handle) monitor(ctx context.Context) (*monitor, error) {
	h.mu.Lock()
	defer h.mu.Unlock() // held while it dials, which is bounded
	if h.closed {
		return nil, errHandleClosed
	}
	if h.mon != nil && !h.mon.dead() {
		return h.mon, nil
	}
	m, err := h.host.monitors.acquire(ctx, h.path)
	if err != nil {
		return nil, err
	}
	if h.proc.PID != 0 && m.proc != h.proc {
		h.host.monitors.release(m)
		return nil, fmt.Errorf("another process listens at %s now", h.path)
	}
	if h.mon != nil {
		h.host.monitors.release(h.mon)
	}
	h.mon = m
	return m, nil
}

// unavailable says that the VM could not be asked.
func (h *handle) unavailable(err error) error {
	var refused *qmp.Error
	if err == nil || errors.As(err, &refused) {
		return err
	}
	return fmt.Errorf("%s at %s: %w: %w", h.vm, h.host.cfg.Name, gateway.ErrUnavailable, err)
}

// endSoon is how long a process may take to end after it has hung up: QEMU
// closes its monitors shortly before it exits.
const endSoon = 2 * time.Second

// gone tells whether the process has ended, given what a command ended with.
func (h *handle) gone(ctx context.Context, err error) bool {
	if h.proc.PID == 0 {
		return absent(err)
	}
	h.mu.Lock()
	lost := h.mon == nil || h.mon.dead()
	h.mu.Unlock()
	if !lost {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, endSoon)
	defer cancel()
	return h.proc.Wait(ctx) == nil
}

// status asks for QEMU's own word for the state; "" when the process has ended.
func (h *handle) status(ctx context.Context) (string, error) {
	m, err := h.monitor(ctx)
	if errors.Is(err, errHandleClosed) && (h.proc.PID == 0 || h.proc.Alive()) {
		return "", h.unavailable(err)
	}
	if err == nil {
		var s qmp.Status
		if s, err = m.QueryStatus(ctx); err == nil {
			return s.Status, nil
		}
	}
	if h.gone(ctx, err) {
		return "", nil
	}
	return "", h.unavailable(err)
}

// State implements gateway.Source and gateway.Sink.
func (h *handle) State(ctx context.Context) (gateway.RunState, error) {
	status, err := h.status(ctx)
	if err != nil {
		return gateway.Unknown, err
	}
	if status == "" {
		return gateway.Gone, nil
	}
	return stateOf(status), nil
}

// Progress implements gateway.Source and gateway.Sink.
func (h *handle) Progress(ctx context.Context) (gateway.Progress, error) {
	m, err := h.monitor(ctx)
	if err != nil {
		return gateway.Progress{}, h.unavailable(err)
	}
	q, err := m.QueryMigrate(ctx)
	if err != nil {
		return gateway.Progress{}, h.unavailable(err)
	}
	if q.Status == "" {
		q.Status = "none"
	}
	return gateway.Progress{
		Status: q.Status, Error: q.ErrorDesc,
		Transferred: q.RAM.Transferred, Remaining: q.RAM.Remaining, Total: q.RAM.Total,
		DirtyRate: q.RAM.DirtyPagesRate * q.RAM.PageSize, Rounds: int(q.RAM.DirtySyncCount),
		Downtime: time.Duration(q.Downtime) * time.Millisecond, Throttle: q.Throttle,
	}, nil
}

// resume executes a VM whose state is one of those given.
func (h *handle) resume(ctx context.Context, from ...string) error {
	m, err := h.monitor(ctx)
	if err != nil {
		return h.unavailable(err)
	}
	s, err := m.QueryStatus(ctx)
	if err != nil {
		return h.unavailable(err)
	}
	if s.Running {
		return nil
	}
	ok := false
	for _, f := range from {
		ok = ok || f == s.Status
	}
	if !ok { // of a VM that loads, cont would mean: run when loaded
		return fmt.Errorf("resuming %s at %s: QEMU says that it is %s: %w", h.vm, h.host.cfg.Name, s.Status, gateway.ErrBusy)
	}
	if err := m.Cont(ctx); err != nil {
		return fmt.Errorf("resuming %s at %s: %w", h.vm, h.host.cfg.Name, h.unavailable(err))
	}
	if s, err = m.QueryStatus(ctx); err != nil {
		return h.unavailable(err)
	}
	if !s.Running {
		return fmt.Errorf("resuming %s at %s: QEMU then says that it is %s: %w", h.vm, h.host.cfg.Name, s.Status, gateway.ErrUnavailable)
	}
	return nil
}

// Bounds of ending a process: how long it may think of quit, and how long the
// kernel may take to clear up after SIGKILL (a terabyte of memory: seconds).
const (
	quitWait = 5 * time.Second
	killWait = 20 * time.Second
)

// end ends the process of a VM that does not execute. When QEMU cannot be
// asked any more it is killed: the caller knows that it is not needed.
func (h *handle) end(ctx context.Context, what string) error {
	state, err := h.askState(ctx)
	switch {
	case err == nil && state == gateway.Running:
		return fmt.Errorf("%s %s at %s: it runs: %w", what, h.vm, h.host.cfg.Name, gateway.ErrBusy)
	case err == nil && state != gateway.Gone:
		h.quit(ctx)
	case err != nil && (ctx.Err() != nil || errors.Is(err, errHandleClosed)):
		return fmt.Errorf("%s: %w", what, err)
	}
	if h.proc.PID == 0 && listening(h.path) {
		return fmt.Errorf("%s %s at %s: its process is out of sight and has not ended: %w", what, h.vm, h.host.cfg.Name, gateway.ErrUnavailable)
	}
	if h.proc.PID != 0 {
		if err := h.reap(ctx, err); err != nil {
			return fmt.Errorf("%s %s at %s: %w", what, h.vm, h.host.cfg.Name, err)
		}
	}
	return h.host.ended(ctx, h.vm, h.path)
}

// askState is State that does not wait for long.
func (h *handle) askState(ctx context.Context) (gateway.RunState, error) {
	ctx, cancel := context.WithTimeout(ctx, quitWait)
	defer cancel()
	return h.State(ctx)
}

// quit asks the process to end; the answer may not come.
func (h *handle) quit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, quitWait)
	defer cancel()
	m, err := h.monitor(ctx)
	if err != nil {
		return
	}
	if err := m.Quit(ctx); err == nil && h.proc.PID == 0 {
		select { // all that can be seen is that it hangs up
		case <-m.Done():
		case <-ctx.Done():
		}
	}
}

// reap waits for a process that was told to quit, and kills it if it does not,
// or if it could not be told because of hung.
func (h *handle) reap(ctx context.Context, hung error) error {
	if hung == nil {
		wait, cancel := context.WithTimeout(ctx, quitWait)
		defer cancel()
		hung = h.proc.Wait(wait)
	}
	if hung == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h.host.log.Warn("killing a hypervisor that does not quit", "vm", h.vm, "pid", h.proc.PID, "err", hung)
	if err := h.proc.Kill(); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	return h.proc.Wait(wait)
}
