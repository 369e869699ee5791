package gateway

import (
	"slices"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	h := newHistogram(time.Second, time.Minute)
	for _, d := range []time.Duration{0, time.Second, time.Second + 1, time.Minute, time.Hour} {
		h.add(d)
	}
	before := h.clone()
	h.add(0)
	if want := []int64{2, 2, 1}; !slices.Equal(before.Counts, want) || before.Sum != time.Hour+time.Minute+2*time.Second+1 {
		t.Errorf("got %+v, want counts %v", before, want)
	}
	if h.Counts[0] != 3 {
		t.Errorf("got %+v", h)
	}
}

// TestMoveTimes: only a move that has succeeded has a duration, and only one whose
// VM was seen to stop has a downtime.
func TestMoveTimes(t *testing.T) {
	stopped := time.Unix(1, 0)
	for _, c := range []struct {
		name                 string
		job                  Job
		durations, downtimes int64
	}{
		{"done", Job{State: JobDone, Report: &JobReport{Total: 6000, Downtime: 181, StoppedAt: stopped}}, 1, 1},
		{"done, paused before", Job{State: JobDone, Report: &JobReport{Total: 6000}}, 1, 0},
		{"done over a restart", Job{State: JobDone, Report: &JobReport{Total: 6000, Downtime: -1}}, 1, 0},
		{"failed", Job{State: JobFailed}, 0, 0},
		{"failed after its report", Job{State: JobFailed, Report: &JobReport{Total: 6000, Downtime: 181, StoppedAt: stopped}}, 0, 0},
	} {
		js := newJobs()
		js.count(c.job)
		got := js.took()
		if d, s := total(got.Duration), total(got.Downtime); d != c.durations || s != c.downtimes {
			t.Errorf("%s: %d durations, %d downtimes", c.name, d, s)
		}
	}
}

// TestRestoredJobsAreCounted: a move that an earlier run has left open ends in this
// one; one that it has ended has been counted there.
func TestRestoredJobsAreCounted(t *testing.T) {
	js := newJobs()
	open := newJob(Job{ID: "m-1", Role: "source", State: JobCommit}, "")
	js.restore(open)
	js.restore(newJob(Job{ID: "m-2", Role: "source", State: JobDone}, ""))
	js.restore(newJob(Job{ID: "m-3", Role: "destination", State: JobMoving}, ""))
	open.end(JobDone, nil)
	if got := js.ended(); got.Done != 1 || got.Failed+got.Aborted != 0 {
		t.Errorf("got %+v", got)
	}
}

func total(h Histogram) (n int64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// TestClockSetBack: a move that began later than now, by a clock that was set back over
// a restart, has not taken less than no time.
func TestClockSetBack(t *testing.T) {
	for _, tt := range []struct{ ago, least, most time.Duration }{
		{-time.Hour, 0, 0},
		{time.Hour, time.Hour, 2 * time.Hour},
	} {
		m := &sourceMove{begun: time.Now().Add(-tt.ago).Round(0)} // as of a journal, without a monotonic clock
		if got := m.took(); got < tt.least || got > tt.most {
			t.Errorf("began %v ago: took %v", tt.ago, got)
		}
	}
}
