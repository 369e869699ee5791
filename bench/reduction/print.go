package reduction

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the report as text.
func (r Report) Print(to io.Writer) error {
	var b strings.Builder
	for _, part := range []func(io.Writer){r.printStreams, r.printRows, r.printScaling} {
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		part(w)
		if err := w.Flush(); err != nil {
			return err
		}
		b.WriteByte('\n')
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(to, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func (r Report) printStreams(w io.Writer) {
	fmt.Fprintln(w, "stream\tMB\tpages\tzero %\tduplicates %\tresent same %\tresent changed %\tof these sparsely %\trounds\t")
	for _, s := range r.Streams {
		share := func(n int64) float64 { return 100 * float64(n) / float64(max(s.Pages, 1)) }
		fmt.Fprintf(w, "%s\t%.0f\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%d\t\n", s.Name, float64(s.Bytes)/1e6, s.Pages,
			share(s.Zero), share(s.Duplicates), share(s.Same), share(s.Changed), share(s.Sparse), s.Rounds)
		if s.Lost != "" {
			fmt.Fprintf(w, "%s: the scanner lost its way: %s\n", s.Name, s.Lost)
		}
	}
}

func (r Report) printRows(w io.Writer) {
	fmt.Fprintln(w, "case\tmethod\tleft %\tratio\tleft MB\tencode MB/s\tof it serial %\tdecode MB/s\tzero\trefs\tdeltas\tliterals\t")
	for i, row := range r.Rows {
		if i > 0 && row.Case != r.Rows[i-1].Case {
			fmt.Fprintln(w, "\t\t\t\t\t\t\t\t\t\t\t\t")
		}
		fmt.Fprintf(w, "%s\t%s\t%.3f\t%.1f\t%.2f\t%s\t", row.Case, row.Method, row.Percent(), float64(row.Raw)/float64(max(row.Left, 1)),
			float64(row.Left)/1e6, number(row.speed(row.Encode)))
		if p := row.Pages; p != nil {
			fmt.Fprintf(w, "%.0f\t%s\t%d\t%d\t%d\t%d\t\n", 100*row.Serial.Seconds()/max(row.Encode.Seconds(), 1e-9),
				number(row.speed(row.Decode)), p.Zero, p.Refs, p.Deltas, p.Literals)
		} else {
			fmt.Fprintf(w, "-\t%s\t-\t-\t-\t-\t\n", number(row.speed(row.Decode)))
		}
	}
}

func (r Report) printScaling(w io.Writer) {
	if len(r.Scaling) == 0 {
		return
	}
	fmt.Fprintln(w, "cold, parallel\tcores\tby the clock MB/s\tcores busy\tif cores were free MB/s\tgain then\t")
	var one time.Duration
	for _, s := range r.Scaling {
		if s.Cores == 1 {
			one = s.Free
		}
		speed := func(d time.Duration) float64 { return float64(s.Raw) / 1e6 / d.Seconds() }
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%.2f\t%.0f\t%.2f\t\n", s.Method, s.Cores, speed(s.Took),
			s.Used.Seconds()/s.Took.Seconds(), speed(s.Free), one.Seconds()/s.Free.Seconds())
	}
}

// number prints a speed, or a dash if it was not measured.
func number(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", v)
}
