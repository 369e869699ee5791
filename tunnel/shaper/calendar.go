package shaper

import "time"

// A Calendar says which rate holds when, by local time. The zero value has no
// cap. It is a value, safe for concurrent use.
type Calendar struct {
	Rate    int64    // bytes per second when no window holds; 0 for no cap
	Windows []Window // of several that hold, the first counts
}

// A Window is a part of the day on some days of the week. From and To are what
// the clock on the wall shows, as time since midnight, up to 24 hours; To is no
// longer of it. One with To not after From ends on the next day.
type Window struct {
	Days     [7]bool // by time.Weekday, of the day on which it begins
	From, To time.Duration
	Rate     int64 // bytes per second; 0 for no cap
}

// At is the rate at a moment, in bytes per second, 0 for no cap. The moment's
// location says what is local time: on the day on which clocks are set back a
// window may hold twice, as what the clock shows is there twice.
func (c Calendar) At(t time.Time) int64 {
	hour, minute, second := t.Clock()
	clock := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second
	for _, w := range c.Windows {
		if w.holds(t.Weekday(), clock) {
			return w.Rate
		}
	}
	return c.Rate
}

func (w Window) holds(day time.Weekday, clock time.Duration) bool {
	if w.From < w.To {
		return w.Days[day] && w.From <= clock && clock < w.To
	}
	before := (day + 6) % 7
	return w.Days[day] && clock >= w.From || w.Days[before] && clock < w.To
}
