package wan

import (
	"context"
	"log/slog"
	"time"
)

// Options of a run.
type Options struct {
	// Time of each cell that is measured. Zero means 10 s.
	Time time.Duration
	// Seed of what the lines lose.
	Seed uint64
	// Emulator is the command that calls wanem.Serve, End the one that calls ServeEnd.
	Emulator, End []string
	// Wireguard is the program of bench/wan/wireguard; without it its cells fail.
	Wireguard string
	// Log may be nil, which discards.
	Log *slog.Logger
}

const (
	// settle is 20 round trips of 100 ms: what quic-go's discovery of the MTU takes.
	settle = 2 * time.Second
	// pingRest is how long pings are waited for at the end.
	pingRest = time.Second
)

// Run measures the cells of rows and peers, and calls got for each.
func Run(ctx context.Context, rows []Row, peers []Peer, o Options, got func(Result)) error {
	if o.Time == 0 {
		o.Time = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, r := range rows {
		for _, p := range peers {
			if !p.runs(r) {
				continue
			}
			res := Result{Row: r.Name, Peer: p.Name, Kind: r.Kind}
			if err := measure(ctx, r, p, o, &res); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				o.Log.Error("cell", "row", r.Name, "peer", p.Name, "err", err)
				res.Err = err.Error()
			}
			got(res)
		}
	}
	return nil
}
