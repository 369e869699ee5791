package congestion

import (
	"fmt"
	"testing"
	"time"
)

const mbit = 1_000_000 / 8

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// a cell is one line and what it must give.
type cell struct {
	rate       int64 // Mbit/s
	rtt        int   // ms
	queue      float64
	loss       float64
	burst      float64
	configured bool
}

func (c cell) String() string {
	return fmt.Sprintf("%dMbit,%dms,queue=%v,loss=%v,burst=%v,configured=%v", c.rate, c.rtt, c.queue, c.loss, c.burst, c.configured)
}

func (c cell) line() line {
	l := line{rate: c.rate * mbit, delay: ms(c.rtt) / 2, loss: c.loss, burst: c.burst}
	l.queue = int64(c.queue * float64(l.rate) * ms(c.rtt).Seconds())
	return l
}

func TestCells(t *testing.T) {
	for _, c := range []cell{
		{100, 50, 0.5, 0, 0, false},
		{100, 50, 0.5, 0.001, 0, false},
		{100, 50, 0.5, 0.01, 0, false},
		{100, 50, 0.5, 0.01, 10, false},
		{100, 50, 0.5, 0.03, 0, false},
		{100, 50, 2, 0, 0, false},
		{100, 50, 0.1, 0, 0, false},
		{500, 100, 0.5, 0, 0, false},
		{500, 100, 0.5, 0.001, 0, false},
		{500, 100, 0.5, 0.01, 0, false},
		{1000, 1, 1, 0, 0, false},
		{10, 200, 1, 0.001, 0, false},
		{100, 50, 0.5, 0, 0, true},
		{100, 50, 0.5, 0.01, 0, true},
		{500, 100, 0.5, 0.01, 10, true},
	} {
		t.Run(c.String(), func(t *testing.T) {
			s := newSim(c.line(), 1)
			rate := int64(0)
			if c.configured {
				rate = c.rate * mbit
			}
			p := New(rate)
			cs := group(s, p, 4)
			var t90 time.Duration
			var last, half int64
			for i := range 100 {
				s.run(100 * time.Millisecond)
				now := total(cs)
				if t90 == 0 && float64(now-last) >= 0.9*float64(c.rate*mbit)/10 {
					t90 = s.now
				}
				last = now
				if i == 49 {
					half = now
				}
				if testing.Verbose() && i%10 == 0 {
					st := p.State()
					t.Logf("%v %s bw %d Mbit pace %d rtt %v inflight %d dropped %d queue %v", s.now, st.Phase, st.Bandwidth/mbit, st.Pace/mbit, st.RTT, st.InFlight, s.dropped, max(s.free-s.now, 0))
				}
			}
			sent := float64(s.queued)
			t.Logf("cold %.1f %% second half %.1f %% t90 %v wasted %.2f %% mean queue %v most %v collapses %d",
				100*float64(last)/10/float64(c.rate*mbit), 100*float64(last-half)/5/float64(c.rate*mbit), t90,
				100*float64(s.dropped)/sent, s.queueSum/time.Duration(s.queued), s.mostQueue, p.State().Collapses)
		})
	}
}
