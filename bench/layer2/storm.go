package layer2

import "fmt"

// StormResult is what a storm does to a bulk flow of the link: without one, with
// one on a bridge of which no gateway knows, on another such that has one guest more,
// and on the segment's bridge. The second is what the storm itself takes from this
// machine, and what is lost beyond that is ours; the third is what a guest in our
// place would take.
type StormResult struct {
	Mode                         string
	Quiet, Plain, Guest, Segment StormPart
}

// StormPart is one of the four.
type StormPart struct {
	Bulk    float64 // goodput of the bulk, bits per second
	Frames  float64 // broadcasts that the bridge has taken, a second
	Cost    float64 // of each, seconds of processor
	Crossed float64 // frames that came to the other site's host, a second
}

// StormHead is the first line of the table.
func StormHead() string {
	return fmt.Sprintf("%-12s %-10s %12s %8s %10s %9s %8s", "mode", "storm on", "frames/s", "ns each", "crossed/s", "Mbit/s", "of quiet")
}

// Print writes it as lines of the table.
func (r StormResult) Print() string {
	line := func(what string, p StormPart) string {
		return fmt.Sprintf("%-12s %-10s %12.0f %8.0f %10.1f %9.1f %7.1f%%", r.Mode, what, p.Frames, p.Cost*1e9, p.Crossed, p.Bulk/1e6, 100*p.Bulk/r.Quiet.Bulk)
	}
	return line("nothing", r.Quiet) + "\n" + line("a bridge", r.Plain) + "\n" + line("with guest", r.Guest) + "\n" + line("segment", r.Segment)
}
