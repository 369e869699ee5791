package main

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
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

// TestRateInOrder: of reloads and the clock, which set the cap at the same time, the one that
// saw the newest config has the last word with the links, too.
func TestRateInOrder(t *testing.T) {
	for range 100 {
		c := &current{}
		var mu sync.Mutex // guards what follows
		var links int64
		set := func(rate int64) {
			for range rand.N(5) { // as a link may take long
				runtime.Gosched()
			}
			mu.Lock()
			defer mu.Unlock()
			links = rate
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				c.mu.Lock()
				c.cfg = config.Config{Link: config.Link{Rate: 8_000_000 << i}}
				c.mu.Unlock()
				c.setRate(time.Now(), set)
			})
		}
		wg.Wait()
		if want := c.cfg.Link.Rate.BytesPerSecond(); links != want || c.rate != want {
			t.Fatalf("the links have %d, we think they have %d, the config says %d", links, c.rate, want)
		}
	}
}
