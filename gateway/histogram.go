package gateway

import (
	"slices"
	"time"
)

// A Histogram counts durations by how long they are. It only grows, so that two
// looks at it tell what came between them.
type Histogram struct {
	Bounds []time.Duration // of its parts, each included; they ascend and never change
	Counts []int64         // of each part alone; the last one is of what is longer than all bounds
	Sum    time.Duration
}

func newHistogram(bounds ...time.Duration) Histogram {
	return Histogram{Bounds: bounds, Counts: make([]int64, len(bounds)+1)}
}

func (h *Histogram) add(d time.Duration) {
	i, _ := slices.BinarySearch(h.Bounds, d)
	h.Counts[i]++
	h.Sum += d
}

func (h Histogram) clone() Histogram {
	h.Counts = slices.Clone(h.Counts)
	return h
}

// MoveTimes tells how long those moves took that have left this site and
// succeeded since its gateway started.
type MoveTimes struct {
	Duration Histogram // from the request to the release of the source
	Downtime Histogram // of VMs that ran, from STOP at the source to RESUME at the destination
}

// newMoveTimes has bounds from a warm move of an idle VM on a fast line to a cold
// one of a large VM on a slow line; those of the downtime are around what operators
// ask for (300 ms by default), up to where a TCP connection of the guest's is lost.
func newMoveTimes() MoveTimes {
	const s, m, h = time.Second, time.Minute, time.Hour
	const ms = time.Millisecond
	return MoveTimes{
		Duration: newHistogram(s, 2*s, 5*s, 10*s, 20*s, 30*s, m, 2*m, 5*m, 10*m, 30*m, h, 3*h, 12*h),
		Downtime: newHistogram(20*ms, 50*ms, 100*ms, 200*ms, 300*ms, 500*ms, s, 2*s, 5*s, 10*s, 30*s),
	}
}

// add counts a move that has ended.
func (t *MoveTimes) add(j Job) {
	if j.State != JobDone || j.Report == nil {
		return
	}
	t.Duration.add(time.Duration(j.Report.Total) * time.Millisecond)
	if r := j.Report; r.Downtime >= 0 && !r.StoppedAt.IsZero() {
		t.Downtime.add(time.Duration(r.Downtime) * time.Millisecond)
	}
}
