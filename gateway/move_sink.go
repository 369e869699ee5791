package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/tunnel"
)

// queryEvery is how often a destination that has lost its control channel
// asks the source what has become of the move.
const queryEvery = 3 * time.Second

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
	ctl      *tunnel.Channel
	loaded   bool
	failure  error
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
		if answer, ok := g.obey(ctx, ch, h.Token, c); ok {
			if _, err := ch.Send(ctx, encodeJSON(answer)); err != nil {
				g.lostControl(h.Token, ch, err)
				return
			}
		}
	}
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
	if m == nil || m.peer != ch.Site() {
		return control{Type: msgUnknown}, c.Type == msgCommit || c.Type == msgAbort || c.Type == msgPrepare
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctl = ch
	switch c.Type {
	case msgPrepare:
		return control{Type: msgRefused, Reason: "this move is prepared already"}, true
	case msgCommit:
		return m.obey(ctx), true
	case msgAbort:
		return m.abandon(ctx, fmt.Errorf("site %s: %s", m.entry.Peer, c.Reason)), true
	case msgProgress:
		if c.Progress != nil {
			m.job.update(func(v *Job) { v.Progress = *c.Progress })
		}
	case msgDone:
		m.sourceEnded(c)
	}
	return control{}, false
}

// takeIn prepares the destination of a move that a peer announces.
func (g *Gateway) takeIn(ctx context.Context, ch *tunnel.Channel, token string, c control) control {
	m, err := g.newSinkMove(ch, token, c)
	if err == nil {
		err = m.prepare(ctx, c.Host)
	}
	if err != nil {
		if m != nil {
			m.ended(JobFailed, err)
			g.forgetSink(token)
		}
		g.log.Warn("move refused", "peer", ch.Site(), "err", err)
		return control{Type: msgRefused, Reason: err.Error()}
	}
	return control{Type: msgPrepared, NICs: m.sink.NICs(), StoreMemory: g.cfg.StoreMemory}
}

func (g *Gateway) newSinkMove(ch *tunnel.Channel, token string, c control) (*sinkMove, error) {
	if c.Spec == nil || c.Job == nil || c.Spec.Token != token {
		return nil, fmt.Errorf("order to prepare without a job or a description of the VM: %w", ErrInvalid)
	}
	link := g.node.Link(ch.Site())
	if link == nil {
		return nil, fmt.Errorf("site %s: %w", ch.Site(), ErrNoSite)
	}
	view := *c.Job
	view.Role, view.State, view.Phase, view.From = string(RoleDestination), JobPreparing, "starting the process", ch.Site()
	view.To = g.cfg.Site
	m := &sinkMove{g: g, job: newJob(view, token), ctl: ch, peer: ch.Site(), vm: c.Spec.VM}
	m.s = newSession(token, link, g.storeOf(link, c.StoreMemory), g.log)
	m.job.recover = m.decide
	m.ctx, m.stop = context.WithCancelCause(g.ctx)
	context.AfterFunc(m.ctx, m.s.store.Keep()) // the source may refer to what we have sent it once
	m.entry = Entry{Token: token, Role: RoleDestination, Step: StepPrepared, Peer: ch.Site(), Spec: *c.Spec}
	if err := g.jobs.add(m.job); err != nil {
		return nil, err
	}
	g.rememberSink(m)
	return m, nil
}

// prepare journals the move, then starts the process: a crash between the two
// leaves an entry without a process, never a process without an entry.
func (m *sinkMove) prepare(ctx context.Context, host string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, err := m.g.chooseHost(host)
	if err != nil {
		return err
	}
	m.entry.Host = h.Name()
	if err := m.step(StepPrepared); err != nil {
		return err
	}
	sink, err := h.Prepare(ctx, m.entry.Spec)
	if err != nil {
		return errors.Join(fmt.Errorf("host %s: %w", h.Name(), err), m.step(StepAborted))
	}
	m.sink = sink
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
	if m.s == nil || m.entry.Step != StepPrepared {
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
	m.failure = why
	m.job.update(func(v *Job) { v.Phase = "failed: " + why.Error() })
	m.stop(why)
	rotten, foreign := errors.Is(why, dedup.ErrMismatch), errors.Is(why, dedup.ErrStore)
	if foreign {
		m.g.dropStore(m.entry.Peer)
	}
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
	err := m.s.takeLeg(m.ctx, ch, h, sink.Dial)
	if err != nil {
		m.fail(err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loaded && m.entry.Step == StepPrepared { // what followed the last page has arrived as well
		m.say(control{Type: msgLoaded, Streams: m.s.streams()})
	}
}

// loadedOrWhy tells whether the process holds the whole VM. After a restart of
// the gateway the hypervisor alone knows.
func (m *sinkMove) loadedOrWhy(ctx context.Context) error {
	if m.sink == nil {
		return errors.New("the hypervisor process is gone")
	}
	state, err := m.sink.State(ctx)
	if err != nil {
		return fmt.Errorf("asking the hypervisor: %w", err)
	}
	if state != Paused {
		return fmt.Errorf("the hypervisor process is %s, not loaded and paused", state)
	}
	return nil
}

// settled is called when the VM runs here: the network follows.
func (m *sinkMove) settled() {
	m.job.enter(JobCommit, "the VM runs here")
	m.g.l2.Settle(m.job.id, m.sink.NICs())
	sink := m.sink
	m.g.wg.Go(func() {
		ctx, cancel := context.WithTimeout(m.g.ctx, answerTime)
		defer cancel()
		if err := sink.Announce(ctx); err != nil {
			m.g.log.Warn("the hypervisor does not announce the VM; the gateway has", "vm", m.entry.Spec.VM, "err", err)
		}
	})
}

// sourceEnded hears that the source has ended the job.
func (m *sinkMove) sourceEnded(c control) {
	if m.entry.Step != StepRunning {
		return
	}
	if c.Report != nil {
		m.job.update(func(v *Job) { v.Report = c.Report })
	}
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
	if e := m.g.journal.Put(m.entry); e != nil {
		m.g.log.Error("journal does not take the end of a move", "vm", m.entry.Spec.VM, "err", e)
	}
	m.stop(errors.New("the move has ended"))
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
	return "ended before the VM ran there"
}

// lostControl hears that a control channel has ended. A move that still waits
// for orders asks for them.
func (g *Gateway) lostControl(token string, ch *tunnel.Channel, why error) {
	m := g.sinkMove(token)
	if m == nil {
		return
	}
	m.mu.Lock()
	current := m.ctl == ch
	if current {
		m.ctl = nil
	}
	open := m.entry.Open()
	m.mu.Unlock()
	if current && open && g.ctx.Err() == nil {
		g.log.Info("control channel lost, asking the source", "peer", ch.Site(), "vm", m.vm, "err", why)
		g.wg.Go(func() { m.query(g.ctx) })
	}
}

// query asks the source what has become of the move, until an order has come.
func (m *sinkMove) query(ctx context.Context) {
	for {
		select {
		case <-time.After(queryEvery):
		case <-ctx.Done():
			return
		}
		m.mu.Lock()
		answered := m.ctl != nil || !m.entry.Open()
		m.mu.Unlock()
		if answered {
			return
		}
		m.queryOnce(ctx)
	}
}

func (m *sinkMove) queryOnce(ctx context.Context) {
	link := m.g.node.Link(m.peer)
	if link == nil || !link.State().Up {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	h := controlHeader{Version: protoVersion, Token: m.job.token}
	ch, err := link.Open(ctx, tunnel.Spec{Kind: kindControl, Header: encodeJSON(h), Class: tunnel.Urgent})
	if err != nil {
		return
	}
	defer ch.Abort("answered")
	if _, err := ch.Send(ctx, encodeJSON(control{Type: msgQuery})); err != nil {
		return
	}
	msg, err := ch.Recv(ctx)
	if err != nil {
		return
	}
	c, err := parseControl(msg.Data)
	if err != nil {
		m.g.log.Warn("answer of the source", "peer", m.peer, "err", err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch c.Type {
	case msgAbort:
		m.abandon(ctx, fmt.Errorf("site %s: %s", m.entry.Peer, c.Reason))
	case msgDone:
		m.sourceEnded(c)
	case msgUnknown:
		m.orphan()
	}
}

// orphan tells operators that the source knows nothing of a move whose
// process waits here.
func (m *sinkMove) orphan() {
	m.job.update(func(v *Job) {
		v.State = JobInDoubt
		v.Phase = "waiting; site " + m.entry.Peer + " has no record of this move"
		v.Safe = fmt.Sprintf("look whether the VM runs at %s. If it does: longhaul job recover %s --run source. If it never will: longhaul job recover %s --run destination",
			m.entry.Peer, v.ID, v.ID)
	})
}

// tellOutcome answers a destination that asks about a move of ours. While the
// move goes on here it needs no answer: its orders will come.
func (g *Gateway) tellOutcome(token, site string) (control, bool) {
	e, ok, err := g.journal.Get(token, RoleSource)
	switch {
	case err != nil:
		g.log.Error("answering a query", "peer", site, "err", err)
		return control{}, false
	case !ok || e.Peer != site:
		return control{Type: msgUnknown}, true
	case e.Step == StepAborted:
		return control{Type: msgAbort, Reason: "the move has ended: " + e.Job.Error}, true
	case e.Step == StepDone:
		return control{Type: msgDone, State: JobDone, Report: e.Job.Report}, true
	}
	return control{Type: msgProgress}, true
}
