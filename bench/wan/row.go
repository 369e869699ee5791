package wan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/bench/wanem"
)

// Kind says what a row measures.
type Kind string

// The kinds of rows.
const (
	Bulk   Kind = "bulk"   // how much of the line is used
	Urgent Kind = "urgent" // how long small messages take meanwhile
	Shape  Kind = "shape"  // how exactly a cap is kept
	Paths  Kind = "paths"  // two lines used together
	Cable  Kind = "cable"  // what the processors carry: a veth in place of a line
)

// A Row is a line and what is measured on it. Both directions are alike.
type Row struct {
	Name string
	Kind Kind
	Line wanem.Profile
	// Cap of what Longhaul sends in bits per second on the wire, for Shape.
	Cap int64
	// Second is the other line, for Paths, and Dies says which of them is cut in
	// the middle: 1, 2 or none.
	Second wanem.Profile
	Dies   int
}

// rate is that of all lines, in bits per second.
func (r Row) rate() int64 { return r.Line.Rate + r.Second.Rate }

// Rows are all rows, in the order of the table.
func Rows() []Row {
	var rows []Row
	for _, l := range []struct {
		rate int64
		rtt  time.Duration
	}{{100e6, 50 * time.Millisecond}, {500e6, 100 * time.Millisecond}} {
		for _, loss := range []float64{0, 0.0001, 0.001, 0.01} {
			rows = append(rows, bulk(l.rate, l.rtt, loss, 0))
		}
		rows = append(rows, bulk(l.rate, l.rtt, 0.001, 5), bulk(l.rate, l.rtt, 0.01, 10))
	}
	for _, rtt := range []time.Duration{100 * time.Millisecond, 150 * time.Millisecond} {
		rows = append(rows, bulk(1e9, rtt, 0.001, 0))
	}
	for _, loss := range []float64{0, 0.01} {
		r := bulk(200e6, 100*time.Millisecond, loss, 0)
		r.Name, r.Kind = "urgent/"+r.Name, Urgent
		r.Line.Queue = 0 // the emulator's default of one BDP
		rows = append(rows, r)
	}
	for _, cap := range []int64{50e6, 100e6, 500e6} {
		r := bulk(1e9, 20*time.Millisecond, 0, 0)
		r.Name, r.Kind, r.Cap = fmt.Sprintf("shape/%dM", cap/1e6), Shape, cap
		rows = append(rows, r)
	}
	return append(append(rows, twoPaths()...), Row{Name: "cable", Kind: Cable})
}

// twoPaths are the rows of two uplinks.
func twoPaths() (rows []Row) {
	for dies, name := range []string{"", "/first dies", "/second dies"} {
		r := bulk(150e6, 100*time.Millisecond, 0.001, 0)
		r.Name, r.Kind, r.Dies = "paths/150M+50M"+name, Paths, dies
		r.Second = bulk(50e6, 40*time.Millisecond, 0.001, 0).Line
		rows = append(rows, r)
	}
	return rows
}

// bulk is a line with a queue of half a bandwidth-delay product.
func bulk(rate int64, rtt time.Duration, loss, burst float64) Row {
	name := fmt.Sprintf("%dM/%v/%g%%", rate/1e6, rtt, loss*100)
	if burst > 0 {
		name += fmt.Sprintf("x%g", burst)
	}
	return Row{Name: name, Kind: Bulk, Line: wanem.Profile{
		Rate: rate, Delay: rtt / 2, Loss: loss, Burst: burst,
		Queue: int64(float64(rate) / 8 * rtt.Seconds() / 2),
	}}
}

// SelectRows picks the rows whose name contains one of the patterns; none picks all.
func SelectRows(patterns []string) ([]Row, error) {
	if len(patterns) == 0 {
		return Rows(), nil
	}
	var picked []Row
	for _, p := range patterns {
		n := len(picked)
		for _, r := range Rows() {
			if strings.Contains(r.Name, p) && !slices.ContainsFunc(picked, func(x Row) bool { return x.Name == r.Name }) {
				picked = append(picked, r)
			}
		}
		if len(picked) == n {
			return nil, fmt.Errorf("no row's name contains %q (or another pattern has picked it)", p)
		}
	}
	return picked, nil
}
