package shaper

import (
	"testing"
	"time"
)

// every is all days of the week.
func every() (d [7]bool) {
	for i := range d {
		d[i] = true
	}
	return d
}

func TestCalendar(t *testing.T) {
	workdays := every()
	workdays[time.Saturday], workdays[time.Sunday] = false, false
	friday := [7]bool{time.Friday: true}
	c := Calendar{Rate: 100, Windows: []Window{
		{Days: friday, From: 22 * time.Hour, To: 6 * time.Hour, Rate: 900},                    // until Saturday
		{Days: workdays, From: 8 * time.Hour, To: 18*time.Hour + 30*time.Minute, Rate: 10},    // office hours
		{Days: [7]bool{time.Wednesday: true}, From: 0, To: 24 * time.Hour, Rate: 20},          // but office hours go first
		{Days: [7]bool{time.Sunday: true}, From: 12 * time.Hour, To: 12 * time.Hour, Rate: 0}, // 24 hours, no cap
	}}
	for _, tt := range []struct {
		at   string // 2026-11-23 is a Monday
		want int64
	}{
		{"2026-11-23 11:59:59", 10}, // Sunday's window has ended on Monday at noon, but office hours go first
		{"2026-11-23 07:59:59", 0},
		{"2026-11-23 08:00:00", 10},
		{"2026-11-23 18:29:59", 10},
		{"2026-11-23 18:30:00", 100},
		{"2026-11-25 00:00:00", 20},
		{"2026-11-25 09:00:00", 10},
		{"2026-11-25 23:59:59", 20},
		{"2026-11-26 00:00:00", 100},
		{"2026-11-27 21:59:59", 100},
		{"2026-11-27 22:00:00", 900},
		{"2026-11-28 05:59:59", 900},
		{"2026-11-28 06:00:00", 100},
		{"2026-11-28 22:00:00", 100}, // only Friday's
		{"2026-11-29 11:59:59", 100},
		{"2026-11-29 12:00:00", 0},
	} {
		at, err := time.Parse(time.DateTime, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.At(at); got != tt.want {
			t.Errorf("%s, a %s: %d, want %d", tt.at, at.Weekday(), got, tt.want)
		}
	}
	if got := (Calendar{}).At(time.Now()); got != 0 {
		t.Errorf("no calendar: %d", got)
	}
}

// TestCalendarClocksChange: where clocks are set back, what they show counts.
func TestCalendarClocksChange(t *testing.T) {
	berlin := time.FixedZone("winter", 3600)
	summer := time.FixedZone("summer", 7200)
	c := Calendar{Windows: []Window{{Days: every(), From: 2 * time.Hour, To: 3 * time.Hour, Rate: 5}}}
	first := time.Date(2026, 10, 25, 2, 30, 0, 0, summer)
	again := first.Add(time.Hour).In(berlin)
	if c.At(first) != 5 || c.At(again) != 5 || again.Hour() != 2 {
		t.Errorf("%v: %d, %v: %d", first, c.At(first), again, c.At(again))
	}
}
