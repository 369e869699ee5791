package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// size is bytes for people: "512 MiB", "1.5 GiB".
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for math.Abs(v) >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return short(v) + " " + units[i]
}

// rate is bits per second for people: "200 Mbit/s".
func rate(bps int64) string {
	units := []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"}
	v, i := float64(bps), 0
	for math.Abs(v) >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	return short(v) + " " + units[i]
}

// limit is a rate of which 0 means that there is none.
func limit(bps int64) string {
	if bps == 0 {
		return "none"
	}
	return rate(bps)
}

// short shows about three digits: 1.25, 12.5, 125, 1250; and no trailing zeros.
func short(v float64) string {
	prec := 0
	switch a := math.Abs(v); {
	case a < 9.995:
		prec = 2
	case a < 99.95:
		prec = 1
	}
	s := strconv.FormatFloat(v, 'f', prec, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// span is a duration for people: "187 ms", "12.3 s", "4 min 5 s", "2 h 1 min".
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return short(d.Seconds()) + " s"
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
}

// stood is a downtime of milliseconds; a restart of the gateway loses it.
func stood(n int64) string {
	if n < 0 {
		return "not known: the gateway was restarted"
	}
	return millis(n)
}

func millis(n int64) string { return span(time.Duration(n) * time.Millisecond) }

// moment is a time in the operator's zone.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

// times is a ratio: "8.0x", or "-" when there is none yet.
func times(f float64) string {
	if f <= 0 {
		return "-"
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + "x"
}

// or shows a dash for nothing, so that a table has no holes.
func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// A table aligns columns. A cell never holds a newline or a tab that would
// break it: those come from hypervisors and peers.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, head ...any) *table {
	t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(head) > 0 {
		t.row(head...)
	}
	return t
}

func (t *table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, clean(fmt.Sprint(c)))
	}
	fmt.Fprint(t.w, "\n")
}

func (t *table) flush() error { return t.w.Flush() }

// clean replaces control characters: text from elsewhere must not move the
// cursor of the operator's terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
}
