package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// An Observation looks at both QEMUs of a move that somebody else makes, over
// their second monitors, and so measures the downtime by this machine's clock
// and not by the word of those who move.
type Observation struct {
	src  *Monitor
	stop context.CancelFunc
	dst  chan observed // one message
}

type observed struct {
	m   *Monitor
	err error
}

// Observe begins to watch a guest that will move. It waits in the background
// for the destination to be started.
func (l *Lab) Observe(ctx context.Context, name string, from, to *Site) (*Observation, error) {
	src, err := OpenMonitor(ctx, watchPath(from, name))
	if err != nil {
		return nil, fmt.Errorf("observing %s: %w", name, err)
	}
	ctx, stop := context.WithCancel(ctx)
	o := &Observation{src: src, stop: stop, dst: make(chan observed, 1)} // one message
	go func() {
		m, err := OpenMonitor(ctx, watchPath(to, name))
		o.dst <- observed{m, err}
	}()
	return o, nil
}

func watchPath(s *Site, name string) string { return filepath.Join(s.Dir, name+".watch") }

// Downtime waits for the end of the pause and tells how long it was: from STOP
// at the source to RESUME at the destination, as the two QEMUs dated them. It
// is called once.
func (o *Observation) Downtime(ctx context.Context) (time.Duration, error) {
	stop, err := o.src.Wait(ctx, "STOP")
	if err != nil {
		return 0, err
	}
	select {
	case d := <-o.dst:
		o.dst <- d // for Close
		if d.err != nil {
			return 0, d.err
		}
		resume, err := d.m.Wait(ctx, "RESUME")
		return resume.At.Sub(stop.At), err
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for the destination's monitor: %w", ctx.Err())
	}
}

// Running tells which of the two copies execute now: at most one ever may. A
// copy that has ended does not.
func (o *Observation) Running(ctx context.Context) (src, dst bool) {
	src, _ = o.src.Running(ctx)
	select {
	case d := <-o.dst:
		o.dst <- d
		if d.err == nil {
			dst, _ = d.m.Running(ctx)
		}
	default: // there is no destination yet
	}
	return src, dst
}

// Close ends the observation; both guests go on.
func (o *Observation) Close() error {
	o.stop()
	err := o.src.Close()
	if d := <-o.dst; d.err == nil {
		err = errors.Join(err, d.m.Close())
	}
	return err
}
