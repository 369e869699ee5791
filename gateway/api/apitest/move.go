package apitest

import (
	"context"
	"fmt"
	"slices"

	"github.com/longhaul-project/longhaul/gateway"
)

type job struct {
	now     gateway.Job
	next    []func(*gateway.Job) // steps that are still to come
	changed chan struct{}        // closed and replaced at each change
}

// change applies do under the Fake's lock and wakes the watchers.
func (j *job) change(do func(*gateway.Job)) {
	do(&j.now)
	if j.now.State.Ended() {
		end := Epoch()
		j.now.Ended = &end
		j.next = nil
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

func (j *job) step() {
	if len(j.next) > 0 {
		do := j.next[0]
		j.next = j.next[1:]
		j.change(do)
	}
}

// Migrate makes a job whose steps depend on the VM's name; see New.
func (f *Fake) Migrate(ctx context.Context, r gateway.MigrateRequest) (gateway.Job, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return gateway.Job{}, f.fail
	}
	i := slices.IndexFunc(f.vms, func(v gateway.VMInfo) bool { return v.Name == r.VM })
	if i < 0 {
		return gateway.Job{}, fmt.Errorf("moving %q: %w", r.VM, gateway.ErrNoVM)
	}
	if r.To != "b" {
		return gateway.Job{}, fmt.Errorf("moving %q to %q: %w", r.VM, r.To, gateway.ErrNoSite)
	}
	for _, j := range f.jobs {
		if j.now.VM == r.VM && !j.now.State.Ended() {
			return gateway.Job{}, fmt.Errorf("moving %q: %w: it has job %s", r.VM, gateway.ErrBusy, j.now.ID)
		}
	}
	j := &job{
		now: gateway.Job{
			ID: fmt.Sprintf("job-%d", len(f.jobs)+1), VM: r.VM, From: "a", To: r.To, Role: "source",
			State: gateway.JobPreparing, Phase: "starting the destination", Started: Epoch(), Request: r,
			Progress: gateway.JobProgress{TotalBytes: f.vms[i].Memory, RateCap: r.Rate, ETALow: -1, ETAHigh: -1},
		},
		next:    steps(r.VM),
		changed: make(chan struct{}),
	}
	f.jobs = append(f.jobs, j)
	f.happen("job")
	return j.now, nil
}

func steps(vm string) []func(*gateway.Job) {
	moving := func(j *gateway.Job) {
		p := &j.Progress
		j.State, j.Phase = gateway.JobMoving, "copying memory"
		p.Rounds++
		p.Remaining = p.TotalBytes / int64(4*p.Rounds)
		p.DirtyRate, p.Rate = 42_000_000, 180_000_000
		p.LogicalBytes += 512 << 20
		p.WireBytes += 64 << 20
		p.Backlog, p.BacklogMax = 1<<20, 4<<20
		p.Reduction = float64(p.LogicalBytes) / float64(p.WireBytes)
		p.ETALow, p.ETAHigh, p.Downtime = 4, 9, 180
		p.Codec, p.LimitedBy = "zstd-3, 4 bases", "line"
	}
	switching := func(j *gateway.Job) { j.State, j.Phase = gateway.JobSwitching, "sending the last bytes" }
	commit := func(j *gateway.Job) { j.State, j.Phase = gateway.JobCommit, "starting the VM at b" }
	switch vm {
	case "stuck":
		return []func(*gateway.Job){moving}
	case "dies":
		return []func(*gateway.Job){moving, func(j *gateway.Job) {
			j.State, j.Phase = gateway.JobFailed, "ended"
			j.Error = "destination: loading the stream: QEMU ended: exit status 1"
			j.Progress.Codecs = codecs(j.Progress)
		}}
	case "doubt":
		return []func(*gateway.Job){moving, switching, commit, func(j *gateway.Job) {
			j.State, j.Phase = gateway.JobInDoubt, "waiting for an operator"
			j.Error = "site b has not answered for 10m0s"
			j.Safe = "destination: it had acknowledged the commit"
		}}
	}
	return []func(*gateway.Job){moving, moving, switching, commit, done}
}

func done(j *gateway.Job) {
	p := j.Progress
	j.State, j.Phase = gateway.JobDone, "ended"
	j.Report = &gateway.JobReport{
		Total: 12_345, Downtime: 187, Rounds: p.Rounds, LogicalBytes: p.LogicalBytes, WireBytes: p.WireBytes,
		Reduction: p.Reduction, Pages: 262_144, ZeroPages: 100_000, Refs: 50_000, Deltas: 12_000,
		Digest: "5d41402abc4b2a76b9719d911017c592",
		Codecs: codecs(p),
	}
}

func codecs(p gateway.JobProgress) []gateway.CodecReport {
	return []gateway.CodecReport{
		{Codec: "zstd-1, 4 bases", Batches: 64, LogicalBytes: p.LogicalBytes / 8, WireBytes: p.WireBytes / 8, CPU: 900},
		{Codec: "zstd-3, 4 bases", Batches: 448, LogicalBytes: p.LogicalBytes / 8 * 7, WireBytes: p.WireBytes / 8 * 7, CPU: 8100},
	}
}

// find is called with the lock held.
func (f *Fake) find(id string) (*job, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	for _, j := range f.jobs {
		if j.now.ID == id {
			return j, nil
		}
	}
	return nil, fmt.Errorf("job %q: %w", id, gateway.ErrNoJob)
}

// Jobs lists the jobs, the newest last.
func (f *Fake) Jobs(ctx context.Context) ([]gateway.Job, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []gateway.Job
	for _, j := range f.jobs {
		all = append(all, j.now)
	}
	return all, f.fail
}

// Job finds a job.
func (f *Fake) Job(ctx context.Context, id string) (gateway.Job, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	j, err := f.find(id)
	if err != nil {
		return gateway.Job{}, err
	}
	return j.now, nil
}

// Step takes a job one step further.
func (f *Fake) Step(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	j, err := f.find(id)
	if err == nil {
		j.step()
	}
	return err
}

// Await waits until there is such a job and it is in a state.
func (f *Fake) Await(ctx context.Context, id string, state gateway.JobState) error {
	for {
		f.mu.Lock()
		changed := f.news
		if j, err := f.find(id); err == nil {
			changed = j.changed
			if j.now.State == state {
				f.mu.Unlock()
				return nil
			}
		}
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for job %s to be %s: %w", id, state, ctx.Err())
		}
	}
}

// WatchJob takes the job a step further each time that the channel's reader
// has taken the state before it.
func (f *Fake) WatchJob(ctx context.Context, id string) (<-chan gateway.JobEvent, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	j, err := f.find(id)
	if err != nil {
		return nil, err
	}
	f.happen("watch")
	out := make(chan gateway.JobEvent) // no room: taking is what makes time pass
	go f.feed(ctx, j, out)
	return out, nil
}

func (f *Fake) feed(ctx context.Context, j *job, out chan<- gateway.JobEvent) {
	defer close(out)
	for {
		f.mu.Lock()
		now, changed := j.now, j.changed
		f.mu.Unlock()
		select {
		case out <- gateway.JobEvent{At: Epoch(), Job: now}:
		case <-ctx.Done():
			return
		}
		if now.State.Ended() {
			return
		}
		f.mu.Lock()
		// Nobody else has taken it further, and it is not for the test to do so.
		if j.changed == changed && !(j.now.VM == "late" && j.now.State == gateway.JobSwitching) {
			j.step()
		}
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// AbortJob ends a job that is not past its switchover.
func (f *Fake) AbortJob(ctx context.Context, id string) (gateway.Job, error) {
	return f.alter(id, func(j *gateway.Job) error {
		if j.State != gateway.JobPreparing && j.State != gateway.JobMoving {
			f.happen("refusal")
			return fmt.Errorf("aborting job %s: %w: it is %s", id, gateway.ErrBusy, j.State)
		}
		j.State, j.Phase = gateway.JobAborted, "ended"
		return nil
	})
}

// RecoverJob ends a job in doubt.
func (f *Fake) RecoverJob(ctx context.Context, id, where string) (gateway.Job, error) {
	return f.alter(id, func(j *gateway.Job) error {
		if j.State != gateway.JobInDoubt {
			return fmt.Errorf("recovering job %s: %w: it is %s", id, gateway.ErrBusy, j.State)
		}
		j.Safe = ""
		if where == "source" {
			j.State, j.Phase = gateway.JobFailed, "ended"
			return nil
		}
		j.Error = ""
		done(j)
		return nil
	})
}

// SetJobRate changes the cap of a job that has not ended.
func (f *Fake) SetJobRate(ctx context.Context, id string, bps int64) (gateway.Job, error) {
	return f.alter(id, func(j *gateway.Job) error {
		if j.State.Ended() {
			return fmt.Errorf("setting the rate of job %s: %w: it has ended", id, gateway.ErrBusy)
		}
		j.Progress.RateCap = bps
		return nil
	})
}

func (f *Fake) alter(id string, do func(*gateway.Job) error) (gateway.Job, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	j, err := f.find(id)
	if err != nil {
		return gateway.Job{}, err
	}
	next := j.now
	if err := do(&next); err != nil {
		return gateway.Job{}, err
	}
	j.change(func(now *gateway.Job) { *now = next })
	return j.now, nil
}
