package layer2

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/bench/wanem"
)

// A Row is a line and what the hosts do on it.
type Row struct {
	Name string
	// Line that is emulated in each direction; the zero value is a cable.
	Line wanem.Profile
	// Congestion controller of the hosts' TCP.
	Congestion string
}

// Rows are all rows, in the order of the table.
func Rows() []Row {
	wan := wanem.Profile{Rate: 200e6, Delay: 50 * time.Millisecond, Loss: 0.001}
	return []Row{
		{Name: "cable/cubic", Congestion: "cubic"},
		{Name: "200M/100ms/0.1%/cubic", Line: wan, Congestion: "cubic"},
		{Name: "200M/100ms/0.1%/bbr", Line: wan, Congestion: "bbr"},
	}
}

// SelectRows picks the rows whose name contains one of the patterns; none picks all.
func SelectRows(patterns []string) ([]Row, error) {
	if len(patterns) == 0 {
		return Rows(), nil
	}
	var picked []Row
	for _, r := range Rows() {
		if slices.ContainsFunc(patterns, func(p string) bool { return strings.Contains(r.Name, p) }) {
			picked = append(picked, r)
		}
	}
	if len(picked) == 0 {
		return nil, fmt.Errorf("no row's name contains any of %v", patterns)
	}
	return picked, nil
}

// Result is one cell.
type Result struct {
	Row, Mode string
	Err       string  // why there is nothing else
	Goodput   float64 // bits per second
	OfBase    float64 // share of Base in the same row; 0 where that was not measured
	CPU       float64 // of both gateways' processes, seconds for each Gbit
	Machine   float64 // of everything, seconds for each Gbit
}

// Print writes the cell as a line of the table.
func (r Result) Print() string {
	if r.Err != "" {
		return fmt.Sprintf("%-24s %-12s %s", r.Row, r.Mode, r.Err)
	}
	base := "     -"
	if r.OfBase > 0 {
		base = fmt.Sprintf("%5.1f%%", 100*r.OfBase)
	}
	return fmt.Sprintf("%-24s %-12s %9.1f %s %8.3f %8.3f", r.Row, r.Mode, r.Goodput/1e6, base, r.CPU, r.Machine)
}

// Head is the first line of the table.
func Head() string {
	return fmt.Sprintf("%-24s %-12s %9s %6s %8s %8s", "row", "mode", "Mbit/s", "vxlan", "gateway", "machine")
}
