package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// retryEvery is how often something that an earlier run has left is tried
// again.
const retryEvery = time.Second

// recover takes up the moves that an earlier run of this gateway has left
// open, by what the journal says; see commit.go for why each is safe.
func (g *Gateway) recover() error {
	if err := g.journal.Trim(); err != nil {
		return err
	}
	all, err := g.journal.All()
	if err != nil {
		return err
	}
	for _, e := range all {
		j := newJob(e.view(), e.Token)
		g.jobs.restore(j)
		switch {
		case e.Left && !e.Open():
			g.wg.Go(func() { g.keepClearing(g.ctx, e) })
		case !e.Open():
		case e.Role == RoleSource:
			g.log.Info("taking up a move", "vm", e.Spec.VM, "peer", e.Peer, "stage", e.Step)
			g.wg.Go(func() { g.recoverSource(e, j) })
		default:
			g.log.Info("taking up a move", "vm", e.Spec.VM, "peer", e.Peer, "stage", e.Step)
			m := g.newRecoveredSink(e, j)
			g.wg.Go(func() { m.recover() })
		}
	}
	return nil
}

func (g *Gateway) hostNamed(name string) Host {
	for _, h := range g.cfg.Hosts {
		if h.Name() == name {
			return h
		}
	}
	return nil
}

// recoverSource ends a move that this gateway, as its source, has left open.
func (g *Gateway) recoverSource(e Entry, j *job) {
	m := &sourceMove{g: g, job: j, entry: e, takenUp: true, begun: j.snapshot().Started, decisions: make(chan Decision, 1)}
	j.mu.Lock()
	j.recover = m.decide
	j.mu.Unlock()
	switch since, err := g.journal.Superseded(e); {
	case err != nil:
		g.log.Warn("move stays open", "vm", e.Spec.VM, "err", err)
		return
	case since:
		m.forget()
		return
	}
	if err := m.reopen(g.ctx); err != nil {
		g.log.Warn("move stays open", "vm", e.Spec.VM, "err", err)
		return
	}
	g.l2.Prepare(j.id, e.Spec.NICs, e.Peer)
	if e.Step == StepMoving {
		m.giveUp(errors.New("the gateway at the source was restarted before the switchover"))
		return
	}
	err := m.commit(g.ctx)
	switch {
	case errors.Is(err, errAborted):
		m.takeBack(err)
	case err == nil:
		m.finish()
	default:
		g.log.Warn("move stays open", "vm", e.Spec.VM, "err", err)
	}
}

// forget ends a move whose VM has moved here again since: it had ended, and only that
// was not written down. What is here now is left alone, and so is the network.
func (m *sourceMove) forget() {
	last, state, why := StepAborted, JobFailed, errors.New("its end was not written down")
	if m.entry.Step == StepReleased {
		last, state, why = StepDone, JobDone, nil
	}
	if err := m.step(last); err != nil {
		m.g.log.Error("journal does not take that the move has ended", "vm", m.entry.Spec.VM, "err", err)
	}
	m.closeMove(state, why)
}

// reopen finds the VM and the peer of a journaled move. The VM may be gone
// when its release was under way, and only then.
func (m *sourceMove) reopen(ctx context.Context) error {
	for {
		err := m.tryReopen(ctx)
		if err == nil {
			return nil
		}
		m.job.update(func(v *Job) { v.Phase = "taking up: " + err.Error() })
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *sourceMove) tryReopen(ctx context.Context) error {
	m.link = m.g.node.Link(m.entry.Peer)
	if m.link == nil {
		return fmt.Errorf("site %s: %w", m.entry.Peer, ErrNoSite)
	}
	m.s = newSession(m.entry.Token, m.link, nil, m.g.log) // it carries nothing any more
	p := m.entry.Job.Progress                             // what it has carried
	m.s.logical.Store(p.LogicalBytes)
	m.s.wire.Store(p.WireBytes)
	m.s.rounds.Store(int64(p.Rounds))
	m.s.tenant = m.entry.Job.Request.Tenant
	h := m.g.hostNamed(m.entry.Host)
	if h == nil {
		return fmt.Errorf("host %q is no longer in the config: %w", m.entry.Host, ErrNotFound)
	}
	src, err := h.Source(ctx, m.entry.Spec.VM)
	switch {
	case err == nil:
		m.src = src
	case errors.Is(err, ErrNoVM) && m.entry.Step == StepReleased:
	case errors.Is(err, ErrNoVM):
		m.src = goneSource{}
	default:
		return err
	}
	return nil
}

// goneSource stands for a source whose process no longer exists.
type goneSource struct{}

var errGone = errors.New("the source hypervisor has ended")

func (goneSource) Spec(context.Context) (Spec, error)               { return Spec{}, errGone }
func (goneSource) Events() <-chan Event                             { return nil }
func (goneSource) Start(context.Context, string, MoveParams) error  { return errGone }
func (goneSource) Continue(context.Context) error                   { return errGone }
func (goneSource) Cancel(context.Context) error                     { return errGone }
func (goneSource) SetDowntime(context.Context, time.Duration) error { return errGone }
func (goneSource) Progress(context.Context) (Progress, error)       { return Progress{}, errGone }
func (goneSource) State(context.Context) (RunState, error)          { return Gone, nil }
func (goneSource) Resume(context.Context) error                     { return errGone }
func (goneSource) Release(context.Context) error                    { return nil }
func (goneSource) Close() error                                     { return nil }

func (g *Gateway) newRecoveredSink(e Entry, j *job) *sinkMove {
	m := &sinkMove{g: g, job: j, entry: e, peer: e.Peer, vm: e.Spec.VM}
	j.recover = m.decide
	if e.Step == StepRunning { // it may move on at once
		j.enter(JobCommit, runsHere)
	}
	m.ctx, m.stop = context.WithCancelCause(g.ctx)
	g.rememberSink(m)
	return m
}

// recover ends a move that this gateway, as its destination, has left open.
func (m *sinkMove) recover() {
	m.mu.Lock()
	m.takeUp()
	m.asking = true
	m.mu.Unlock()
	m.query(m.g.ctx)
}

// takeUp does what the journal says. The caller holds mu.
func (m *sinkMove) takeUp() {
	ctx, cancel := context.WithTimeout(m.g.ctx, cleanupTime)
	defer cancel()
	state, err := m.state(ctx)
	if err != nil {
		m.g.log.Warn("finding the process of a move", "vm", m.vm, "err", err)
	}
	switch m.entry.Step {
	case StepPrepared:
		switch {
		case err != nil: // asked again when an order comes
			m.job.update(func(v *Job) { v.Phase = "taking up: " + err.Error() })
		case state != Paused:
			m.abandon(ctx, fmt.Errorf("the gateway at the destination was restarted: the hypervisor process is %s, not loaded and paused", state))
		default:
			m.loaded = true
			m.job.enter(JobSwitching, "loaded; waiting for the order to run")
		}
	case StepStarting:
		m.obey(ctx)
	case StepRunning:
		if state != Moved { // it may have left for the next site meanwhile
			m.settled()
		}
	}
}
