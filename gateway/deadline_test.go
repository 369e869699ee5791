package gateway

import (
	"testing"
	"time"
)

func TestMissesDeadline(t *testing.T) {
	for _, tt := range []struct {
		high, left time.Duration
		want       bool
	}{
		{10 * time.Second, time.Minute, false},
		{47 * time.Second, time.Minute, false},
		{49 * time.Second, time.Minute, true},
		{untold, time.Minute, true}, // it would not converge, or nothing crosses yet
		{time.Second, -time.Second, true},
	} {
		if got := (forecast{low: time.Second, high: tt.high}).late(tt.left); got != tt.want {
			t.Errorf("%v to go, %v left: %v", tt.high, tt.left, got)
		}
	}
}
