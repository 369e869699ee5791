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

// TestStragglers: what the receiver holds back, or brings together with others, does not
// make the line slower or faster than it is.
func TestStragglers(t *testing.T) {
	const size, us = 1500, time.Microsecond
	for _, tt := range []struct {
		name     string
		together int           // acknowledged at a time
		held     time.Duration // the last is acknowledged so much later
		foreign  bool          // one of the train before comes amid the others
	}{
		{"at once", 1, 0, false},
		{"together", 10, 0, false},
		{"the last is held back", 2, ms(9), false},
		{"the last is held back until the next train has come", 2, ms(13), false},
		{"one of the train before", 2, 0, true},
	} {
		var x trains
		for n := range time.Duration(5) {
			sent := n * ms(12)
			came := sent + ms(100)
			for i := range 50 {
				at := came + time.Duration((i+tt.together)/tt.together*tt.together)*100*us
				switch {
				case i == 49 && tt.held > ms(12):
					continue // see below
				case i == 49:
					at += tt.held
				case i == 20 && tt.foreign && n > 0:
					x.acked(at, sent-ms(12), ms(3), size)
				case i == 2 && tt.held > ms(12) && n > 0:
					x.acked(at, sent-ms(12), ms(3), size)
				}
				x.acked(at, sent, ms(3), size)
			}
		}
		if got, want := float64(x.limit), 15e6; got < 0.97*want || got > 1.03*want {
			t.Errorf("%s: %.0f bytes/s, want %.0f", tt.name, got, want)
		}
	}
}

// TestAtOnce: trains that come at once, but for one packet that the receiver may have held
// back, have met no limit of the line, and say so.
func TestAtOnce(t *testing.T) {
	const size, packets = 1500, 18
	for _, held := range []int{0, 1, 3} {
		var x trains
		for n := range time.Duration(5) {
			sent := n * ms(12)
			for range packets - held {
				x.acked(sent+ms(100), sent, ms(3), size)
			}
			for i := range time.Duration(held) {
				x.acked(sent+ms(107)+i*time.Millisecond, sent, ms(3), size)
			}
		}
		want := int64(packets-held-1) * size * int64(time.Second/leastSpread)
		if x.limit != 0 || x.carried() != want {
			t.Errorf("%d held back: limit %d, carried %d; want 0, %d", held, x.limit, x.carried(), want)
		}
	}
}
