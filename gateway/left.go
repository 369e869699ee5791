package gateway

import (
	"context"
	"errors"
	"fmt"
)

// What a move leaves behind. A process that a move no longer needs holds as much
// memory as the VM, and it stands in the way of the next move; what is worse, a
// gateway that looks for the VM by its name may find this one, whose state is of
// another time. So the journal knows of each that did not end when it was told
// to, or was not told because the gateway had ended, and it is told again: until
// it has ended, and before the VM comes to its host once more.

// clear ends the process that a move has left. One that has come to run was
// resumed by hand, and is left alone.
//
// One at a time, and the journal is asked anew: once the process has ended, or the
// VM has been at the host again, a source of that name may be one whose move has
// not come to its commit.
func (g *Gateway) clear(ctx context.Context, e Entry) error {
	for !g.clearing.TryLock() { // it is held while hypervisors are asked
		if err := pause(ctx, windDown); err != nil {
			return err
		}
	}
	defer g.clearing.Unlock()
	e, ok, err := g.journal.Get(e.Token, e.Role)
	if err != nil || !ok || !e.Left {
		return err
	}
	h := g.hostNamed(e.Host)
	if h == nil {
		return fmt.Errorf("host %q is not in the config: %w", e.Host, ErrNotFound)
	}
	end := clearSink
	if e.Role == RoleSource {
		end = g.clearSource
	}
	if err := end(ctx, h, e); errors.Is(err, ErrBusy) {
		g.log.Warn("what a move has left is in use; it is left alone", "vm", e.Spec.VM, "err", err)
	} else if err != nil && !errors.Is(err, ErrNoVM) {
		return fmt.Errorf("host %s: %w", h.Name(), err)
	}
	e.Left = false
	return g.journal.Put(e)
}

func clearSink(ctx context.Context, h Host, e Entry) error {
	sink, err := h.Attach(ctx, e.Spec)
	if err != nil {
		return err
	}
	defer sink.Close()
	return sink.Discard(ctx)
}

// clearSource ends a source whose VM has moved away, and no process of its name
// that is something else.
func (g *Gateway) clearSource(ctx context.Context, h Host, e Entry) error {
	if err := g.stillIts(e); err != nil {
		return err
	}
	src, err := h.Source(ctx, e.Spec.VM)
	if errors.Is(err, ErrBusy) { // it cannot be told from another now, perhaps later
		return errors.New(err.Error())
	}
	if err != nil {
		return err
	}
	defer src.Close()
	state, err := src.State(ctx)
	if err != nil {
		return err
	}
	if state != Moved {
		return fmt.Errorf("it is %s: %w", state, ErrBusy)
	}
	if err := g.stillIts(e); err != nil { // asking may have taken long
		return err
	}
	return src.Release(ctx)
}

// stillIts fails with ErrBusy when a process of the VM at the host of e need not be
// the one that e knew.
func (g *Gateway) stillIts(e Entry) error {
	since, err := g.journal.Superseded(e)
	if err != nil {
		return err
	}
	if since {
		return fmt.Errorf("%s has been at %s since: %w", e.Spec.VM, e.Host, ErrBusy)
	}
	return nil
}

// keepClearing is clear until it has succeeded.
func (g *Gateway) keepClearing(ctx context.Context, e Entry) {
	for {
		once, cancel := context.WithTimeout(ctx, cleanupTime)
		err := g.clear(once, e)
		cancel()
		if err == nil {
			return
		}
		g.log.Debug("ending what a move has left", "vm", e.Spec.VM, "err", err)
		if pause(ctx, retryEvery) != nil {
			return
		}
	}
}

// clearFor makes room for a VM that comes to a host. If a process stays that
// stands in the way, the host says so.
func (g *Gateway) clearFor(ctx context.Context, host, vm string) {
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	all, err := g.journal.All()
	for _, e := range all {
		if e.Left && e.Host == host && e.Spec.VM == vm {
			err = errors.Join(err, g.clear(ctx, e))
		}
	}
	if err != nil {
		g.log.Warn("ending what a move has left", "vm", vm, "err", err)
	}
}
