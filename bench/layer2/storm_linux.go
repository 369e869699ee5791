package layer2

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/longhaul-project/longhaul/bench/wanem"
)

// StormResult is what a storm does to a bulk flow of the link.
type StormResult struct {
	Mode         string
	Quiet, Storm float64 // goodput of the bulk without and with it, bits per second
	Frames       float64 // of the storm, a second
}

// Print writes it as a line.
func (r StormResult) Print() string {
	return fmt.Sprintf("storm %-12s bulk %7.1f Mbit/s, beside %9.0f broadcasts a second %7.1f Mbit/s: %5.1f%%",
		r.Mode, r.Quiet/1e6, r.Frames, r.Storm/1e6, 100*r.Storm/r.Quiet)
}

// stormRounds are how often quiet and storm take turns.
const stormRounds = 3

// Storm measures the bulk of a link, on an emulated line of 200 Mbit/s, while a
// guest broadcasts a million frames a second, or as many as it can, and while it
// is quiet, in turns: a busy machine changes.
func Storm(ctx context.Context, m Mode, o Options) (res StormResult, err error) {
	line := wanem.Profile{Rate: 200e6, Delay: 10 * time.Millisecond}
	b, err := newBed(Row{Name: "storm", Line: line}, m, o)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	res.Mode = m.Name
	if _, err := b.procs[0].ask("bulk"); err != nil {
		return res, err
	}
	if err := rest(ctx, warmUp); err != nil {
		return res, err
	}
	for range stormRounds {
		quiet, err := b.bulk(ctx, o.Time)
		if err != nil {
			return res, err
		}
		s, err := startStorm(b.host[0], "eth0")
		if err != nil {
			return res, err
		}
		start := time.Now()
		loud, err := b.bulk(ctx, o.Time)
		frames := float64(s.sent.Load()) / time.Since(start).Seconds()
		if err := errors.Join(err, s.end()); err != nil {
			return res, err
		}
		res.Quiet, res.Storm, res.Frames = res.Quiet+quiet/stormRounds, res.Storm+loud/stormRounds, res.Frames+frames/stormRounds
	}
	return res, nil
}

// bulk is what arrives at the other side in a time, in bits per second.
func (b *bed) bulk(ctx context.Context, d time.Duration) (float64, error) {
	first, err := b.procs[1].ask("report")
	start := time.Now()
	if err := errors.Join(err, rest(ctx, d)); err != nil {
		return 0, err
	}
	last, err := b.procs[1].ask("report")
	return float64(last.Bulk-first.Bulk) * 8 / time.Since(start).Seconds(), err
}
