package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/longhaul-project/longhaul/tunnel"
)

const (
	// defaultDowntime is QEMU's own default of downtime-limit.
	defaultDowntime = 300 * time.Millisecond

	// unboundedBandwidth is the max-bandwidth that the hypervisor gets, in
	// bytes per second; our legs pace it (hypervisor-wire.md, section 4).
	unboundedBandwidth = 16 << 30

	// switchPatience is how long a VM may stand still at the switchover
	// while the WAN is away, before it goes on at its source. It is safe
	// because the destination has not been told to run.
	switchPatience = 10 * time.Second

	// standstill is how long the VM may stand still at the switchover while
	// nothing moves at all, because a hypervisor hangs.
	standstill = 30 * time.Second

	// cleanupTime bounds what is done after a failure.
	cleanupTime = 30 * time.Second

	// cancelTime is how much of that the migration may take to be cancelled;
	// QEMU's adaptor frees it by force after 3 s.
	cancelTime = 10 * time.Second

	// windDown is how often a hypervisor that winds its migration down is
	// asked again: QEMU takes some milliseconds.
	windDown = 20 * time.Millisecond

	// legsGrace is how long the legs of a finished move may take to end by
	// themselves: both hypervisors close, and the last acknowledgements come.
	legsGrace = 2 * time.Second

	// drainTime is how long those of a move that is given up go on when nothing arrives
	// any more of what was on its way; drainTimes that long they do at most.
	drainTime  = 2 * time.Second
	drainTimes = 5

	// progressEvery is how often the hypervisor is asked how far it is.
	progressEvery = 250 * time.Millisecond
)

// A sourceMove is one move at the site that the VM leaves. One goroutine runs
// it; what it shares is in the job and the session.
type sourceMove struct {
	g    *Gateway
	job  *job
	src  Source
	link *tunnel.Link
	s    *session

	entry   Entry
	ctl     *tunnel.Channel
	answers chan control // what the destination says, in order; one waits
	ctlErr  chan error   // why ctl ended; one
	ctlStop func()       // ends the reading of ctl
	legs    *runningLegs // nil before the transfer

	decisions chan Decision // of an operator, for a move in doubt; one waits

	takenUp    bool // by recover.go: an earlier run of the gateway has begun it
	ordered    bool // the control channel may hold an order to run
	doubted    bool // an order to run has not been answered at once: operators may have acted
	resumed    bool // in doubt, its source was seen to have executed since the handover
	begun      time.Time
	completed  bool          // the hypervisor says that it has handed everything over
	agreed     bool          // the destination has loaded everything, with our digests
	limit      time.Duration // that the hypervisor aims for now
	stopAt     time.Time
	lastAt     int64     // bytes that had crossed at lastMove
	lastMove   time.Time // when some last did, or the VM last ran
	haste      haste
	switching  bool // the hypervisor itself has stopped the VM, or found it stopped
	commitSent time.Time
	rates      meter
}

// run moves the VM. It ends the job, unless the gateway itself is being
// stopped in the middle of a commit.
func (m *sourceMove) run(ctx context.Context) {
	err := m.move(ctx)
	if err == nil && !m.job.commit() {
		err = context.Cause(ctx) // aborted in the last moment
	}
	if err == nil {
		err = m.commit(m.g.ctx) // an operator can no longer abort it
		if errors.Is(err, errAborted) {
			m.takeBack(err)
			return
		}
		if err == nil {
			m.finish()
			return
		}
		m.g.log.Error("move stopped in the middle of its commit; it goes on when the gateway starts again",
			"vm", m.entry.Spec.VM, "peer", m.entry.Peer, "err", err)
		m.letGo()
		return
	}
	m.giveUp(err)
}

// move brings the VM's whole state to the destination, up to the point where
// both copies are complete and paused.
func (m *sourceMove) move(ctx context.Context) error {
	if err := m.prepare(ctx); err != nil {
		return err
	}
	return m.transfer(ctx)
}

// prepare has the destination start a process that waits for the stream.
func (m *sourceMove) prepare(ctx context.Context) error {
	m.job.enter(JobPreparing, "starting the destination")
	m.g.l2.Prepare(m.job.id, m.entry.Spec.NICs, m.entry.Peer)
	view := m.job.snapshot()
	answer, err := m.ask(ctx, control{
		Type: msgPrepare, Job: &view, Spec: &m.entry.Spec, Host: view.Request.ToHost,
		Paused: !m.entry.Ran, Tenant: m.s.tenant,
	})
	switch {
	case err != nil:
		if st := m.link.State(); !st.Up {
			err = fmt.Errorf("%w; the link is down: %s", err, st.Why)
		}
		return fmt.Errorf("preparing the destination: %w", err)
	case answer.Type == msgPrepared:
		m.s.store, err = m.g.tenantStore(ctx, m.link, m.s.tenant)
		return err
	}
	return fmt.Errorf("site %s refuses: %s", m.entry.Peer, answer.Reason)
}

// transfer runs the hypervisor's migration through the pair of gateways.
func (m *sourceMove) transfer(ctx context.Context) error {
	path := filepath.Join(m.g.cfg.RunDir, "leg-"+m.entry.Token[:16]+".sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listening for the source: %w", err)
	}
	m.legs = m.s.start(m.g.ctx, ln, m.g.cfg.Formats)
	return m.drive(ctx, path)
}

// drive starts the migration and follows it until both ends have completed.
func (m *sourceMove) drive(ctx context.Context, path string) error {
	m.job.enter(JobMoving, "memory crosses")
	req := m.job.snapshot().Request
	m.limit = firstLimit
	p := MoveParams{
		Downtime: m.limit, Bandwidth: unboundedBandwidth,
		Channels: req.Channels, Throttle: req.Throttle,
	}
	if err := m.src.Start(ctx, "unix:"+path, p); err != nil {
		return fmt.Errorf("starting the migration: %w", err)
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for !m.completed || !m.agreed {
		var err error
		select {
		case ev, ok := <-m.src.Events():
			if !ok {
				ev = Event{Kind: EventClosed, Text: "its control connection is closed"}
			}
			err = m.onEvent(ctx, ev)
		case a := <-m.answers:
			err = m.onAnswer(a)
		case e := <-m.legs.failed:
			err = e
		case e := <-m.ctlErr:
			err = fmt.Errorf("control channel to %s: %w", m.entry.Peer, e)
		case <-tick.C:
			err = m.onTick(ctx)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *sourceMove) downtimeLimit() time.Duration {
	if ms := m.job.snapshot().Request.Downtime; ms > 0 {
		return time.Duration(ms) * time.Millisecond
	}
	return defaultDowntime
}

// onEvent acts on what the source hypervisor says.
func (m *sourceMove) onEvent(ctx context.Context, ev Event) error {
	switch ev.Kind {
	case EventStop:
		return m.stopped(ev.At)
	case EventResume:
		if m.switching {
			return errors.New("the source has resumed the VM by itself")
		}
		if !m.stopAt.IsZero() { // an operator had paused it for a while
			m.stopAt = time.Time{}
			m.s.flow.SetTail(false)
			m.g.l2.Revoke(m.job.id)
			m.g.l2.Prepare(m.job.id, m.entry.Spec.NICs, m.entry.Peer)
			m.job.enter(JobMoving, "memory crosses")
		}
	case EventPass:
		m.s.rounds.Add(1)
	case EventClosed, EventExit:
		return fmt.Errorf("the source hypervisor is gone: %s", ev.Text)
	case EventStatus:
		return m.onStatus(ctx, ev.Text)
	}
	return nil
}

// stopped is the moment from which the network must send to the destination.
func (m *sourceMove) stopped(at time.Time) error {
	m.stopAt = at
	m.s.flow.SetTail(true)
	m.g.l2.Flip(m.job.id)
	m.job.enter(JobSwitching, "the last pages and the device state cross")
	return nil
}

func (m *sourceMove) onStatus(ctx context.Context, status string) error {
	switch status {
	case "pre-switchover":
		m.switching = true
		if m.stopAt.IsZero() { // it was paused before
			m.g.l2.Flip(m.job.id)
		}
		if err := m.src.Continue(ctx); err != nil {
			return fmt.Errorf("continuing after the stop: %w", err)
		}
	case "completed":
		m.completed = true
	case "failed", "cancelled":
		return fmt.Errorf("the source hypervisor says that the migration %s: %s", status, m.why(ctx))
	}
	return nil
}

// why asks the hypervisor for the cause of a failed migration.
func (m *sourceMove) why(ctx context.Context) string {
	p, err := m.src.Progress(ctx)
	if err != nil {
		return err.Error()
	}
	if p.Error == "" {
		return "it does not say why"
	}
	return p.Error
}

// onAnswer acts on what the destination says while memory crosses.
func (m *sourceMove) onAnswer(a control) error {
	switch a.Type {
	case msgLoaded:
		err := m.s.same(a.Streams)
		if err == nil {
			m.agreed = true
		} else if !m.s.behind(a.Streams) {
			return err
		}
	case msgFailed, msgAborted, msgRefused:
		m.distrust(a)
		return destinationFailed(a.Reason)
	}
	return nil
}

// onTick notes the progress, and ends a switchover that the WAN has cut off.
func (m *sourceMove) onTick(ctx context.Context) error {
	if err := m.follow(ctx); err != nil {
		m.g.log.Debug("asking how far the source is", "vm", m.entry.Spec.VM, "err", err) // the next event will say why
	}
	st := m.link.State()
	unacked, _ := m.s.unacked()
	if at := m.s.logical.Load() - unacked; at != m.lastAt || m.stopAt.IsZero() {
		m.lastAt, m.lastMove = at, time.Now()
	}
	if st.Up && time.Since(m.lastMove) > m.g.patience.standstill {
		return fmt.Errorf("nothing has moved for %v while the VM stands still: %s does not load it", m.g.patience.standstill, m.entry.Peer)
	}
	if !m.stopAt.IsZero() && !st.Up && time.Since(st.Since) > m.g.patience.switchover {
		return fmt.Errorf("the WAN has been away for %v while the VM stands still: %s", m.g.patience.switchover, st.Why)
	}
	return nil
}

// follow asks the source how far it is, tells the destination, and steers.
func (m *sourceMove) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	p, err := m.src.Progress(ctx)
	if err != nil {
		return err
	}
	m.note(p)
	m.steer(ctx, p)
	m.tellProgress(ctx)
	return nil
}

// steer tells the hypervisor how long the last pages may take, which is the
// downtime that was asked for less what comes on top of it.
func (m *sourceMove) steer(ctx context.Context, p Progress) {
	if p.Status != "active" {
		return
	}
	next := lastPages(m.downtimeLimit(), m.link.State().RTT, time.Duration(m.s.drain.Load()), p.Rounds)
	if diff := next - m.limit; diff.Abs() < m.limit/8 {
		return
	}
	if err := m.src.SetDowntime(ctx, next); err != nil {
		m.g.log.Debug("setting the downtime limit", "vm", m.entry.Spec.VM, "err", err)
		return
	}
	m.limit = next
}

// finish reports a move that succeeded.
func (m *sourceMove) finish() {
	m.noteSilence()
	m.closeMove(JobDone, nil)
}

// closeMove ends the job and lets go of everything.
func (m *sourceMove) closeMove(s JobState, err error) {
	if m.legs != nil {
		m.legs.finish(legsGrace, errors.New("the move has ended"))
	}
	if s != JobDone {
		m.noteLost()
	}
	m.job.end(s, err)
	m.entry.Job, m.entry.Step = m.job.snapshot(), StepAborted
	if s == JobDone {
		m.entry.Step = StepDone
	}
	m.g.putEnd(m.entry)
	if m.ctl != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(m.g.ctx), time.Second)
		defer cancel()
		v := m.job.snapshot()
		m.tell(ctx, control{Type: msgDone, State: v.State, Progress: &v.Progress, Report: v.Report, Reason: v.Error})
		m.endControl(ctx)
	}
	m.letGo()
	m.g.trim()
	m.g.log.Info("move ended", "vm", m.entry.Spec.VM, "peer", m.entry.Peer, "state", s, "took", m.took(), "err", err)
}

// letGo closes the source, which stays as it is.
func (m *sourceMove) letGo() {
	if m.src != nil {
		if e := m.src.Close(); e != nil && !errors.Is(e, io.EOF) {
			m.g.log.Debug("closing the source", "vm", m.entry.Spec.VM, "err", e)
		}
	}
}
