package layer2

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/longhaul-project/longhaul/bench/wanem"
	"github.com/longhaul-project/longhaul/internal/nstest"
)

// stormRounds are how often the parts take turns: a busy machine changes.
const stormRounds = 3

// A place is where a storm comes in.
type place struct {
	ns           *nstest.NS
	port, bridge string
}

// Storm measures the bulk of a link, on an emulated line of 200 Mbit/s: alone,
// beside a million broadcasts a second on bridges that have nothing to do with it,
// one of which has another guest, and beside as many on the segment's bridge.
func Storm(ctx context.Context, m Mode, o Options) (res StormResult, err error) {
	line := wanem.Profile{Rate: 200e6, Delay: 10 * time.Millisecond}
	b, err := newBed(Row{Name: "storm", Line: line}, m, o)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	plain, err := b.plainBridge("brplain", "storm0")
	if err != nil {
		return res, err
	}
	guest, err := b.plainBridge("brguest", "storm1", "guest0")
	if err != nil {
		return res, err
	}
	res.Mode = m.Name
	if _, err := b.procs[0].ask("bulk"); err != nil {
		return res, err
	}
	if err := rest(ctx, warmUp); err != nil {
		return res, err
	}
	for range stormRounds {
		for _, part := range []struct {
			sum *StormPart
			at  *place
		}{{&res.Quiet, nil}, {&res.Plain, &plain}, {&res.Guest, &guest}, {&res.Segment, &place{b.gw[0], "lan0", bridge}}} {
			p, err := b.stormPart(ctx, part.at)
			if err != nil {
				return res, err
			}
			part.sum.Bulk += p.Bulk / stormRounds
			part.sum.Frames += p.Frames / stormRounds
			part.sum.Cost += p.Cost / stormRounds
			part.sum.Crossed += p.Crossed / stormRounds
		}
	}
	return res, nil
}

// plainBridge makes one with some ports, where no gateway is; a storm comes in by the first.
func (b *bed) plainBridge(name string, ports ...string) (place, error) {
	p := place{b.host[0], ports[0], name}
	var errs []error
	for _, port := range ports {
		errs = append(errs, nstest.Veth(p.ns, port, p.ns, port+"-far"))
	}
	return p, errors.Join(append(errs, p.ns.Bridge(name, ports...))...)
}

// stormPart measures the bulk for a time, beside a storm if there is a place for it.
func (b *bed) stormPart(ctx context.Context, at *place) (p StormPart, err error) {
	if at == nil {
		p.Bulk, err = b.bulk(ctx, b.o.Time)
		return p, err
	}
	taken, errTaken := received(at.ns, at.bridge)
	crossed, errCrossed := received(b.host[1], "eth0")
	if err := errors.Join(errTaken, errCrossed); err != nil {
		return p, err
	}
	start := time.Now()
	s, err := startStorm(at.ns, at.port)
	if err != nil {
		return p, err
	}
	p.Bulk, err = b.bulk(ctx, b.o.Time)
	cost, errEnd := s.end()
	took := time.Since(start).Seconds()
	takenNow, errTaken := received(at.ns, at.bridge)
	crossedNow, errCrossed := received(b.host[1], "eth0")
	frames := float64(takenNow - taken)
	p.Frames, p.Crossed = frames/took, float64(crossedNow-crossed)/took
	if frames > 0 {
		p.Cost = cost.Seconds() / frames
	}
	return p, errors.Join(err, errEnd, errTaken, errCrossed)
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

// received is how many packets a device has received.
func received(ns *nstest.NS, device string) (n uint64, err error) {
	n, err = ns.Received(device)
	if err != nil {
		err = fmt.Errorf("counting what came: %w", err)
	}
	return n, err
}
