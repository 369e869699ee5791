package demo

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// rows of the summary.
func rows() []struct {
	name string
	show func(*Figures) string
} {
	return []struct {
		name string
		show func(*Figures) string
	}{
		{"total time", func(f *Figures) string { return fmt.Sprintf("%.1f s", float64(f.Total)/1000) }},
		{"VM stood still", func(f *Figures) string { return fmt.Sprintf("%d ms", f.Downtime) }},
		{"longest gap of pings", func(f *Figures) string { return fmt.Sprintf("%d ms", f.LongestGap) }},
		{"pings lost", func(f *Figures) string { return fmt.Sprintf("%d of %d", f.PingsLost, f.PingsSent) }},
		{"TCP session", func(f *Figures) string { return either(f.SessionAlive, "alive", "broken") }},
		{"IP and MAC", func(f *Figures) string { return either(f.SameIP && f.SameMAC, "the same", "changed") }},
		{"pages checked", func(f *Figures) string { return fmt.Sprintf("%d, %d wrong", f.PagesVerified, f.PagesWrong) }},
		{"rounds over memory", func(f *Figures) string { return fmt.Sprint(f.Rounds) }},
		{"written by QEMU", func(f *Figures) string { return mib(f.Logical) }},
		{"crossed the WAN", func(f *Figures) string { return mib(f.Wire) }},
		{"reduction", func(f *Figures) string { return fmt.Sprintf("%.2f : 1", float64(f.Logical)/float64(max(f.Wire, 1))) }},
	}
}

// summary shows what the moves took, side by side.
func (r *runner) summary() {
	w := tabwriter.NewWriter(r.o.Stdout, 0, 0, 2, ' ', 0)
	ours, plain := r.doc.Longhaul, r.doc.Plain
	if plain == nil {
		fmt.Fprint(w, "\n\tLonghaul\n")
	} else {
		fmt.Fprintf(w, "\n\tLonghaul\tplain QEMU over TCP (%s)\n", plain.TCP)
	}
	for _, row := range rows() {
		fmt.Fprintf(w, "%s\t%s", row.name, row.show(ours))
		if plain != nil {
			fmt.Fprintf(w, "\t%s", row.show(plain))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	if plain != nil && plain.Relaxed {
		fmt.Fprintln(r.o.Stdout, "\nPlain QEMU did not converge within its downtime limit and was then permitted a longer one.")
	}
	r.moves(r.o.Stdout)
	for _, p := range r.doc.Problems {
		fmt.Fprintf(r.o.Stdout, "\nproblem: %s\n", p)
	}
}

// moves lists the moves when there are several.
func (r *runner) moves(out io.Writer) {
	if len(r.doc.Moves) < 2 {
		return
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer w.Flush()
	fmt.Fprintf(w, "\nmove\t from\t to\t total\t stood still\t crossed the WAN\t reduction\t\n")
	for i, m := range r.doc.Moves {
		fmt.Fprintf(w, "%d\t %s\t %s\t %.1f s\t %d ms\t %s\t %.1f : 1\t\n", i+1, m.From, m.To, float64(m.Total)/1000, m.Downtime, mib(m.Wire), m.Reduction)
	}
}

func either(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
