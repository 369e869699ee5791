package main

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestEveryMinute: a window that begins at 08:00 must begin at 08:00.
func TestEveryMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(12*time.Second + 345*time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		everyMinute(ctx, func(now time.Time) {
			if got = append(got, now.Format("04:05.000")); len(got) == 3 {
				cancel()
			}
		})
		if want := []string{"01:00.000", "02:00.000", "03:00.000"}; !slices.Equal(got, want) {
			t.Errorf("called at %q, want %q", got, want)
		}
	})
}
