package gateway

import (
	"testing"
	"time"
)

func TestMissesDeadline(t *testing.T) {
	for _, tt := range []struct {
		low, high, left time.Duration
		want            bool
	}{
		{time.Second, 10 * time.Second, time.Minute, false},
		{time.Second, 47 * time.Second, time.Minute, false},
		{time.Second, 49 * time.Second, time.Minute, true},
		{time.Second, untold, time.Minute, true}, // it would not converge
		{time.Second, time.Second, -time.Second, true},
		{untold, untold, time.Minute, false}, // nothing crosses yet
		{untold, untold, -time.Second, true},
	} {
		if got := (forecast{low: tt.low, high: tt.high}).late(tt.left); got != tt.want {
			t.Errorf("%v to %v to go, %v left: %v", tt.low, tt.high, tt.left, got)
		}
	}
}
