package l2ext

import (
	"testing"
	"time"
)

// TestLossMeter lets a line behave in one way after another.
func TestLossMeter(t *testing.T) {
	type step struct {
		name    string
		seconds int
		rate    int64 // bytes a second
		loss    float64
		rtt     time.Duration
		unknown string
		want    bool
	}
	const mbit = 125_000
	far := 100 * time.Millisecond
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"a lossy line", []step{
			{"busy, clean", 60, 100 * mbit, 0.00001, far, "", false},
			{"busy, lossy", 5, 100 * mbit, 0.001, far, "", true},
			{"idle", 600, 0, 0, far, "", true},
			{"clean for a moment", 1, 100 * mbit, 0, far, "", true},
			{"between the bounds", 600, 100 * mbit, 0.0001, far, "", true},
			{"clean again", 60, 100 * mbit, 0.00001, far, "", false},
			{"between the bounds", 600, 100 * mbit, 0.0001, far, "", false},
		}},
		{"a slow flow", []step{{"lossy", 20, 4 * mbit, 0.001, far, "", true}}},
		{"almost nothing is sent", []step{{"lossy", 600, 100, 0.001, far, "", false}}},
		{"a short line", []step{{"lossy", 60, 100 * mbit, 0.01, time.Millisecond, "", false}}},
		{"one burst", []step{
			{"clean", 60, 100 * mbit, 0, far, "", false},
			{"lossy", 1, 100 * mbit, 0.1, far, "", true},
			{"clean", 120, 100 * mbit, 0, far, "", false},
		}},
		{"another carrier", []step{
			{"lossy", 5, 100 * mbit, 0.001, far, "", true},
			{"TCP", 5, 0, 0, far, "TCP carries the link", false},
			{"QUIC again", 1, 100 * mbit, 0, far, "", false},
		}},
	} {
		var m lossMeter
		var l Line
		now := time.Unix(0, 0)
		var lost float64
		for _, s := range tt.steps {
			if s.unknown != "" {
				l, lost = Line{}, 0
			}
			for range s.seconds {
				now = now.Add(time.Second)
				lost += float64(s.rate) * s.loss
				l.Delivered += s.rate
				l.Lost, l.RTT, l.Unknown = int64(lost), s.rtt, s.unknown
				m.look(now, l)
			}
			if m.lossy != s.want {
				t.Errorf("%s, %s: lossy %t, share %.6f", tt.name, s.name, m.lossy, m.share())
			}
			if m.why() == "" {
				t.Errorf("%s, %s: nobody knows why", tt.name, s.name)
			}
		}
	}
}

// TestLossMeterCounts: counts that start anew, and losses that were none.
func TestLossMeterCounts(t *testing.T) {
	var m lossMeter
	now := time.Unix(0, 0)
	for i, l := range []Line{
		{Delivered: 1 << 40, Lost: 1 << 30, RTT: time.Second}, // before our time
		{Delivered: 1<<40 + 1<<20, Lost: 1<<30 + 2000, RTT: time.Second},
		{Delivered: 1<<40 + 2<<20, Lost: 1 << 30, RTT: time.Second},
		{Delivered: 1 << 20, Lost: 1 << 19, RTT: time.Second}, // another path
		{Delivered: 2 << 20, Lost: 1 << 19, RTT: time.Second},
	} {
		m.look(now.Add(time.Duration(i)*time.Second), l)
		if m.lossy {
			t.Errorf("step %d: lossy, share %f", i, m.share())
		}
	}
}
