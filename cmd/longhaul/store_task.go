package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api/client"
)

// How often the gateway is asked how far a task is: at first often, for most
// tasks are short.
const (
	firstLook = 20 * time.Millisecond
	lastLook  = 500 * time.Millisecond
)

// runTask starts a task on the store, shows how far it is, and then what it has
// done. It does not run under do: a signal has to reach the task, not this command.
func (a *app) runTask(ctx context.Context, detach bool, start func(context.Context) (gateway.StoreTask, error)) error {
	t, err := start(ctx)
	if err != nil {
		return err
	}
	if detach {
		return a.show(t, func(w io.Writer) error {
			a.say("the task goes on at the gateway; longhaul store task watch " + t.ID)
			_, err := fmt.Fprintln(w, t.ID)
			return err
		})
	}
	asked := false
	return a.awaitTask(ctx, t, func(s os.Signal, d *taskDisplay) error {
		if asked || s != os.Interrupt {
			return goesOn(t)
		}
		asked = true
		d.note("aborting %s; what it has done stays done (Ctrl-C again leaves at once)", t.ID)
		gw := a.gateway()
		defer gw.Close()
		if _, err := gw.AbortStoreTask(ctx, t.ID); err != nil && !errors.Is(err, gateway.ErrBusy) {
			d.note("aborting: %v; the task may go on", err)
		}
		return nil
	})
}

// goesOn is the error of who leaves a task that runs.
func goesOn(t gateway.StoreTask) error {
	return fmt.Errorf("%w: %s goes on at the gateway; longhaul store task watch %s", errInterrupted, t.ID, t.ID)
}

// onSignal says what a signal does to who waits for a task: an error leaves.
type onSignal func(os.Signal, *taskDisplay) error

// awaitTask shows how far a task is, and then what it has done.
func (a *app) awaitTask(ctx context.Context, t gateway.StoreTask, signal onSignal) error {
	d := &taskDisplay{w: a.stderr, width: a.width()}
	t, err := a.followTask(ctx, t, d, signal)
	d.end()
	if err == nil {
		err = taskOutcome(t)
	}
	return errors.Join(err, a.show(t, func(w io.Writer) error { return writeTask(w, t) }))
}

// followTask asks until the task has ended: also a gateway that is restarted meanwhile, where a
// seed goes on.
func (a *app) followTask(ctx context.Context, t gateway.StoreTask, d *taskDisplay, signal onSignal) (gateway.StoreTask, error) {
	gw := a.gateway()
	defer gw.Close()
	heard, lost := time.Now(), false
	for pause := firstLook; t.State == gateway.TaskRunning; pause = min(2*pause, lastLook) {
		if !lost {
			d.update(t)
		}
		select {
		case s := <-a.signals:
			if err := signal(s, d); err != nil {
				return t, err
			}
		case <-time.After(pause):
		}
		next, err := gw.StoreTask(ctx, t.ID)
		switch {
		case err == nil:
			t, heard, lost = next, time.Now(), false
		case lost && errors.Is(err, gateway.ErrNotFound):
			return t, fmt.Errorf("%w: the gateway was restarted and has not taken it up; ask for the same again", err)
		case !gone(err) || time.Since(heard) > lostPatience:
			return t, fmt.Errorf("%w (it may go on at the gateway; longhaul store task watch %s)", err, t.ID)
		case !lost:
			lost = true
			d.note("lost the gateway (%v); trying again", err)
		}
	}
	return t, nil
}

// gone tells whether an error means that the gateway has stopped, perhaps in the middle of
// its answer.
func gone(err error) bool {
	for _, e := range []error{client.ErrUnreachable, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// taskOutcome is the error that a task's end means to a script.
func taskOutcome(t gateway.StoreTask) error {
	switch {
	case t.State == gateway.TaskAborted:
		return fmt.Errorf("%w: %s was aborted; asking for the same again goes on where it was", errInterrupted, t.ID)
	case t.State == gateway.TaskFailed:
		return fmt.Errorf("%s failed: %s", t.ID, t.Error)
	case t.Damaged > 0:
		return fmt.Errorf("%d pages were damaged; of the segments that they were in, %d are dropped and %d written anew from memory", t.Damaged, t.Dropped, t.Mended)
	}
	return nil
}

// A taskDisplay shows a task that runs: on a terminal in one line, elsewhere as a
// line for each phase and one now and then.
type taskDisplay struct {
	w     io.Writer
	width func() int // of the terminal in columns; 0: it is none
	phase string     // that was told last
	shown time.Time
	drawn bool
}

func (d *taskDisplay) update(t gateway.StoreTask) {
	width := d.width()
	switch {
	case width > 0:
		fmt.Fprintf(d.w, "\r\x1b[K%s", cut(taskLine(t), width))
		d.drawn = true
	case t.Phase != d.phase || time.Since(d.shown) >= heartbeat:
		fmt.Fprintln(d.w, taskLine(t))
	default:
		return
	}
	d.phase, d.shown = t.Phase, time.Now()
}

// note writes a line that stays.
func (d *taskDisplay) note(format string, args ...any) {
	d.end()
	fmt.Fprintln(d.w, clean(fmt.Sprintf(format, args...)))
}

// end leaves the line.
func (d *taskDisplay) end() {
	if d.drawn {
		fmt.Fprint(d.w, "\r\x1b[K")
		d.drawn = false
	}
}

// taskLine is a task in one line.
func taskLine(t gateway.StoreTask) string {
	s := t.ID + ": " + t.Phase
	if t.Total > 0 {
		s += fmt.Sprintf(", %s of %s", size(min(t.Done, t.Total)), size(t.Total))
	}
	if t.Before > 0 {
		s += fmt.Sprintf(" (%s read before)", size(t.Before))
	}
	if t.ReadRate > 0 && t.Done < t.Total {
		s += ", at most " + rate(t.ReadRate)
	}
	for _, p := range t.Peers {
		switch {
		case p.State == "sending" && p.Left > 0:
			s += fmt.Sprintf("; %s: %s left", p.Site, size(p.Left))
		case p.Note != "":
			s += fmt.Sprintf("; %s: %s", p.Site, p.Note)
		}
	}
	return clean(s)
}
