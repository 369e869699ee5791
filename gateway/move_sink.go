package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/tunnel"
)

// A sinkMove is one move at the site that the VM comes to. Its mutex
// serialises orders, which may come over two control channels for a moment.
type sinkMove struct {
	g    *Gateway
	job  *job
	s    *session // nil after a restart: its legs are gone
	peer string   // site of the source
	vm   string   // name of the VM

	ctx  context.Context // of the legs; ends with the move
	stop context.CancelCauseFunc

	mu       sync.Mutex // guards what follows; held while an order is carried out
	entry    Entry
	sink     Sink // nil when the process is gone
	cut      bool // the control connection of sink has ended
	asking   bool // query runs
	ctl      *tunnel.Channel
	loaded   bool
	failure  error
	ends     JobState // of a job that is abandoned; empty means failed
	resumeAt time.Time
	took     time.Duration
}

// serveControl obeys one control channel of a peer.
func (g *Gateway) serveControl(ctx context.Context, ch *tunnel.Channel) {
	h, err := parseControlHeader(ch.Header())
	if err != nil {
		ch.Abort(err.Error())
		return
	}
	for {
		msg, err := ch.Recv(ctx)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.Join(errors.New("closed by the source"), ch.CloseSend(ctx))
			} else {
				ch.Abort("the gateway is being stopped") // if it has not failed
			}
			g.lostControl(h.Token, ch, err)
			return
		}
		c, err := parseControl(msg.Data)
		if err != nil {
			ch.Abort(err.Error())
			g.lostControl(h.Token, ch, err)
			return
		}
		ch.Done(msg.Seq)
		if err := g.carryOut(ctx, ch, h.Token, c); err != nil {
			g.lostControl(h.Token, ch, err)
			return
		}
	}
}

// carryOut obeys an order and answers it. One to run is not begun by a gateway that is
// being stopped, and when it has been, the gateway waits for it; see goback.go.
func (g *Gateway) carryOut(ctx context.Context, ch *tunnel.Channel, token string, c control) error {
	if c.Type == msgCommit || c.Type == msgDone {
		g.orders.RLock()
		defer g.orders.RUnlock()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	answer, ok := g.obey(ctx, ch, token, c)
	if !ok {
		return nil
	}
	_, err := ch.Send(ctx, encodeJSON(answer))
	return err
}

// obey carries out one order of a peer, or answers its question.
func (g *Gateway) obey(ctx context.Context, ch *tunnel.Channel, token string, c control) (control, bool) {
	if c.Type == msgQuery {
		return g.tellOutcome(token, ch.Site())
	}
	m := g.sinkMove(token)
	if m == nil && c.Type == msgPrepare {
		return g.takeIn(ctx, ch, token, c), true
	}
	if m == nil {
		return g.tellEnd(token, ch.Site()), c.Type == msgCommit || c.Type == msgAbort
	}
	if m.peer != ch.Site() {
		return control{Type: msgUnknown}, c.Type == msgCommit || c.Type == msgAbort || c.Type == msgPrepare
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctl = ch
	switch c.Type {
	case msgPrepare:
		return control{Type: msgRefused, Reason: "this move is prepared already"}, true
	case msgCommit:
		if m.entry.Step == StepPrepared && m.drained() { // an operator may still have it run, see decide
			return m.abandon(ctx, m.s.givenUp()), true
		}
		return m.obey(ctx), true
	case msgAbort:
		if c.State == JobAborted {
			m.ends = JobAborted
		}
		m.progress(c)
		return m.abandon(ctx, fmt.Errorf("site %s: %s", m.entry.Peer, c.Reason)), true
	case msgDrain:
		m.drain(c)
	case msgProgress:
		m.progress(c)
	case msgDone:
		m.sourceEnded(ctx, c)
	}
	return control{}, false
}

// progress notes how far the source says that the move is, if it does.
func (m *sinkMove) progress(c control) {
	if c.Progress != nil {
		m.job.update(func(v *Job) { v.Progress = *c.Progress })
	}
}

// drain hears that the source has given the move up. What still comes does not wait for
// the hypervisor, which may wait for what never does, and the next attempt need not send it.
func (m *sinkMove) drain(c control) {
	if m.s == nil || m.entry.Step != StepPrepared {
		return
	}
	why := fmt.Errorf("site %s: %s", m.peer, c.Reason)
	m.job.update(func(v *Job) { v.Phase = "given up: " + why.Error() })
	m.s.giveUp(why, true)
}

// drained tells that the source has given the move up, and that not all that came was for
// the hypervisor.
func (m *sinkMove) drained() bool { return m.s != nil && m.s.givenUp() != nil }

// takeIn prepares the destination of a move that a peer announces.
func (g *Gateway) takeIn(ctx context.Context, ch *tunnel.Channel, token string, c control) control {
	g.askFirst(ctx, ch.Site(), c)
	m, err := g.newSinkMove(ctx, ch, token, c)
	if err == nil {
		err = m.prepare(ctx, c.Host)
	}
	if err != nil {
		if m != nil {
			m.mu.Lock()
			m.ended(JobFailed, err)
			m.mu.Unlock()
		}
		g.log.Warn("move refused", "peer", ch.Site(), "err", err)
		return control{Type: msgRefused, Reason: err.Error()}
	}
	return control{Type: msgPrepared, NICs: m.sink.NICs()}
}

func (g *Gateway) newSinkMove(ctx context.Context, ch *tunnel.Channel, token string, c control) (*sinkMove, error) {
	if c.Spec == nil || c.Job == nil || c.Spec.Token != token {
		return nil, fmt.Errorf("order to prepare without a job or a description of the VM: %w", ErrInvalid)
	}
	link := g.node.Link(ch.Site())
	if link == nil {
		return nil, fmt.Errorf("site %s: %w", ch.Site(), ErrNoSite)
	}
	if _, ok, err := g.journal.Get(token, RoleDestination); ok || err != nil {
		return nil, errors.Join(fmt.Errorf("move %s was here before: %w", jobID(token), ErrExists), err)
	}
	store, err := g.tenantStore(ctx, link, c.Tenant)
	if err != nil {
		return nil, err
	}
	m := &sinkMove{g: g, ctl: ch, peer: ch.Site(), vm: c.Spec.VM}
	m.job = newJob(Job{ // the peer's view counts for what is only shown
		ID: jobID(token), VM: c.Spec.VM, From: ch.Site(), To: g.cfg.Site, Role: string(RoleDestination),
		State: JobPreparing, Phase: "starting the process", Started: c.Job.Started, Request: c.Job.Request,
	}, token)
	m.job.recover = m.decide
	m.s = newSession(token, link, store, g.log)
	m.s.held, m.s.tenant = g.heldFor(ch.Site()), c.Tenant
	m.entry = Entry{Token: token, Role: RoleDestination, Step: StepPrepared, Peer: ch.Site(), Spec: *c.Spec, Ran: !c.Paused}
	if err := g.jobs.add(m.job); err != nil {
		return nil, err
	}
	m.ctx, m.stop = context.WithCancelCause(g.ctx)
	context.AfterFunc(m.ctx, m.s.store.Keep()) // the source may refer to what we have sent it once
	g.rememberSink(m)
	return m, nil
}

// prepare journals the move, then starts the process: a crash between the two
// leaves an entry without a process, never a process without an entry.
func (m *sinkMove) prepare(ctx context.Context, host string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, err := m.g.chooseHost(host, m.s.tenant)
	if err != nil {
		m.entry.Step = StepAborted
		return err
	}
	m.entry.Host = h.Name()
	if err := m.step(StepPrepared); err != nil {
		m.entry.Step = StepAborted
		return err
	}
	m.g.clearFor(ctx, h.Name(), m.vm)
	sink, err := h.Prepare(ctx, m.entry.Spec)
	if err != nil {
		m.entry.Step = StepAborted // ended writes it down
		return fmt.Errorf("host %s: %w", h.Name(), err)
	}
	m.sink = sink
	m.g.l2.Expect(m.job.id, sink.NICs())
	m.job.enter(JobMoving, "memory arrives")
	m.g.wg.Go(func() { m.follow(sink) })
	return nil
}

// follow hears what the hypervisor says, and tells the source when it has
// loaded everything or has failed.
func (m *sinkMove) follow(sink Sink) {
	for {
		select {
		case ev, ok := <-sink.Events():
			if !ok {
				m.hungUp(sink)
				m.fail(errors.New("the control connection of the destination hypervisor is closed"))
				return
			}
			if ev.Kind == EventStatus && ev.Text == "completed" {
				m.complete()
			}
			if ev.Kind == EventExit || ev.Kind == EventClosed || ev.Kind == EventStatus && ev.Text == "failed" {
				m.fail(fmt.Errorf("the destination hypervisor: %s %s", ev.Kind, ev.Text))
			}
			if ev.Kind == EventClosed {
				m.hungUp(sink)
				return
			}
		case <-m.g.ctx.Done():
			return
		}
	}
}

// complete tells the source that all of the VM's state is here, with the
// digests of what was delivered.
func (m *sinkMove) complete() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.s == nil || m.entry.Step != StepPrepared || m.drained() {
		return
	}
	m.loaded = true
	m.job.enter(JobSwitching, "loaded; waiting for the order to run")
	m.say(control{Type: msgLoaded, Streams: m.s.streams()})
}

// fail tells the source that this destination will not do. The source decides
// what follows: it sends an order to abort.
func (m *sinkMove) fail(why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entry.Step != StepPrepared || m.loaded || m.failure != nil {
		return
	}
	if m.s != nil {
		why = cmp.Or(m.s.fault(), why)
	}
	rotten, foreign := errors.Is(why, dedup.ErrMismatch), errors.Is(why, dedup.ErrStore)
	if foreign && m.s != nil {
		m.g.dropStore(commonKey{m.entry.Peer, m.s.tenant})
	}
	if m.drained() { // the source knows, and what still comes does not need the hypervisor
		m.g.log.Debug("destination of a move that was given up", "vm", m.vm, "peer", m.peer, "err", why)
		return
	}
	m.failure = why
	m.job.update(func(v *Job) { v.Phase = "failed: " + why.Error() })
	m.stop(why)
	m.say(control{Type: msgFailed, Reason: why.Error(), Rotten: rotten, Store: foreign})
}

// say sends the source a message that nobody has asked for.
func (m *sinkMove) say(c control) {
	if m.ctl == nil {
		return
	}
	ctx, cancel := context.WithTimeout(m.g.ctx, answerTime)
	defer cancel()
	if _, err := m.ctl.Send(ctx, encodeJSON(c)); err != nil {
		m.g.log.Debug("telling the source", "vm", m.entry.Spec.VM, "peer", m.entry.Peer, "err", err)
	}
}

// takeLeg replays one channel of the move into its process.
func (m *sinkMove) takeLeg(ch *tunnel.Channel, h legHeader) {
	m.mu.Lock()
	sink, step := m.sink, m.entry.Step
	m.mu.Unlock()
	if sink == nil || m.s == nil || step != StepPrepared { // too early, too late, or after a restart
		ch.Abort("this move takes no connections now")
		return
	}
	err := m.s.takeLeg(m.ctx, ch, h, farEnd{sink.Dial, m.g.cfg.Formats.Pack})
	if err != nil {
		m.fail(err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loaded && m.entry.Step == StepPrepared && !m.drained() { // what followed the last page has arrived as well
		m.say(control{Type: msgLoaded, Streams: m.s.streams()})
	}
}

// runsHere is the phase of a job whose VM has come to run at its destination.
const runsHere = "the VM runs here"

// settled is called when the VM has come to run here: the network follows.
func (m *sinkMove) settled() {
	m.job.enter(JobCommit, runsHere)
	if m.sink == nil {
		return // it has run here once, and ended since
	}
	m.g.l2.Settle(m.job.id, m.sink.NICs())
	sink := m.sink
	m.g.wg.Go(func() {
		ctx, cancel := context.WithTimeout(m.g.ctx, answerTime)
		defer cancel()
		err := sink.Announce(ctx)
		if err != nil && m.ctx.Err() != nil { // asked, and not waited for: the move has ended first
			m.g.log.Debug("announcing the VM", "vm", m.vm, "err", err)
		} else if err != nil {
			m.g.log.Warn("the hypervisor does not announce the VM; the gateway has", "vm", m.vm, "err", err)
		}
	})
}

// sourceEnded hears that the source has ended the job. Whoever owns the VM then
// owns it alone: when the source is done with it and we have not been told to
// run it, because an operator decided at the source, that is the order.
func (m *sinkMove) sourceEnded(ctx context.Context, c control) {
	waits := m.entry.Step == StepPrepared || m.entry.Step == StepStarting
	switch {
	case waits && c.State == JobDone:
		if a := m.obey(ctx); a.Type != msgRunning {
			m.g.log.Error("the source is done with a VM that does not run here", "vm", m.vm, "err", a.Reason)
			return
		}
	case waits:
		m.abandon(ctx, fmt.Errorf("site %s: %s", m.peer, c.Reason))
		return
	case m.entry.Step != StepRunning:
		return
	}
	m.job.update(func(v *Job) {
		v.Report = cmp.Or(c.Report, v.Report)
		v.Progress = *cmp.Or(c.Progress, &v.Progress)
	})
	m.g.l2.Confirm(m.job.id)
	if err := m.step(StepDone); err != nil {
		m.g.log.Error("journal does not take that the move is done", "vm", m.entry.Spec.VM, "err", err)
		return
	}
	m.ended(JobDone, nil)
}

// ended ends the job and lets go of the process, which stays as it is.
func (m *sinkMove) ended(s JobState, err error) {
	m.job.end(s, err)
	m.entry.Job = m.job.snapshot()
	m.g.putEnd(m.entry)
	m.stop(errors.New("the move has ended"))
	m.g.forgetSink(m.job.token) // tellEnd answers from the journal
	m.g.trim()
	if m.sink != nil {
		if e := m.sink.Close(); e != nil && !errors.Is(e, io.EOF) {
			m.g.log.Debug("closing the destination", "vm", m.entry.Spec.VM, "err", e)
		}
	}
	m.g.log.Info("move ended", "vm", m.entry.Spec.VM, "peer", m.entry.Peer, "state", s, "err", err)
}

func (m *sinkMove) reason() string {
	if v := m.job.snapshot(); v.Error != "" {
		return v.Error
	}
	return neverRan
}
