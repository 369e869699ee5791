package layer2

import (
	"context"
	"errors"
	"time"
)

// Options of a run.
type Options struct {
	// Time of each cell. Zero means 10 s.
	Time time.Duration
	// Seed of what the lines lose.
	Seed uint64
	// Emulator is the command that calls wanem.Serve, Gateway the one that calls
	// ServeGateway.
	Emulator, Gateway []string
	// Wireguard is the program of bench/wan/wireguard; without it its cells fail.
	Wireguard string
}

// warmUp is for a connection's slow start, on the longest line.
const warmUp = 3 * time.Second

// Run measures the cells of rows and modes, and calls got for each.
func Run(ctx context.Context, rows []Row, modes []Mode, o Options, got func(Result)) error {
	if o.Time == 0 {
		o.Time = 10 * time.Second
	}
	for _, r := range rows {
		base := 0.0
		for _, m := range modes {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			res := Result{Row: r.Name, Mode: m.Name}
			if err := measure(ctx, r, m, o, &res); err != nil {
				res.Err = err.Error()
			}
			if m.Name == Base {
				base = res.Goodput
			}
			if base > 0 {
				res.OfBase = res.Goodput / base
			}
			got(res)
		}
	}
	return nil
}

// measure is one cell.
func measure(ctx context.Context, r Row, m Mode, o Options, res *Result) (err error) {
	b, err := newBed(r, m, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	f, err := startFlow(b.host[0], b.host[1], hostIP(1)+":8", r.Congestion)
	if err != nil {
		return err
	}
	defer f.end()
	if err := rest(ctx, warmUp); err != nil {
		return err
	}
	before, err := usageOf(b.pids())
	if err != nil {
		return err
	}
	start, at := time.Now(), f.got.Load()
	if err := rest(ctx, o.Time); err != nil {
		return err
	}
	bits := float64(f.got.Load()-at) * 8
	res.Goodput = bits / time.Since(start).Seconds()
	after, err := usageOf(b.pids())
	if err != nil {
		return err
	}
	if bits > 0 {
		res.CPU = (after.processes - before.processes) / (bits / 1e9)
		res.Machine = (after.machine - before.machine) / (bits / 1e9)
	}
	return nil
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
