package gateway

import (
	"math"
	"testing"
	"time"
)

// TestCodecOthersWork: where others on a crowded machine work as much for the stream as
// we do, or more, the move is not faster for less effort, and on a thin line bytes
// are not given away for that: not in a short move, and in a long one not for long.
func TestCodecOthersWork(t *testing.T) {
	const line, others = 200 * mbit, 0.4
	for _, each := range []float64{10e-9, 20e-9, 40e-9} {
		w, c := newWorld(), newChooser()
		w.line, w.cap, w.others, w.each, w.content = line, line, others, each, scaled(1.5)
		if got := effortOf(w.run(t, c, 8*time.Second)); got.codec < 2 || got.search != mostSearch {
			t.Errorf("%.0f ns of others for each byte: %v after 8 s", each*1e9, got.setting())
		}
		w.run(t, c, 3*time.Minute)
		weak := 0
		for range 600 {
			if w.run(t, c, 100*time.Millisecond); c.now.codec < 2 {
				weak++
			}
		}
		if weak > 60 {
			t.Errorf("%.0f ns of others for each byte: %d ticks of 600 gave bytes away", each*1e9, weak)
		}
	}
	w, c := newWorld(), newChooser()
	w.line, w.cap, w.others, w.content = line, line, 1.7, scaled(1.5)
	got := effortOf(w.run(t, c, 2*time.Minute))
	if best, at := w.best(); w.stream < best/gainWaste {
		t.Errorf("others do nothing for the stream: %.0f MB/s with %v, but %.0f with %v", w.stream/1e6, got.setting(), best/1e6, at.setting())
	}
}

// TestOthersTold: what others do for a byte of stream follows from what we had before
// and have after a change.
func TestOthersTold(t *testing.T) {
	for _, tt := range []struct{ before, after, each float64 }{
		{10, 5, 0}, {5, 10, 0}, {10, 5, 10}, {5, 10, 10}, {12, 4, 30}, {10, 9, 2},
	} {
		cores := func(cost float64) float64 { return cost / (cost + tt.each) }
		if got := eachOf(tt.before, tt.after, cores(tt.after)/cores(tt.before)); math.Abs(got-tt.each) > 1e-6 {
			t.Errorf("%v: %v", tt, got)
		}
	}
	if got, most := eachOf(10, 5, 0.5), 90.0; math.Abs(got-most) > 1e-6 {
		t.Errorf("the same rate whatever the effort: %v, want %v", got, most)
	}
	if got, most := eachOf(10, 5, 0.3), 90.0; math.Abs(got-most) > 1e-6 {
		t.Errorf("slower with less effort: %v, want %v", got, most)
	}
	if got := eachOf(10, 5, 1.5); got != 0 {
		t.Errorf("more cores for less effort: %v, want 0", got)
	}
}

// TestOthersForgotten: what was told is not for ever, and what cannot be compared is
// not: shares that are of different times, or of different numbers of moves.
func TestOthersForgotten(t *testing.T) {
	strong, weak := effort{4, mostSearch}, effort{1, mostSearch}
	var c content
	var o others
	share := func(e effort, d time.Duration, cores float64, sharers int) {
		c = newContent()
		for range d / (100 * time.Millisecond) {
			n := seen{took: 100 * time.Millisecond, sharers: sharers, load: load{busy: 2, all: 2}}
			held := cores > 0
			o.learn(n, e, held, &recent{took: 1, serial: cores}, &c)
		}
	}
	start := func() {
		o = others{}
		share(strong, 5*time.Second, 1, 1)
	}
	start()
	share(weak, 5*time.Second, 0.8, 1)
	if !o.known || o.each <= 0 {
		t.Fatalf("nothing is told: %+v", o)
	}
	crowded := seen{load: load{busy: 2, all: 2}}
	first := o.of(crowded, 1, new(recent))
	share(weak, 20*time.Minute, 0.8, 1)
	if last := o.of(crowded, 1, new(recent)); last > first/100 {
		t.Errorf("after 20 minutes %v, at first %v", last, first)
	}
	busy := seen{load: load{busy: 2, own: 1.5, all: 2}}
	if got := o.of(busy, 1, &recent{took: 1, raw: 1e9}); got > 0.5e-9 {
		t.Errorf("others take %v of half a core", got)
	}

	start()
	share(weak, 10*time.Second, 0, 1)
	share(weak, 5*time.Second, 0.8, 1)
	if o.known {
		t.Errorf("told by shares that are 10 s apart: %+v", o)
	}
	start()
	share(weak, 5*time.Second, 0.5, 2)
	if o.known {
		t.Errorf("told by half of what one move had: %+v", o)
	}
}
