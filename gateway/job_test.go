package gateway

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestWatchSeesTheLastChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJob(Job{ID: "m-1", State: JobPreparing}, "")
		events := j.watch(t.Context())
		ev := <-events
		if ev.Job.State != JobPreparing {
			t.Errorf("first event is %s", ev.Job.State)
		}
		if p := ev.Job.Progress; p.ETALow >= 0 || p.ETAHigh >= 0 || p.Downtime >= 0 {
			t.Errorf("before anything is known it foretells %+v", p)
		}
		for range 1000 { // nobody reads meanwhile
			j.update(func(v *Job) { v.Progress.Rounds++ })
		}
		j.end(JobFailed, errors.New("the line is cut"))
		var last Job
		n := 0
		for ev := range events {
			last = ev.Job
			n++
		}
		if n > 3 || last.State != JobFailed || last.Error != "the line is cut" || last.Progress.Rounds != 1000 || last.Ended == nil {
			t.Errorf("%d events, the last %+v", n, last)
		}
	})
}

func TestWatchEndsWithItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJob(Job{ID: "m-1", State: JobMoving}, "")
		ctx, cancel := context.WithCancel(t.Context())
		events := j.watch(ctx)
		<-events
		cancel()
		synctest.Wait()
		if _, ok := <-events; ok {
			t.Error("an event after the reader has gone")
		}
		if len(j.watchers) != 0 {
			t.Errorf("%d watchers are kept", len(j.watchers))
		}
	})
}

func TestOneJobForAVM(t *testing.T) {
	js := newJobs()
	a := newJob(Job{ID: "m-1", VM: "db1", Role: "source", State: JobMoving}, "")
	if err := js.add(a); err != nil {
		t.Fatal(err)
	}
	if err := js.add(newJob(Job{ID: "m-2", VM: "db1", Role: "source"}, "")); !errors.Is(err, ErrBusy) {
		t.Errorf("a second move of the same VM: %v", err)
	}
	a.end(JobAborted, nil)
	if err := js.add(newJob(Job{ID: "m-3", VM: "db1", Role: "source"}, "")); err != nil {
		t.Errorf("a move after the first has ended: %v", err)
	}
}
