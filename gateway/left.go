package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// What a move leaves behind. A process that a move no longer needs holds as much
// memory as the VM, and it stands in the way of the next move; what is worse, a
// gateway that looks for the VM by its name may find this one, whose state is of
// another time. So the journal knows of each that did not end when it was told
// to, or was not told because the gateway had ended, and it is told again: until
// it has ended, and before the VM comes to its host once more.

//
// Nor is a move over before its end is written down: the next run of the gateway would
// take it up, and might find the VM as its operator wants it by then. That too is
// tried until it is done. Operators see in the gateway's status what is not.

// A leftover is what a move that has ended has left undone.
type leftover struct {
	entry   Entry
	written bool      // the journal has the entry; guarded by Gateway.clearing
	since   time.Time // when it was first tried
	why     string    // it is not done, for operators; guarded by Gateway.mu
}

// retryMost is how far what was left is put off, after tries that are each twice as far
// apart as the ones before.
const retryMost = 30 * time.Second

// putEnd writes down that a move has ended, and does what it has left.
func (g *Gateway) putEnd(e Entry) {
	l := &leftover{entry: e, written: true}
	if err := g.journal.Put(e); err != nil {
		g.log.Error("journal does not take the end of a move", "vm", e.Spec.VM, "err", err)
		l.written, l.why = false, journalRefuses(err)
	}
	g.keepClearing(l)
}

// keepClearing does what a move has left, in the background, until it has succeeded.
func (g *Gateway) keepClearing(l *leftover) {
	if l.written && !l.entry.Left {
		return
	}
	l.since = time.Now().UTC()
	g.mu.Lock()
	g.left[l] = struct{}{}
	g.mu.Unlock()
	g.wg.Go(func() {
		for wait := retryEvery; ; wait = min(2*wait, retryMost) {
			if g.clear(g.ctx, l) == nil || pause(g.ctx, wait) != nil {
				break
			}
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.left, l)
	})
}

func journalRefuses(err error) string {
	return fmt.Sprintf("the journal does not take that the move has ended, and is tried again; is there room for it? %v", err)
}

// clear does what a move has left, and notes why it does not succeed. One at a time:
// hypervisors are asked meanwhile.
func (g *Gateway) clear(ctx context.Context, l *leftover) error {
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	for !g.clearing.TryLock() {
		if err := pause(ctx, windDown); err != nil {
			return err
		}
	}
	defer g.clearing.Unlock()
	why, err := "", error(nil)
	if !l.written {
		if err = g.journal.Put(l.entry); err != nil {
			why = journalRefuses(err)
		}
		l.written = err == nil
	}
	if l.written {
		if err = g.clearProcess(ctx, l.entry); err != nil {
			why = fmt.Sprintf("a process of the move is not needed any more and has not ended: %v", err)
		}
	}
	if err != nil {
		g.log.Debug("ending what a move has left", "vm", l.entry.Spec.VM, "err", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	l.why = why
	return err
}

// clearProcess ends the process that a move has left. One that has come to run was
// resumed by hand: it is left alone, and operators are told.
//
// The journal is asked anew: once the process has ended, or the VM has been at the
// host again, a source of that name may be one whose move has not come to its commit.
func (g *Gateway) clearProcess(ctx context.Context, e Entry) error {
	e, ok, err := g.journal.Get(e.Token, e.Role)
	if err != nil || !ok || !e.Left {
		return err
	}
	end := g.clearSink
	if e.Role == RoleSource {
		end = g.clearSource
	}
	if err := end(ctx, e); errors.Is(err, ErrBusy) {
		g.log.Warn("what a move has left is in use; it is left alone", "vm", e.Spec.VM, "err", err)
	} else if err != nil && !errors.Is(err, ErrNoVM) {
		return fmt.Errorf("host %s: %w", e.Host, err)
	}
	e.Left = false
	return g.journal.Put(e)
}

func (g *Gateway) clearSink(ctx context.Context, e Entry) error {
	h := g.hostNamed(e.Host)
	if h == nil {
		return errors.New("it is not in the config")
	}
	sink, err := h.Attach(ctx, e.Spec)
	if err != nil {
		return err
	}
	defer sink.Close()
	state, err := sink.State(ctx)
	if err == nil && state == Running {
		if err := g.stillIts(e); err != nil {
			return err
		}
		return resumedByHand(e, state)
	}
	return sink.Discard(ctx)
}

// clearSource ends a source whose VM has moved away, and no process of its name
// that is something else.
func (g *Gateway) clearSource(ctx context.Context, e Entry) error {
	if err := g.stillIts(e); err != nil {
		return err
	}
	src, err := g.sourceOf(ctx, e)
	if errors.Is(err, ErrBusy) { // it cannot be told from another now, perhaps later
		return errors.New(err.Error())
	}
	if err != nil {
		return err
	}
	defer src.Close()
	switch state, err := src.State(ctx); {
	case err != nil:
		return err
	case state == Gone:
		return nil
	case state == Running || state == Paused:
		return resumedByHand(e, state)
	case state != Moved:
		return fmt.Errorf("it is %s", state)
	}
	if err := g.stillIts(e); err != nil { // asking may have taken long
		return err
	}
	return src.Release(ctx)
}

// resumedByHand says what an operator has to see to, who alone knows what for: the process
// of a move that executes, or has, though its VM was to run at the other site only. Where
// the process was found by its name it need not be that of the move: ErrBusy.
func resumedByHand(e Entry, state RunState) error {
	switch {
	case e.Role == RoleSource && e.Process == "":
		return fmt.Errorf("a process of the name %s is %s at %s: %w", e.Spec.VM, state, e.Host, ErrBusy)
	case state == Running:
		return fmt.Errorf("it was resumed by hand and runs; if %s runs at site %s as well, end one of them by hand at once", e.Spec.VM, e.Peer)
	}
	return fmt.Errorf("it was resumed by hand since and is paused; if %s runs at site %s, end it by hand", e.Spec.VM, e.Peer)
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

// clearFor makes room for a VM that comes to a host. If a process stays that
// stands in the way, the host says so.
func (g *Gateway) clearFor(ctx context.Context, host, vm string) {
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	g.mu.Lock()
	var all []*leftover
	for l := range g.left {
		if l.entry.Host == host && l.entry.Spec.VM == vm {
			all = append(all, l)
		}
	}
	g.mu.Unlock()
	for _, l := range all {
		if err := g.clear(ctx, l); err != nil {
			g.log.Warn("ending what a move has left", "vm", vm, "err", err)
		}
	}
}

// leftovers are what moves have left undone, the oldest first, for operators.
func (g *Gateway) leftovers() (all []Leftover) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for l := range g.left {
		if l.why != "" {
			all = append(all, Leftover{Job: jobID(l.entry.Token), VM: l.entry.Spec.VM, Host: l.entry.Host, Since: l.since, Problem: l.why})
		}
	}
	slices.SortFunc(all, func(a, b Leftover) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Job, b.Job)) })
	return all
}
