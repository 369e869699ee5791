package wan

import (
	"fmt"
	"io"
	"time"
)

// Head writes the heading of the table.
func Head(w io.Writer) {
	fmt.Fprintf(w, "%-24s %-15s %7s %6s %6s %6s %8s %6s %13s %7s  %s\n",
		"row", "peer", "goodput", "steady", "t90", "wasted", "overflow", "wire", "cpu s/Gbit", "queue", "")
	fmt.Fprintf(w, "%-24s %-15s %7s %6s %6s %6s %8s %6s %6s %6s %7s  %s\n",
		"", "", "% line", "% line", "s", "%", "%", "bytes", "send", "recv", "ms", "")
}

// Print writes a cell as a line of the table.
func (r Result) Print(w io.Writer) {
	if r.Err != "" {
		fmt.Fprintf(w, "%-24s %-15s %s\n", r.Row, r.Peer, r.Err)
		return
	}
	t90 := "-"
	if r.T90 >= 0 {
		t90 = fmt.Sprintf("%.2f", r.T90.Seconds())
	}
	fmt.Fprintf(w, "%-24s %-15s %7.1f %6.1f %6s %6.2f %8.2f %6.3f %6.3f %6.3f %7.1f  %s\n",
		r.Row, r.Peer, 100*r.Goodput, 100*r.Steady, t90, 100*r.Wasted, 100*r.Overflow, r.Wire,
		r.CPUSend, r.CPURecv, ms(r.QueueMax), r.extra())
}

func (r Result) extra() string {
	switch r.Kind {
	case Urgent:
		return fmt.Sprintf("ping p50 %.1f p99 %.1f max %.1f ms", ms(r.PingP50), ms(r.PingP99), ms(r.PingMax))
	case Paths:
		return fmt.Sprintf("longest stall %.2f s", r.Stall.Seconds())
	case Cable:
		return fmt.Sprintf("%.0f Mbit/s, own drops %d", r.Rate/1e6, r.Drops)
	case Shape:
		return fmt.Sprintf("1s %+.2f to %+.2f %%, 10ms %.2f", 100*r.Least-100, 100*r.Most-100, r.Peak)
	}
	return ""
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
