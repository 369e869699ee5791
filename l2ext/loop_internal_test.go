package l2ext

import (
	"testing"
	"time"
)

func TestProbeGap(t *testing.T) {
	for segments, want := range map[int]time.Duration{1: probeFast, 10: probeFast, 25: 250 * time.Millisecond, 100: time.Second, 500: time.Second} {
		if got := probeGap(segments); got != want {
			t.Errorf("of %d segments each gets a probe every %v, want %v", segments, got, want)
		}
	}
}
