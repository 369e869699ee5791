package reduction

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Report is the table.
type Report struct {
	Streams []Content `json:"streams"`
	Rows    []Row     `json:"rows"`
	Scaling []Scale   `json:"scaling"`
}

// Options of a run. The zero value works.
type Options struct {
	// Count is how often each figure is measured; the shortest time counts,
	// for other load only makes it longer. Zero means once.
	Count int
	// Cases are the names of those that are measured, Methods how the names of
	// methods begin; nothing means all. Parallel stages are the case "scaling".
	Cases, Methods []string
	Log            *slog.Logger // nil discards
}

// wantedCase tells whether a case is asked for: "back" does not ask for "back busy".
func wantedCase(asked []string, name string) bool {
	return len(asked) == 0 || slices.Contains(asked, name)
}

// wantedMethod tells whether a method's name begins with one that is asked for.
func wantedMethod(asked []string, name string) bool {
	return len(asked) == 0 || slices.ContainsFunc(asked, func(a string) bool { return strings.HasPrefix(name, a) })
}

// Run measures everything. With streams of Debian servers it takes about five
// minutes of processor time for each Count, and 8 GB of memory.
func Run(ctx context.Context, in Input, o Options) (Report, error) {
	o.Count = max(o.Count, 1)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	var r Report
	for _, s := range []struct {
		name   string
		stream []byte
	}{{"deb1", in.Deb1}, {"deb1-disk", in.Disk}, {"deb1-calm", in.Calm}, {"deb1-back", in.Busy}, {"deb2", in.Deb2}, {"sparse", in.Sparse}} {
		if s.stream != nil {
			r.Streams = append(r.Streams, Count(s.name, s.stream))
		}
	}
	old := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(old)
	for _, c := range cases(in) {
		if !wantedCase(o.Cases, c.Name) {
			continue
		}
		if err := r.run(ctx, c, o); err != nil {
			return r, fmt.Errorf("case %s: %w", c.Name, err)
		}
	}
	if !wantedCase(o.Cases, "scaling") {
		if len(r.Rows) == 0 {
			return r, fmt.Errorf("there is nothing to measure of cases %q and methods that begin with %q", o.Cases, o.Methods)
		}
		return r, nil
	}
	var err error
	if r.Scaling, err = scaling(ctx, in.Deb1, 2, o.Count); err != nil {
		return r, fmt.Errorf("scaling: %w", err)
	}
	r.judgeScaling()
	return r, nil
}

// run measures all methods on one case.
func (r *Report) run(ctx context.Context, c Case, o Options) error {
	var methods []func() (Row, error)
	add := func(name string, measure func() (Row, error)) {
		if wantedMethod(o.Methods, name) {
			methods = append(methods, measure)
		}
	}
	if c.Blind {
		for _, p := range peers() {
			add(p.name, func() (Row, error) { return p.measure(c) })
		}
	}
	add(longName, func() (Row, error) { return long(ctx, c) })
	for _, set := range settings() {
		add(set.name, func() (Row, error) { return ours(c, set) })
	}
	for _, measure := range methods {
		row, err := best(ctx, o.Count, measure)
		if err != nil {
			return fmt.Errorf("%s: %w", row.Method, err)
		}
		o.Log.Info("measured", "case", row.Case, "method", row.Method, "left", row.Percent())
		r.Rows = append(r.Rows, row)
	}
	return nil
}

// best is the row of the shortest times of several.
func best(ctx context.Context, count int, measure func() (Row, error)) (Row, error) {
	row, err := measure()
	for range count - 1 {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return row, err
		}
		var again Row
		again, err = measure()
		row.Encode = min(row.Encode, again.Encode)
		row.Serial = min(row.Serial, again.Serial)
		row.Decode = min(row.Decode, again.Decode)
	}
	return row, err
}

// judgeScaling adds what the parallel runs would take by the clock if nobody
// else used the cores: their processor time spread over the cores, or the
// serial part if that is longer.
func (r *Report) judgeScaling() {
	for i := range r.Scaling {
		s := &r.Scaling[i]
		s.Free = s.Used / time.Duration(s.Cores)
		for _, row := range r.Rows {
			if row.Case == "cold" && row.Method == s.Method {
				s.Free = max(s.Free, row.Serial)
			}
		}
	}
}
