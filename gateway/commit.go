package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
)

// Who owns the VM.
//
// At any time at most one copy of a VM may execute, and one must be able to
// (invariants I1 and I2 of the reliability rules). Two gateways and two
// hypervisors can each fail at any moment, so each side writes a step into its
// journal, on the disk, before it acts on it:
//
//	source                                destination
//	moving     it owns the VM             prepared   a paused process loads
//	  | both QEMUs say completed,           |
//	  | both ends agree on the digests      |
//	handover   it will not run here  ---- commit --->
//	  | whatever happens, until the         starting  it may run here
//	  | destination has spoken              | cont
//	  |                            <--- running -----
//	committed  the process may be ended   running
//	  | quit
//	done  -------------------------- done --------->  done
//
// In step moving, any fault ends with the VM at its source: the destination
// has never been told to run, and it never runs by itself. In step handover the
// source waits for the destination's word, as long as it takes: "running" or
// "aborted", which the destination too says only from its journal. If it says
// neither, both stay paused, the job is in doubt, and `job show` says which
// action is safe. Silence decides nothing.
//
// The hypervisors follow the same rule. The source QEMU is asked for the commit
// only once it says completed: before that it resumes the VM by itself when its
// connection breaks (hypervisor-wire.md, 3.3). The destination QEMU is started
// with -S and never runs before it is told to.

// askAgain is how long the source waits before it asks a destination that did
// not answer once more.
const askAgain = 500 * time.Millisecond

// errAborted says that the destination has ended its process and will never
// run it: the source may.
var errAborted = errors.New("the destination has given up")

// commit hands the VM over. It returns nil when the destination runs and the
// source is released, and errAborted when the VM belongs to the source again.
// Any other error leaves the entry open: both copies are paused.
func (m *sourceMove) commit(ctx context.Context) error {
	defer m.job.settle()
	if m.entry.Step == StepMoving {
		m.noteCrossed() // for the report, should a restart come between
		if err := m.step(StepHandover); err != nil {
			return m.unhand(ctx, err)
		}
	}
	m.job.enter(JobCommit, "waiting for "+m.entry.Peer+" to run the VM")
	if m.entry.Step == StepHandover {
		answer, err := m.settle(ctx)
		if err != nil {
			return err
		}
		m.job.settle()
		m.noteRunning(ctx, answer)
		if err := m.insist(ctx, StepReleased); err != nil {
			return err
		}
	}
	return m.release(ctx)
}

// unhand follows a handover that the journal did not take. The order to run was
// not sent, but what is on the disk is not known: a restart might send it. So
// before the VM runs here again, either our journal must hold that the move is
// aborted, or the destination's.
func (m *sourceMove) unhand(ctx context.Context, why error) error {
	m.job.enter(JobCommit, "going back: "+why.Error())
	why = fmt.Errorf("%w: %w", errAborted, why)
	for {
		if err := m.step(StepAborted); err == nil {
			m.tellAbort(ctx, why) // nothing was wrong with the stream: all of it was agreed on
			return why
		}
		a, err := m.ask(ctx, control{Type: msgAbort, Reason: why.Error()})
		if err == nil && (a.Type == msgAborted || a.Type == msgUnknown) {
			return why
		}
		if err := pause(ctx, retryEvery); err != nil {
			return err
		}
	}
}

// insist is step for what has to be written down sooner or later.
func (m *sourceMove) insist(ctx context.Context, s Step) error {
	for {
		err := m.step(s)
		if err == nil {
			return nil
		}
		m.g.log.Error("journal does not take how far a move is", "vm", m.entry.Spec.VM, "stage", s, "err", err)
		m.job.enter(JobCommit, "the VM runs at "+m.entry.Peer+"; the source is not released: "+err.Error())
		if err := pause(ctx, retryEvery); err != nil {
			return err
		}
	}
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settle sends the order to run until the destination has answered.
func (m *sourceMove) settle(ctx context.Context) (control, error) {
	for fresh := m.agreed; ; fresh = false { // fresh: the hypervisor has said completed just now
		m.doubted = m.doubted || !fresh
		if other := m.stranger(ctx); other != nil {
			m.recall(other)
			m.strange(other)
		} else if answer, err := m.order(ctx, fresh); !errors.Is(err, errDoubt) {
			return answer, err
		}
		select {
		case decision := <-m.decisions:
			if decision == DecideSource {
				return m.decided(ctx)
			}
			return control{ResumeAt: time.Now().UTC()}, nil
		case <-time.After(askAgain):
		case <-ctx.Done():
			return control{}, context.Cause(ctx)
		}
	}
}

// errDoubt says that an order has decided nothing, and that the job says why.
var errDoubt = errors.New("in doubt")

// order sends the order to run, or to give up, once.
func (m *sourceMove) order(ctx context.Context, fresh bool) (control, error) {
	order, state, err := m.choose(ctx, fresh)
	if err != nil || order.Type != msgCommit {
		m.recall(errors.Join(errors.New(order.Reason), err))
	}
	if err != nil {
		m.doubt(err)
		return control{}, errDoubt
	}
	m.ordered = order.Type == msgCommit
	m.commitSent = time.Now()
	answer, err := m.ask(ctx, order)
	switch {
	case ctx.Err() != nil:
		return answer, context.Cause(ctx)
	case err != nil && order.Type == msgAbort:
		m.doubt(fmt.Errorf("the VM was resumed here by hand, and %s is told to give up: %w", m.entry.Peer, err))
	case err != nil:
		m.doubt(err)
	case answer.Type == msgRunning && state == Running:
		m.doubt(fmt.Errorf("the VM was resumed here by hand, and runs at %s as well; pause it here", m.entry.Peer))
	case answer.Type == msgRunning:
		return answer, nil
	case answer.Type == msgAborted:
		return answer, fmt.Errorf("%w: %s", errAborted, answer.Reason)
	case answer.Type == msgUnknown:
		m.doubt(fmt.Errorf("site %s has no record of this move", m.entry.Peer))
	default:
		m.doubt(fmt.Errorf("site %s answered %q: %s", m.entry.Peer, answer.Type, answer.Reason))
	}
	return answer, errDoubt
}

// choose decides between the order to run and that to give up, by the state of the copy
// here. If that has executed since it was handed over, by hand, its state is the newer one,
// also of the disks, and whether it executes now or is paused again, nothing else may run
// from the older.
func (m *sourceMove) choose(ctx context.Context, fresh bool) (control, RunState, error) {
	if fresh {
		return control{Type: msgCommit}, Moved, nil
	}
	state, err := m.here(ctx)
	if err == nil && state == Unknown {
		err = errUntold
	}
	switch {
	case err != nil:
		return control{}, state, fmt.Errorf("host %s does not tell whether the VM was resumed here: %w", m.entry.Host, err)
	case state == Paused && m.takenUp && m.entry.Process == "": // found by its name
		return control{}, state, fmt.Errorf("a process of that name is paused at host %s; it is not known whether it is that of the move", m.entry.Host)
	case state == Running || state == Paused: // else it is Moved, as it was when it was handed over
		m.resumed = true
		return control{Type: msgAbort, Reason: "the VM was resumed at its source"}, state, nil
	}
	return control{Type: msgCommit}, state, nil
}

// recall lets an order to run that is still on its way not arrive any more.
func (m *sourceMove) recall(why error) {
	if m.ordered {
		m.lose(why)
		m.ordered = false
	}
}

// errUntold is why a state is not known that the hypervisor was asked for.
var errUntold = errors.New("the hypervisor says that its state is unknown")

// here asks the source hypervisor for the VM's state, over another control connection
// if that which there is does not do.
func (m *sourceMove) here(ctx context.Context) (RunState, error) {
	ctx, cancel := context.WithTimeout(ctx, strangerTime) // a new connection may take as long
	defer cancel()
	state, err := m.stateSoon(ctx)
	if err == nil {
		return state, nil
	}
	switch e := m.reattach(ctx); {
	case errors.Is(e, ErrNoVM):
		m.src.Close()
		m.src = goneSource{e}
		return Gone, nil
	case e != nil:
		return Unknown, errors.Join(err, e)
	}
	return m.stateSoon(ctx)
}

func (m *sourceMove) stateSoon(ctx context.Context) (RunState, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return m.src.State(ctx)
}

// decided carries out that an operator wants the VM at its source. An order to
// run that is still on its way must not arrive after that; and should the
// destination be reached after all, its word counts more.
func (m *sourceMove) decided(ctx context.Context) (control, error) {
	m.lose(errOperator)
	answer, err := m.ask(ctx, control{Type: msgAbort, Reason: "an operator has decided for the source"})
	if err == nil && answer.Type == msgRunning {
		return answer, nil
	}
	return control{}, fmt.Errorf("%w: an operator said so", errAborted)
}

// doubt tells operators that the copy here is paused and the other's state is
// not known.
func (m *sourceMove) doubt(why error) {
	m.job.update(func(v *Job) {
		v.State = JobInDoubt
		v.Phase = "waiting for " + m.entry.Peer + ": " + why.Error()
		v.Safe = fmt.Sprintf("wait: %s was told to run the VM and has not answered, so the copy here stays paused and is asked about again. "+
			"Only if you have seen that the VM does not run at %s and never will: longhaul job recover %s --run source. "+
			"Only if you have seen that it runs there: longhaul job recover %s --run destination", m.entry.Peer, m.entry.Peer, v.ID, v.ID)
	})
}

// release ends the source's process, which the destination's word permits. It
// fails when ctx ends before that: the next run of the gateway does it.
func (m *sourceMove) release(ctx context.Context) error {
	m.job.enter(JobCommit, "releasing the source")
	m.g.l2.Confirm(m.job.id)
	if m.src != nil {
		err := m.endSource(ctx)
		if ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		if m.entry.Left = err != nil; m.entry.Left {
			m.g.log.Warn("source process not ended; the VM runs at the destination", "vm", m.entry.Spec.VM, "err", err)
		}
	}
	if err := m.step(StepDone); err != nil { // closeMove tries again
		m.g.log.Error("journal does not take that the move is done", "vm", m.entry.Spec.VM, "err", err)
	}
	return nil
}

// releaseTries is how often a source that does not obey is told to end before the
// job ends without that; see left.go.
const releaseTries = 3

func (m *sourceMove) endSource(ctx context.Context) error {
	for tries := 1; ; tries++ {
		err := m.mayEnd(ctx)
		if err == nil {
			err = m.src.Release(ctx)
		}
		if err == nil || tries == releaseTries || pause(ctx, retryEvery) != nil {
			return err
		}
	}
}

// mayEnd fails if the source is not what the move has left there. One that was taken up
// may be another than that of the move: it may have been found by its name, which somebody
// may have given to another. And one that was resumed by hand in doubt holds a newer state
// than that which the destination runs from: what it is worth only operators know.
func (m *sourceMove) mayEnd(ctx context.Context) error {
	if !m.takenUp && !m.resumed {
		return nil
	}
	state, err := m.src.State(ctx)
	if err != nil || state == Gone {
		return err
	}
	if state != Moved {
		return fmt.Errorf("%s is %s: %w", m.entry.Spec.VM, state, ErrBusy)
	}
	return m.g.stillIts(m.entry)
}

// step writes down how far the ownership has come. When it fails, nothing may
// be done that the step permits.
func (m *sourceMove) step(s Step) error { return m.g.journal.step(&m.entry, s, m.job) }

// obey is the destination's half of the commit. It may be asked any number of
// times, and answers from the journal.
func (m *sinkMove) obey(ctx context.Context) control {
	start := time.Now()
	switch m.entry.Step {
	case StepPrepared:
		if err := m.loadedOrWhy(ctx); err != nil {
			return m.abandon(ctx, err)
		}
		if err := m.step(StepStarting); err != nil {
			return m.abandon(ctx, err)
		}
	case StepStarting:
	case StepRunning, StepDone:
		return control{Type: msgRunning, ResumeAt: m.resumeAt, Took: m.took}
	case StepAborted:
		return control{Type: msgAborted, Reason: m.reason()}
	}
	if err := m.execute(ctx); err != nil {
		m.doubt(err)
		return control{Type: msgFailed, Reason: err.Error()}
	}
	return m.ran(start)
}

// ran notes that the VM has come to run here.
func (m *sinkMove) ran(start time.Time) control {
	m.resumeAt, m.took = time.Now().UTC(), time.Since(start)
	if err := m.step(StepRunning); err != nil {
		// It runs, and the step before says that it may: the answer stands. The
		// next step is written after this one, whatever has become of the VM by then.
		m.g.log.Error("journal does not take that the VM runs here", "vm", m.vm, "err", err)
		m.entry.Step = StepRunning
	}
	m.settled()
	return control{Type: msgRunning, ResumeAt: m.resumeAt, Took: m.took}
}

// execute resumes the VM here, if it does not run already. One that was paused
// when its move began stays so, as virsh does it.
func (m *sinkMove) execute(ctx context.Context) error {
	state, err := m.state(ctx)
	switch {
	case err != nil:
		return err
	case state == Running || state == Paused && !m.entry.Ran:
		return nil
	case state != Paused:
		return fmt.Errorf("the hypervisor process is %s", state)
	}
	if err := m.sink.Resume(ctx); err != nil {
		return fmt.Errorf("resuming the VM: %w", err)
	}
	return nil
}

// abandon ends the destination for good, before anything ran. The journal has
// it first: what it says can be relied on. After the order to run only an
// operator who has decided for the source gives up the destination; then it
// must at least not run.
func (m *sinkMove) abandon(ctx context.Context, why error) control {
	switch m.entry.Step {
	case StepRunning, StepDone:
		return m.obey(ctx) // too late
	case StepAborted:
		return m.verdict(control{Type: msgAborted, Reason: m.reason()})
	case StepStarting:
		state, err := m.state(ctx)
		if err == nil && state == Running {
			return m.ran(time.Now())
		}
		if err == nil && state == Unknown { // it may run
			err = errors.New("the hypervisor does not tell whether the VM runs")
		}
		if err != nil && !errors.Is(why, errOperator) {
			m.doubt(err)
			return control{Type: msgFailed, Reason: err.Error()}
		}
	}
	m.job.update(func(v *Job) { v.Error = why.Error() })
	m.entry.Left = true
	if err := m.step(StepAborted); err != nil {
		m.entry.Left = false
		return control{Type: msgFailed, Reason: err.Error()}
	}
	m.g.l2.Revoke(m.job.id)
	err := m.find(ctx)
	if err == nil {
		err = m.sink.Discard(ctx)
	}
	m.entry.Left = err != nil && !errors.Is(err, ErrNoVM)
	m.ended(cmp.Or(m.ends, JobFailed), why)
	if m.entry.Left {
		m.g.log.Warn("destination process not ended; it is paused and will not be resumed", "vm", m.vm, "err", err)
	}
	return m.verdict(control{Type: msgAborted, Reason: why.Error()})
}

// verdict adds what was wrong with the stream, if anything was. The source may
// have given up over what came of that before it heard of it.
func (m *sinkMove) verdict(c control) control {
	if m.s == nil {
		return c
	}
	if flaw := m.s.fault(); flaw != nil {
		c.Cause, c.Rotten, c.Store = flaw.Error(), errors.Is(flaw, dedup.ErrMismatch), errors.Is(flaw, dedup.ErrStore)
	}
	return c
}

// doubt: the order to run was received, and the hypervisor does not obey.
func (m *sinkMove) doubt(why error) {
	m.job.update(func(v *Job) {
		v.State, v.Error = JobInDoubt, why.Error()
		v.Phase = "the VM was to run here and does not"
		v.Safe = fmt.Sprintf("look at the hypervisor here first. If the VM has not run here (the process ended before it was resumed): "+
			"longhaul job recover %s --run source, here and at %s", v.ID, m.entry.Peer)
	})
}

func (m *sinkMove) step(s Step) error { return m.g.journal.step(&m.entry, s, m.job) }
