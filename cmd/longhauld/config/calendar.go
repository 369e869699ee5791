package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/internal/conffile"
	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

// Rates is the calendar of the link's cap.
func (l Link) Rates() shaper.Calendar {
	c := shaper.Calendar{Rate: l.Rate.BytesPerSecond()}
	for _, w := range l.Calendar {
		if parsed, err := w.parse(); err == nil { // Validate has seen it
			c.Windows = append(c.Windows, parsed)
		}
	}
	return c
}

func (w Window) parse() (out shaper.Window, err error) {
	if out.Days, err = parseDays(w.Days); err != nil {
		return out, err
	}
	from, to, ok := strings.Cut(w.Time, "-")
	if !ok {
		return out, fmt.Errorf("time %q: want it like 08:00-18:00", w.Time)
	}
	if out.From, err = parseClock(from); err != nil {
		return out, err
	}
	if out.To, err = parseClock(to); err != nil {
		return out, err
	}
	if w.Rate == nil { // forgotten, it would let the link send what it can in the very hours that are to be spared
		return out, errors.New("rate is missing; 0 for no cap")
	}
	if err := checkRate(*w.Rate); err != nil {
		return out, err
	}
	out.Rate = w.Rate.BytesPerSecond()
	return out, nil
}

// minRate is the least with which a link is of use, with all headers: it uses each of two
// paths and has more than half of the rate for moves (tunnel, TestLeastRate). With 100 kbit/s
// the second path gets no connection, with 48 little is left of it for moves, with 32 nothing.
const minRate conffile.Rate = 128_000

// checkRate refuses a rate with which a link does not work; 0 is none.
func checkRate(r conffile.Rate) error {
	switch {
	case r < 0:
		return fmt.Errorf("rate %s is negative", r)
	case r > 0 && r < minRate:
		return fmt.Errorf("rate %s is too little for a link: at least %s", r, minRate)
	}
	return nil
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} // as time.Weekday counts

// parseDays reads days and ranges of them, separated by commas. Nothing is all
// of them.
func parseDays(text string) (days [7]bool, err error) {
	if text == "" {
		text = "sun-sat"
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		a, b := slices.Index(weekdays, strings.ToLower(first)), slices.Index(weekdays, strings.ToLower(last))
		if a < 0 || b < 0 {
			return days, fmt.Errorf("days %q: want them like mon-fri, or sat, sun", text)
		}
		for d := a; ; d = (d + 1) % 7 {
			days[d] = true
			if d == b {
				break
			}
		}
	}
	return days, nil
}

// parseClock reads HH:MM up to 24:00.
func parseClock(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	hh, mm, ok := strings.Cut(text, ":")
	h, err := strconv.ParseUint(hh, 10, 8)
	m, err2 := strconv.ParseUint(mm, 10, 8)
	clock := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
	if !ok || err != nil || err2 != nil || len(mm) != 2 || m > 59 || clock > 24*time.Hour {
		return 0, fmt.Errorf("time of day %q: want it like 08:00, up to 24:00", text)
	}
	return clock, nil
}
