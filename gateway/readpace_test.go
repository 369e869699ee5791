package gateway

import (
	"testing"
	"time"
)

// Whoever reads under a bound gets what it says over any time, and no more than a little of what he
// has not asked for in time.
func TestReadPace(t *testing.T) {
	const span, rate = 1 << 20, 80e6 // 105 ms for a span
	begun := time.Unix(1000, 0)
	for _, busy := range []time.Duration{0, 10 * time.Millisecond, 90 * time.Millisecond} {
		p, now := readPace{rate: rate}, begun
		for range 100 {
			now = now.Add(busy)
			now = now.Add(p.pause(now, span))
		}
		want := time.Duration(100 * span * 8 / rate * float64(time.Second))
		if got := now.Sub(begun); got > want+time.Millisecond || got < want-readCredit-time.Millisecond {
			t.Errorf("100 spans took %v with %v for each, want %v", got, busy, want)
		}
		if wait := p.pause(now.Add(time.Hour), span); wait <= 0 {
			t.Error("an hour without reading is caught up")
		}
	}
	if wait := new(readPace).pause(begun, 1<<40); wait != 0 {
		t.Errorf("without a bound it waits for %v", wait)
	}
}
