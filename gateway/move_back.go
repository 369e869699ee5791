package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// giveUp ends a move that has not come to its commit: the VM goes on here.
func (m *sourceMove) giveUp(why error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.g.ctx), cleanupTime)
	defer cancel()
	m.job.update(func(v *Job) { v.Phase = "going back: " + why.Error() })
	m.drain(why)
	m.cancel(ctx)
	err := m.runHere(ctx)
	if m.legs != nil {
		m.legs.finish(m.drainMost(why), why)
	}
	why = m.tellAbort(ctx, why)
	if err := m.step(StepAborted); err != nil {
		m.g.log.Error("journal does not take that the move has ended", "vm", m.entry.Spec.VM, "err", err)
	}
	m.closeMove(m.endState(why), errors.Join(why, err))
}

// drain lets what is on its way arrive while the source ends its connections: what
// the destination has said that it holds need not cross in the next attempt. Where
// nothing can arrive all ends at once. Where the VM may stand still the connections to the
// source do: a hypervisor whose last bytes nobody takes hears no order, neither to cancel
// nor to resume. Nothing waits for what arrives, and so it has no more of the line than
// memory that is sent for the first time.
func (m *sourceMove) drain(why error) {
	switch {
	case m.legs == nil:
	case !m.link.State().Up:
		m.legs.stop(why)
	default:
		m.s.giveUp(why, m.mayStand())
		m.s.flow.SetTail(false)
		m.s.flow.UseAll(false)
		legs, s, ctl := m.legs, m.s, m.ctl
		m.g.wg.Go(func() { m.g.tellDrain(ctl, why) })
		m.g.wg.Go(func() { legs.drain(s.arrived, m.g.patience.drain, m.drainMost(why), why) }) // whatever the orders to the source take
	}
}

// drainMost is how long that takes at most. A gateway that is being stopped has more to do.
func (m *sourceMove) drainMost(why error) time.Duration {
	if errors.Is(why, errStopping) {
		return m.g.patience.drain
	}
	return drainTimes * m.g.patience.drain
}

// mayStand tells that the VM may stand still by order of the migration.
func (m *sourceMove) mayStand() bool { return m.switching || !m.stopAt.IsZero() }

// cancel ends the migration, as the next move would find it under way. Where the
// control connection is what has failed, a new one does it.
func (m *sourceMove) cancel(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cancelTime)
	defer cancel()
	for {
		err := m.src.Cancel(ctx)
		if err == nil || errors.Is(err, ErrBusy) {
			return
		}
		m.g.log.Debug("cancelling the migration", "vm", m.entry.Spec.VM, "err", err)
		if err := m.reattach(ctx); errors.Is(err, ErrNoVM) {
			return // runHere says so
		}
		if pause(ctx, windDown) != nil {
			return
		}
	}
}

// endState tells an operator's wish from a fault.
func (m *sourceMove) endState(why error) JobState {
	if errors.Is(why, errOperator) {
		return JobAborted
	}
	return JobFailed
}

// takeBack is giveUp after the order to run: the destination has said that it
// will not.
func (m *sourceMove) takeBack(why error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.g.ctx), cleanupTime)
	defer cancel()
	if err := m.step(StepAborted); err != nil {
		// The order may have to be settled again after a restart; it will be
		// answered the same way.
		m.g.log.Error("journal does not take that the move has ended", "vm", m.entry.Spec.VM, "err", err)
	}
	err := m.runHere(ctx)
	m.closeMove(JobFailed, errors.Join(why, err))
}

// runHere makes sure that the VM executes at its source, unless it was paused
// when the move began. The network follows.
func (m *sourceMove) runHere(ctx context.Context) error {
	m.g.l2.Revoke(m.job.id)
	if !m.entry.Ran {
		return nil
	}
	for {
		state, err := m.src.State(ctx)
		switch {
		case err != nil: // its control connection may have been what failed
			if e := m.reattach(ctx); errors.Is(e, ErrNoVM) {
				m.src.Close()
				m.src = goneSource{e}
				return m.lost()
			}
			m.g.log.Debug("asking whether the VM runs at the source", "vm", m.entry.Spec.VM, "err", err)
		case state == Running:
			return nil
		case state == Gone:
			return m.lost()
		case state == Paused || state == Moved:
			err = m.stranger(ctx)
			if errors.Is(err, errStranger) {
				return fmt.Errorf("the VM is not resumed at its source: %w", err)
			}
			if err == nil {
				err = m.src.Resume(ctx)
			}
			if err != nil {
				m.g.log.Debug("resuming at the source", "vm", m.entry.Spec.VM, "err", err)
			}
		}
		select {
		case <-time.After(windDown):
		case <-ctx.Done():
			return fmt.Errorf("the VM does not resume at its source: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// lost says that the source hypervisor has ended while the VM was its own.
func (m *sourceMove) lost() error {
	const what = "the source hypervisor has ended: the VM is lost by its host's fault"
	if gone, ok := m.src.(goneSource); ok {
		return fmt.Errorf(what+": %w", gone.error)
	}
	return errors.New(what)
}

// reattach opens the source anew.
func (m *sourceMove) reattach(ctx context.Context) error {
	src, err := m.g.sourceOf(ctx, m.entry)
	if err != nil {
		return err
	}
	m.src.Close()
	m.src = src
	return nil
}
