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
	res.deliver(arrived.Samples, start.UnixNano(), r.rate(), o.Time)
	delivered := deliveredAt(arrived.Samples, after.at) - deliveredAt(arrived.Samples, before.at)
	res.use(before.line, after.line, delivered, r.Line.Rate)
	res.stall(arrived.Samples, start.UnixNano(), o.Time)
	res.ping(sent.Pings)
	res.Drops = sent.Drops + arrived.Drops
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
	line wanem.Counters // of the sending direction of all lines
	cpu  [2]float64     // seconds, by end
}

func (b *bed) now() (m moment, err error) {
	for i, l := range b.lines {
		c, err := l.Counters(wanem.AB)
		if err != nil {
			return m, err
		}
		m.line = sum(m.line, c)
		if i == 0 {
			m.line.QueueMax = c.QueueMax // the second line's is another time
		}
	}
	for i := range m.cpu {
		if m.cpu[i], err = b.processor(i); err != nil {
			return m, err
		}
	}
	m.at = time.Now().UnixNano()
	return m, nil
}

// sum adds up what use looks at of two lines.
func sum(a, b wanem.Counters) wanem.Counters {
	for _, x := range []struct{ to, of *wanem.Count }{{&a.In, &b.In}, {&a.Full, &b.Full}, {&a.Lost, &b.Lost}} {
		x.to.Packets += x.of.Packets
		x.to.Bytes += x.of.Bytes
	}
	a.LateMax = max(a.LateMax, b.LateMax)
	return a
}

// cut breaks a line, both ways.
func (b *bed) cut(line int) error {
	return errors.Join(b.lines[line].Cut(wanem.AB), b.lines[line].Cut(wanem.BA))
}

// during lets the cell run. Where a cap is measured, it samples what comes onto
// the line; where a line dies, it cuts it.
func (b *bed) during(ctx context.Context, r Row, long time.Duration) (samples []sample, err error) {
	if r.Dies > 0 {
		if err := rest(ctx, long/2); err != nil {
			return nil, err
		}
		if err := b.cut(r.Dies - 1); err != nil {
			return nil, err
		}
		long -= long / 2
	}
	if r.Kind != Shape {
		return nil, rest(ctx, long)
	}
	for end := time.Now().Add(long); time.Now().Before(end); {
		c, err := b.lines[0].Counters(wanem.AB)
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
