package wan

import (
	"context"
	"errors"
	"time"

	"github.com/longhaul-project/longhaul/bench/wanem"
)

// measure is one cell.
func measure(ctx context.Context, r Row, p Peer, o Options, res *Result) (err error) {
	b, err := newBed(r, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	from, to, err := b.startEnds(ctx, p, r, o)
	if err != nil {
		return err
	}
	if err := rest(ctx, settle); err != nil {
		return err
	}
	before, err := b.now()
	if err != nil {
		return err
	}
	start := time.Now()
	if _, err := from.ask(endRequest{Op: "send", For: o.Time - pingRest}); err != nil {
		return err
	}
	line, err := b.during(ctx, r, o.Time-time.Since(start))
	if err != nil {
		return err
	}
	after, err := b.now()
	if err != nil {
		return err
	}
	arrived, err := to.ask(endRequest{Op: "report"})
	if err != nil {
		return err
	}
	sent, err := from.ask(endRequest{Op: "report"})
	if err != nil {
		return err
	}
	res.deliver(arrived.Samples, start.UnixNano(), r.Line.Rate, o.Time)
	delivered := deliveredAt(arrived.Samples, after.at) - deliveredAt(arrived.Samples, before.at)
	res.use(before.line, after.line, delivered, r.Line.Rate)
	res.ping(sent.Pings)
	if r.Kind == Shape {
		res.shape(line, float64(r.Cap)/8)
	}
	if gbit := delivered * 8 / 1e9; gbit > 0 {
		res.CPUSend = (after.cpu[0] - before.cpu[0]) / gbit
		res.CPURecv = (after.cpu[1] - before.cpu[1]) / gbit
	}
	return nil
}

// A moment is what has been counted until then.
type moment struct {
	at   int64          // Unix time in nanoseconds
	line wanem.Counters // of the sending direction
	cpu  [2]float64     // seconds, by end
}

func (b *bed) now() (m moment, err error) {
	if m.line, err = b.line.Counters(wanem.AB); err != nil {
		return m, err
	}
	for i := range m.cpu {
		if m.cpu[i], err = b.processor(i); err != nil {
			return m, err
		}
	}
	m.at = time.Now().UnixNano()
	return m, nil
}

// during lets the cell run. Where a cap is measured, it samples what comes onto
// the line.
func (b *bed) during(ctx context.Context, r Row, long time.Duration) (samples []sample, err error) {
	if r.Kind != Shape {
		return nil, rest(ctx, long)
	}
	for end := time.Now().Add(long); time.Now().Before(end); {
		c, err := b.line.Counters(wanem.AB)
		if err != nil {
			return nil, err
		}
		samples = append(samples, sample{time.Now().UnixNano(), c.In.Bytes})
		if err := rest(ctx, shapeEvery); err != nil {
			return nil, err
		}
	}
	return samples, nil
}

// shapeEvery is short against the 10 ms of a peak.
const shapeEvery = 2 * time.Millisecond

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
