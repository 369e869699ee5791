package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxTasks is how many tasks that have ended are remembered.
const maxTasks = 32

// maxRunning is how many tasks may wait or run at once; each costs little, but a
// script must not be able to queue without end.
const maxRunning = 16

// storeTasks are the tasks of a gateway.
type storeTasks struct {
	mu   sync.Mutex // guards what follows
	last int        // number of the newest
	all  []*storeTask

	noting sync.Mutex // held while the seeds are written down; before mu
}

// taskRun is what a task does.
type taskRun func(context.Context, *storeTask) error

// storeTask is one task. Its view is replaced, never changed in place but under mu.
type storeTask struct {
	stop context.CancelCauseFunc
	seed *SeedRequest // that goes on after a restart; nil for a task that does not

	again bool         // it does since then
	tries atomic.Int32 // starts of the gateway since it last came further

	mu   sync.Mutex // guards what follows
	view StoreTask
}

// update changes what is shown. Names of files and what peers say are quoted where they
// would move the cursor of whoever reads them on a terminal.
func (t *storeTask) update(f func(*StoreTask)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.view)
	t.view.Phase, t.view.Error = printable(t.view.Phase), printable(t.view.Error)
	for i := range t.view.Peers {
		t.view.Peers[i].Note = printable(t.view.Peers[i].Note)
	}
}

// printable is s with what cannot be printed quoted as in Go: "\x1b".
func printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unprintable(r):
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// inOneLine is an error, which may be several, each in a line of its own.
func inOneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// peer changes what is shown of one peer.
func (t *storeTask) peer(site string, f func(*TaskPeer)) {
	t.update(func(v *StoreTask) {
		i := slices.IndexFunc(v.Peers, func(p TaskPeer) bool { return p.Site == site })
		if i < 0 {
			i = len(v.Peers)
			v.Peers = append(v.Peers, TaskPeer{Site: site, State: "waiting"})
		}
		f(&v.Peers[i])
	})
}

func (t *storeTask) snapshot() StoreTask {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.view
	v.Sources, v.Peers = slices.Clone(v.Sources), slices.Clone(v.Peers)
	return v
}

// startTask makes a task and runs it until it returns or is aborted. What it seeds by hand
// goes on after a restart.
func (g *Gateway) startTask(v StoreTask, seed *SeedRequest, run taskRun) (*storeTask, error) {
	ctx, stop := context.WithCancelCause(g.ctx)
	v.Phase = "beginning"
	t := &storeTask{stop: stop, seed: seed, again: v.ID != "", view: v}
	if err := g.images.tasks.add(t); err != nil {
		stop(err)
		return nil, err
	}
	g.wg.Go(func() {
		defer stop(nil)
		err := run(ctx, t)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if t.seed != nil && g.ctx.Err() != nil && err != nil && !errors.Is(err, errOperator) {
			g.log.Info("content store; the seed goes on at the next start", "task", t.id(), "bytes", t.snapshot().Done)
			g.cameFurther(t) // it is not what has ended the gateway
			return
		}
		t.end(err, g.ctx.Err() != nil)
		if t.seed != nil {
			g.noteSeeds()
		}
		v := t.snapshot()
		g.log.Info("content store", "task", v.Kind, "state", v.State, "bytes", v.Done, "took", time.Since(v.Started).Round(time.Millisecond), "err", err)
	})
	return t, nil
}

// id never changes.
func (t *storeTask) id() string { return t.view.ID }

// end notes how the task has ended.
func (t *storeTask) end(err error, stopping bool) {
	now := time.Now().UTC()
	t.update(func(v *StoreTask) {
		v.Ended, v.Phase = &now, ""
		switch {
		case err == nil:
			v.State = TaskDone
		case errors.Is(err, errOperator), stopping:
			v.State, v.Error = TaskAborted, inOneLine(err)
		default:
			v.State, v.Error = TaskFailed, inOneLine(err)
		}
	})
}

func (ts *storeTasks) add(t *storeTask) error {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	running := 0
	for _, o := range ts.all {
		if o.snapshot().State == TaskRunning {
			running++
		}
	}
	if running >= maxRunning {
		return fmt.Errorf("%d tasks run already: %w", running, ErrBusy)
	}
	if t.view.State = TaskRunning; t.view.ID == "" { // else it goes on
		ts.last++
		t.view.ID, t.view.Started = "store-"+strconv.Itoa(ts.last), time.Now().UTC()
	}
	ts.all = append(ts.all, t)
	for i := 0; len(ts.all) > maxTasks && i < len(ts.all); {
		if ts.all[i].snapshot().State == TaskRunning {
			i++
			continue
		}
		ts.all = slices.Delete(ts.all, i, i+1)
	}
	return nil
}

func (ts *storeTasks) get(id string) (*storeTask, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.all {
		if t.id() == id {
			return t, nil
		}
	}
	return nil, fmt.Errorf("task %q of the store: %w", id, ErrNotFound)
}

// StoreTasks lists the tasks, the newest last.
func (g *Gateway) StoreTasks(context.Context) ([]StoreTask, error) {
	ts := &g.images.tasks
	ts.mu.Lock()
	defer ts.mu.Unlock()
	all := []StoreTask{}
	for _, t := range ts.all {
		all = append(all, t.snapshot())
	}
	return all, nil
}

// StoreTask returns one.
func (g *Gateway) StoreTask(_ context.Context, id string) (StoreTask, error) {
	t, err := g.images.tasks.get(id)
	if err != nil {
		return StoreTask{}, err
	}
	return t.snapshot(), nil
}

// AbortStoreTask ends a task. What it has done stays done.
func (g *Gateway) AbortStoreTask(_ context.Context, id string) (StoreTask, error) {
	t, err := g.images.tasks.get(id)
	if err != nil {
		return StoreTask{}, err
	}
	if v := t.snapshot(); v.State != TaskRunning {
		return v, fmt.Errorf("task %s has ended: %w", id, ErrBusy)
	}
	t.stop(errOperator)
	return t.snapshot(), nil
}
