package main

import (
	"context"
	"time"

	"github.com/longhaul-project/longhaul/internal/conffile"
)

// setRate gives the links the cap that the config has for now. It returns the
// cap, and whether it is another one than before.
func (d *daemon) setRate(now time.Time) (rate conffile.Rate, changed bool) {
	d.conf.mu.Lock()
	most := d.conf.cfg.Link.Rates().At(now)
	changed = most != d.conf.rate
	d.conf.rate = most
	d.conf.mu.Unlock()
	if changed {
		d.node.SetRate(most)
	}
	return conffile.Rate(8 * most), changed
}

// followCalendar changes the cap when the calendar says so, until ctx is done.
func (d *daemon) followCalendar(ctx context.Context) error {
	everyMinute(ctx, func(now time.Time) {
		if rate, changed := d.setRate(now); changed {
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
