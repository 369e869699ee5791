package gateway

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"
)

// job is one move as operators watch it. The goroutine that runs the move
// changes it; anybody may read it.
type job struct {
	// Constant after newJob.
	id    string
	token string

	mu       sync.Mutex // guards what follows; held for assignments only
	view     Job
	watchers map[chan struct{}]struct{}
	abort    context.CancelCauseFunc // nil when the job can no longer be aborted
	over     chan struct{}           // closed when all is done of what can be aborted; set with abort
	aborted  bool
	settled  chan struct{} // closed when a commit has come to where the VM runs; set by commit
	setRate  func(bitsPerSecond int64)
	recover  func(d Decision) error // nil when the job needs no decision here
	ended    func(Job)              // is told once how the job ended; nil for nobody
}

// jobID names the job of a move. Both sites call it the same.
func jobID(token string) string { return "m-" + token[:8] }

func newJob(view Job, token string) *job {
	if reflect.DeepEqual(view.Progress, JobProgress{}) { // nothing is known yet, and nothing foretold
		view.Progress.ETALow, view.Progress.ETAHigh, view.Progress.Downtime = -1, -1, -1
	}
	return &job{id: view.ID, token: token, view: view, watchers: map[chan struct{}]struct{}{}}
}

// snapshot returns the job as it stands.
func (j *job) snapshot() Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.view
}

// update changes the job and wakes its watchers.
func (j *job) update(change func(*Job)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(&j.view)
	for w := range j.watchers {
		select {
		case w <- struct{}{}:
		default: // it has not looked since the last change: it will see this one too
		}
	}
}

// enter notes that the job has come to a state, and what is done there.
func (j *job) enter(s JobState, phase string) {
	j.update(func(v *Job) { v.State, v.Phase = s, phase })
}

// end notes how the job ended.
func (j *job) end(s JobState, err error) {
	now := time.Now().UTC()
	j.update(func(v *Job) {
		v.State, v.Phase, v.Ended, v.Safe = s, string(s), &now, ""
		v.Progress.Stalled = ""
		if err != nil {
			v.Error = err.Error()
		}
	})
	j.mu.Lock()
	tell, v := j.ended, j.view
	j.ended = nil
	j.mu.Unlock()
	if tell != nil {
		tell(v)
	}
}

// commit makes the job one that can no longer be aborted, and whose VM stands still
// until settle is called; it tells whether it has not been aborted.
func (j *job) commit() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.abort = nil
	if j.aborted {
		return false
	}
	j.settled = make(chan struct{})
	return true
}

// settle notes that a commit has come to where the VM runs, or cannot in this run of the
// gateway. It may be called again.
func (j *job) settle() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.settled != nil {
		close(j.settled)
		j.settled = nil
	}
}

// settling returns what is closed when the commit has come to where the VM runs; nil
// when none is under way.
func (j *job) settling() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.settled
}

// stop aborts the job; false when it is too late for that.
func (j *job) stop(why error) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.abort == nil {
		return false
	}
	j.aborted = true
	j.abort(why)
	return true
}

// watch sends the job now and after each change until it has ended or ctx is
// done; then it closes the channel. A slow reader gets fewer events, and
// always the last.
func (j *job) watch(ctx context.Context) <-chan JobEvent {
	out := make(chan JobEvent)     // unbuffered: the reader's pace
	wake := make(chan struct{}, 1) // one: changes coalesce
	j.mu.Lock()
	j.watchers[wake] = struct{}{}
	j.mu.Unlock()
	go func() {
		defer close(out)
		defer func() {
			j.mu.Lock()
			delete(j.watchers, wake)
			j.mu.Unlock()
		}()
		for {
			v := j.snapshot()
			select {
			case out <- JobEvent{At: time.Now().UTC(), Job: v}:
			case <-ctx.Done():
				return
			}
			if v.State.Ended() {
				return
			}
			select {
			case <-wake:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// Decision is what an operator says of a job in doubt.
type Decision string

// The decisions: at which of its two sites the VM shall run.
const (
	DecideSource      Decision = "source"
	DecideDestination Decision = "destination"
)

// jobs is the gateway's list of jobs. Make it with newJobs.
type jobs struct {
	cores cores // that they share

	mu     sync.Mutex // guards what follows
	byID   map[string]*job
	totals MoveTotals // of those that have ended
	times  MoveTimes
}

func newJobs() *jobs { return &jobs{byID: map[string]*job{}, times: newMoveTimes()} }

// add lists j, unless its VM has another job here. A VM that comes in may leave
// again only when it runs here: before, it is not this site's to move.
func (js *jobs) add(j *job) error {
	js.mu.Lock()
	defer js.mu.Unlock()
	v := j.snapshot()
	if js.byID[j.id] != nil {
		return fmt.Errorf("job %s: %w", j.id, ErrExists)
	}
	for _, other := range js.byID {
		o := other.snapshot()
		arrived := o.Role == string(RoleDestination) && o.State == JobCommit
		if o.VM == v.VM && !o.State.Ended() && !(arrived && v.Role == string(RoleSource)) {
			return fmt.Errorf("vm %s: job %s already moves it: %w", v.VM, o.ID, ErrBusy)
		}
	}
	js.byID[j.id] = j
	if v.Role == string(RoleSource) {
		j.ended = js.count
	}
	return nil
}

// count adds a job that has ended to the totals.
func (js *jobs) count(v Job) {
	js.mu.Lock()
	defer js.mu.Unlock()
	js.totals.add(v)
	js.times.add(v)
}

// ended returns the totals.
func (js *jobs) ended() MoveTotals {
	js.mu.Lock()
	defer js.mu.Unlock()
	return js.totals
}

// took returns how long those took that have ended well.
func (js *jobs) took() MoveTimes {
	js.mu.Lock()
	defer js.mu.Unlock()
	return MoveTimes{Duration: js.times.Duration.clone(), Downtime: js.times.Downtime.clone()}
}

// trim forgets the oldest ended jobs beyond keepEnded.
func (js *jobs) trim() {
	ended := slices.DeleteFunc(js.list(), func(v Job) bool { return !v.State.Ended() })
	js.mu.Lock()
	defer js.mu.Unlock()
	for _, v := range ended[:max(len(ended)-keepEnded, 0)] {
		delete(js.byID, v.ID)
	}
}

// restore lists a job of an earlier run of the gateway. One that is still open is
// counted when it ends.
func (js *jobs) restore(j *job) {
	js.mu.Lock()
	defer js.mu.Unlock()
	js.byID[j.id] = j
	if v := j.snapshot(); v.Role == string(RoleSource) && !v.State.Ended() {
		j.ended = js.count
	}
}

func (js *jobs) get(id string) (*job, error) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if j := js.byID[id]; j != nil {
		return j, nil
	}
	return nil, fmt.Errorf("job %q: %w", id, ErrNoJob)
}

// list returns the jobs, the newest last.
func (js *jobs) list() []Job {
	js.mu.Lock()
	all := make([]Job, 0, len(js.byID))
	for _, j := range js.byID {
		all = append(all, j.snapshot())
	}
	js.mu.Unlock()
	slices.SortFunc(all, func(a, b Job) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// running counts the jobs that have not ended.
func (js *jobs) running() int {
	n := 0
	for _, v := range js.list() {
		if !v.State.Ended() {
			n++
		}
	}
	return n
}

// oldestEnded returns the ended entries, the oldest first.
func oldestEnded(all []Entry) []Entry {
	ended := slices.DeleteFunc(slices.Clone(all), Entry.Open)
	slices.SortFunc(ended, func(a, b Entry) int { return a.Changed.Compare(b.Changed) })
	return ended
}
