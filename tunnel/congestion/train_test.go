package congestion

import (
	"testing"
	"time"
)

// TestTrains: the line's rate is told by trains that it has slowed down, from the
// third on, by the median of the last eight; by none for a round after one came
// faster.
func TestTrains(t *testing.T) {
	const size = 1500
	// send is a train of n packets at a time, each so long after the one before, which
	// are acknowledged 100 ms later, each so long after the one before.
	send := func(x *trains, at time.Duration, n int, sent, came time.Duration) {
		for i := range time.Duration(n) {
			x.acked(at+ms(100)+i*came, at+i*sent, ms(3), size)
		}
	}
	us := time.Microsecond
	for _, tt := range []struct {
		name   string
		trains [][3]int // packets, and microseconds between them as sent and as acknowledged
		want   int64    // bytes per second
		after  int64    // two rounds later
	}{
		{"three, the median counts", [][3]int{{50, 1, 150}, {50, 1, 100}, {50, 1, 125}}, 12_000_000, 12_000_000},
		{"two are too few", [][3]int{{50, 1, 120}, {50, 1, 120}}, 0, 0},
		{"short ones tell nothing", [][3]int{{50, 1, 120}, {50, 1, 120}, {7, 1, 1000}, {10, 1, 100}}, 0, 0},
		{"one no faster than the line is", [][3]int{{50, 1, 100}, {50, 1, 100}, {50, 1, 100}, {50, 90, 100}}, 15_000_000, 15_000_000},
		{"one faster than the others", [][3]int{{50, 1, 100}, {50, 1, 100}, {50, 1, 100}, {50, 70, 80}}, 0, 15_000_000},
		{"a new line", [][3]int{{50, 1, 100}, {50, 1, 100}, {50, 1, 100}, {50, 1, 200}, {50, 1, 200}, {50, 1, 200}, {50, 1, 200}, {50, 1, 200}, {50, 1, 200}}, 7_500_000, 7_500_000},
	} {
		var x trains
		for i, tr := range tt.trains {
			send(&x, ms(12*i), tr[0], time.Duration(tr[1])*us, time.Duration(tr[2])*us)
		}
		send(&x, ms(1000), 1, 0, 0) // the last is over
		if got := x.limit; got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
		x.next()
		if got := x.limit; got != tt.want {
			t.Errorf("%s, a round later: %d, want %d", tt.name, got, tt.want)
		}
		x.next()
		if got := x.limit; got != tt.after {
			t.Errorf("%s, two rounds later: %d, want %d", tt.name, got, tt.after)
		}
	}
}
