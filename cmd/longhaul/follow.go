package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api/client"
)

const (
	// A gateway that restarts is back within seconds, and its moves have
	// fallen back to the source or go on; so a watch outlives it.
	lostPatience = time.Minute
	lostPause    = time.Second
)

// errDoubt ends a watch: the job waits for the operator and will not change.
var errDoubt = errors.New("in doubt")

// A watch follows one job and shows it, in one goroutine with the signals, so
// that lines do not mix.
type watch struct {
	client  *client.Client
	id      string
	signals <-chan os.Signal
	each    func(gateway.JobEvent)
	note    func(format string, args ...any)

	// pause is how long to wait before asking again; 0 is lostPause.
	pause time.Duration

	// signal acts on the nth signal. Its error ends the watch.
	signal func(n int, s os.Signal) error
}

// run returns the job as it was last known, and an error if the watch ended
// before the job had ended or fell in doubt.
func (w *watch) run(ctx context.Context) (job gateway.Job, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan gateway.JobEvent) // no room: showing is fast
	result := make(chan error, 1)         // follow's one result
	lost := make(chan error)              // no room: rare
	go func() { result <- w.follow(ctx, events, lost) }()
	for n := 1; ; {
		select {
		case ev := <-events:
			job = ev.Job
			w.each(ev)
		case why := <-lost:
			w.note("lost the gateway (%v); the job goes on without this command; trying again", why)
		case s := <-w.signals:
			if err := w.signal(n, s); err != nil {
				cancel()
				<-result
				return job, err
			}
			n++
		case err := <-result:
			return job, err
		}
	}
}

// follow sends the job's events until it has ended. It asks again when the
// gateway goes away.
func (w *watch) follow(ctx context.Context, events chan<- gateway.JobEvent, lost chan<- error) error {
	var last gateway.Job
	heard := time.Now()
	for told := false; ; {
		err := w.client.WatchJob(ctx, w.id, func(ev gateway.JobEvent) error {
			last, heard, told = ev.Job, time.Now(), false
			select {
			case events <- ev:
			case <-ctx.Done():
				return ctx.Err()
			}
			if ev.Job.State == gateway.JobInDoubt {
				return errDoubt
			}
			return nil
		})
		if errors.Is(err, errDoubt) || err == nil && last.State.Ended() {
			return nil
		}
		if err == nil {
			err = client.ErrCut
		}
		gone := errors.Is(err, client.ErrCut) || errors.Is(err, client.ErrUnreachable)
		if ctx.Err() != nil || !gone || last.ID == "" || time.Since(heard) > lostPatience {
			return err
		}
		if !told {
			told = true
			select {
			case lost <- err:
			case <-ctx.Done():
			}
		}
		select {
		case <-time.After(cmp.Or(w.pause, lostPause)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// newDisplay shows on stderr.
func (a *app) newDisplay(hint string) *display {
	return &display{w: a.stderr, hint: hint, width: a.width()}
}

// width gives the columns of the terminal on stderr; 0 if it is none.
func (a *app) width() func() int {
	f, ok := a.stderr.(*os.File)
	dumb := !ok || a.getenv("TERM") == "dumb"
	return func() int {
		if dumb {
			return 0
		}
		return columns(f)
	}
}

// outcome is the error that a job's state means to a script.
func outcome(j gateway.Job) error {
	switch j.State {
	case gateway.JobDone:
		return nil
	case gateway.JobAborted, gateway.JobFailed, gateway.JobInDoubt:
		return &jobError{j}
	}
	return fmt.Errorf("%s is %s", j.ID, j.State)
}
