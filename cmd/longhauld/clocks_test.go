package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
	"github.com/longhaul-project/longhaul/internal/conffile"
)

// TestCalendarWhenClocksChange: the cap changes when the clock on the wall shows what the
// calendar says, over midnight, on the day that has no 02:30 and on the one that has it twice.
func TestCalendarWhenClocksChange(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	mbit := func(n conffile.Rate) *conffile.Rate { n *= 1_000_000; return &n }
	link := config.Link{Rate: 10_000_000, Calendar: []config.Window{
		{Days: "sun", Time: "02:30-03:15", Rate: mbit(30)},
		{Days: "sat", Time: "23:00-24:00", Rate: mbit(20)},
		{Days: "sat", Time: "22:00-06:00", Rate: mbit(40)}, // until Sunday
	}}
	for _, tt := range []struct {
		from time.Time // a Saturday
		want []string  // Mbit/s from then on
	}{
		{time.Date(2000, 3, 25, 12, 0, 0, 0, berlin), []string{
			"Sat 12:01 CET: 10", "Sat 22:00 CET: 40", "Sat 23:00 CET: 20", "Sun 00:00 CET: 40",
			"Sun 03:00 CEST: 30", "Sun 03:15 CEST: 40", "Sun 06:00 CEST: 10"}},
		{time.Date(2000, 7, 1, 12, 0, 0, 0, berlin), []string{
			"Sat 12:01 CEST: 10", "Sat 22:00 CEST: 40", "Sat 23:00 CEST: 20", "Sun 00:00 CEST: 40",
			"Sun 02:30 CEST: 30", "Sun 03:15 CEST: 40", "Sun 06:00 CEST: 10"}},
		{time.Date(2000, 10, 28, 12, 0, 0, 0, berlin), []string{
			"Sat 12:01 CEST: 10", "Sat 22:00 CEST: 40", "Sat 23:00 CEST: 20", "Sun 00:00 CEST: 40",
			"Sun 02:30 CEST: 30", "Sun 02:00 CET: 40", "Sun 02:30 CET: 30", "Sun 03:15 CET: 40", "Sun 06:00 CET: 10"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(tt.from))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := &current{cfg: config.Config{Link: link}}
			var got []string
			everyMinute(ctx, func(now time.Time) {
				now = now.In(berlin) // as on a machine that is there
				if rate, changed := c.setRate(now, func(int64) {}); changed {
					got = append(got, fmt.Sprintf("%s: %d", now.Format("Mon 15:04 MST"), rate/1_000_000))
				}
				if now.Sub(tt.from) > 24*time.Hour {
					cancel()
				}
			})
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}
