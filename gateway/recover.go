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
			g.keepClearing(&leftover{entry: e, written: true})
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
	m.job.commit()
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
	src, err := m.g.sourceOf(ctx, m.entry)
	switch {
	case err == nil:
		m.src = src
	case errors.Is(err, ErrNoVM) && m.entry.Step == StepReleased:
		m.g.log.Info("the source of a move has ended", "vm", m.entry.Spec.VM, "err", err)
	case errors.Is(err, ErrNoVM):
		m.g.log.Warn("the source of a move has ended", "vm", m.entry.Spec.VM, "err", err)
		m.src = goneSource{err}
	default:
		return err
	}
	return nil
}

// sourceOf opens the source of a journaled move: its very process, or what has its
// VM's name where the process could not be told.
func (g *Gateway) sourceOf(ctx context.Context, e Entry) (Source, error) {
	h := g.hostNamed(e.Host)
	switch {
	case h == nil:
		return nil, fmt.Errorf("host %q is not in the config: %w", e.Host, ErrNotFound)
	case e.Process == "":
		return h.Source(ctx, e.Spec.VM)
	}
	return h.Reopen(ctx, e.Spec.VM, e.Process)
}

// goneSource stands for a source whose process no longer exists, and says why it is
// thought so.
type goneSource struct{ error }

func (goneSource) Process() string                                    { return "" }
func (s goneSource) Spec(context.Context) (Spec, error)               { return Spec{}, s.error }
func (goneSource) Events() <-chan Event                               { return nil }
func (s goneSource) Start(context.Context, string, MoveParams) error  { return s.error }
func (s goneSource) Continue(context.Context) error                   { return s.error }
func (s goneSource) Cancel(context.Context) error                     { return s.error }
func (s goneSource) SetDowntime(context.Context, time.Duration) error { return s.error }
func (s goneSource) Progress(context.Context) (Progress, error)       { return Progress{}, s.error }
func (goneSource) State(context.Context) (RunState, error)            { return Gone, nil }
func (s goneSource) Resume(context.Context) error                     { return s.error }
func (goneSource) Release(context.Context) error                      { return nil }
func (goneSource) Close() error                                       { return nil }

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
		if since, err := m.g.journal.Superseded(m.entry); err == nil && since { // it has run here, and moved on
			m.entry.Step = StepRunning
			return
		}
		m.obey(ctx)
	case StepRunning:
		if state != Moved { // it may have left for the next site meanwhile
			m.settled()
		}
	}
}
