package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCalendar(t *testing.T) {
	const form = "site: a\nlink:\n  rate: 80Mbit\n  calendar:\n    - {days: %q, time: %q, rate: 8Mbit}\n"
	for _, tt := range []struct {
		days, time string
		on, off    []string // 2026-11-23 is a Monday
		fails      string
	}{
		{days: "", time: "08:00-18:00", on: []string{"23 08:00", "29 17:59"}, off: []string{"23 18:00"}},
		{days: "mon-fri", time: "08:00-24:00", on: []string{"27 23:59"}, off: []string{"28 08:00", "24 00:00"}},
		{days: "Sat, sun", time: "22:00-06:00", on: []string{"28 22:00", "30 05:59"}, off: []string{"28 05:59", "30 22:00"}},
		{days: "fri-mon", time: "0:00 - 24:00", on: []string{"27 12:00", "28 00:00", "23 12:00"}, off: []string{"24 12:00", "26 12:00"}},
		{days: "monday", time: "08:00-18:00", fails: `link.calendar[0]: days "monday": want them like mon-fri`},
		{days: "mon-", time: "08:00-18:00", fails: `days "mon-"`},
		{days: "mon", time: "08:00", fails: `time "08:00": want it like 08:00-18:00`},
		{days: "mon", time: "8-18:00", fails: `time of day "8"`},
		{days: "mon", time: "08:00-24:01", fails: `time of day "24:01"`},
		{days: "mon", time: "08:5-18:00", fails: `time of day "08:5"`},
	} {
		c, err := Parse("x", fmt.Appendf(nil, form, tt.days, tt.time))
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%q %q: %v, want %s", tt.days, tt.time, err, tt.fails)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q %q: %v", tt.days, tt.time, err)
			continue
		}
		for i, moment := range append(slices.Clone(tt.on), tt.off...) {
			at, err := time.Parse("2006-01-2 15:04", "2026-11-"+moment)
			if err != nil {
				t.Fatal(err)
			}
			want := int64(10_000_000)
			if i < len(tt.on) {
				want = 1_000_000
			}
			if got := c.Link.Rates().At(at); got != want {
				t.Errorf("%q %q: on %s %d, want %d", tt.days, tt.time, moment, got, want)
			}
		}
	}
}

// TestCalendarRate: a window says what its cap is. One that only lacks it would lift the cap
// in the hours in which the line is to be spared.
func TestCalendarRate(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		rate  string
		want  int64
		fails string
	}{
		{", rate: 80Mbit", 10_000_000, ""},
		{", rate: 0", 0, ""},
		{"", 0, "link.calendar[0]: rate is missing; 0 for no cap"},
		{", rate:", 0, "link.calendar[0]: rate is missing; 0 for no cap"},
		{", rate: -1Mbit", 0, "rate \"-1Mbit\": is negative"},
	} {
		c, err := Parse("x", fmt.Appendf(nil, "site: a\nlink:\n  rate: 8Mbit\n  calendar:\n    - {time: \"08:00-18:00\"%s}\n", tt.rate))
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%q: %v, want %s", tt.rate, err, tt.fails)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", tt.rate, err)
		} else if got := c.Link.Rates().At(at); got != tt.want {
			t.Errorf("%q: %d bytes a second, want %d", tt.rate, got, tt.want)
		}
	}
}

// TestLeastRate: rates with which no link works are refused, wherever a link gets one.
func TestLeastRate(t *testing.T) {
	for _, form := range []struct{ text, key string }{
		{"link: {rate: %s}\n", "link.rate"},
		{"link: {calendar: [{time: \"08:00-18:00\", rate: %s}]}\n", "link.calendar[0]"},
		{"peers: [{site: b, paths: [{name: x, address: [\"192.0.2.1:1\"], rate: %s}]}]\n", "peers[0].paths[0].rate"},
	} {
		for rate, works := range map[string]bool{"1bit": false, "8kbit": false, "127999bit": false, "128kbit": true, "1Gbit": true, "0": true} {
			_, err := Parse("x", fmt.Appendf(nil, "site: a\n"+form.text, rate))
			if works && err != nil {
				t.Errorf("%s: %v", form.key, err)
			}
			if want := form.key + ": rate " + rate + " is too little for a link: at least 128kbit"; !works && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%v, want %s", err, want)
			}
		}
	}
}
