package main

import (
	"context"
	"time"

	"github.com/longhaul-project/longhaul/internal/conffile"
)

// setRate gives the links, by set, the cap that the config has for now. It returns the
// cap, and whether it is another one than before. The lock is held meanwhile: of a
// reload and the clock, the one that reckoned first must not have the last word.
func (c *current) setRate(now time.Time, set func(bytesPerSecond int64)) (rate conffile.Rate, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	most := c.cfg.Link.Rates().At(now)
	changed = most != c.rate
	c.rate = most
	if changed {
		set(most)
	}
	return conffile.Rate(8 * most), changed
}

// followCalendar changes the cap when the calendar says so, until ctx is done.
func (d *daemon) followCalendar(ctx context.Context) error {
	everyMinute(ctx, func(now time.Time) {
		if rate, changed := d.conf.setRate(now, d.node.SetRate); changed {
			d.log.Info("calendar changes the cap of the link", "rate", rate)
		}
	})
	return nil
}

// everyMinute calls f at each full minute, until ctx is done. It asks what time
// it is each time: clocks are set, and machines sleep.
func everyMinute(ctx context.Context, f func(now time.Time)) {
	for {
		now := time.Now()
		select {
		case <-time.After(now.Truncate(time.Minute).Add(time.Minute).Sub(now)):
			f(time.Now())
		case <-ctx.Done():
			return
		}
	}
}
