package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// A copyAt is a process of a VM at one of our hosts, or why there is none.
type copyAt struct {
	host  Host
	src   Source // nil if err is not
	state RunState
	err   error
}

// findVM looks for a VM on all hosts of this site. Two hosts may each have one of that
// name, and then it does not tell which is meant; what an earlier move has left is none.
func (g *Gateway) findVM(ctx context.Context, vm string) (Host, Source, error) {
	all := g.askHosts(ctx, vm)
	best, err := choose(all, vm)
	for _, c := range all {
		if c.src != nil && c != best {
			err = errors.Join(err, c.src.Close())
		}
	}
	switch {
	case err != nil && best != nil:
		return nil, nil, errors.Join(err, best.src.Close())
	case err != nil:
		return nil, nil, err
	case best != nil:
		return best.host, best.src, nil
	case len(g.cfg.Hosts) == 0:
		return nil, nil, fmt.Errorf("vm %q: site %s has no hypervisor host in its config: %w", vm, g.cfg.Site, ErrNoVM)
	}
	return nil, nil, fmt.Errorf("vm %q at site %s: %w", vm, g.cfg.Site, ErrNoVM)
}

// askHosts asks all hosts for a VM, at the same time, because one that hangs takes its
// time. They come in the order of the config.
func (g *Gateway) askHosts(ctx context.Context, vm string) []*copyAt {
	all := make([]*copyAt, len(g.cfg.Hosts))
	var wg sync.WaitGroup
	for i, h := range g.cfg.Hosts {
		c := &copyAt{host: h, state: Unknown}
		all[i] = c
		wg.Go(func() {
			if c.src, c.err = h.Source(ctx, vm); c.err != nil {
				c.src = nil
				return
			}
			if state, err := c.src.State(ctx); err == nil { // else the move asks again, and says why
				c.state = state
			}
		})
	}
	wg.Wait()
	return all
}

// choose picks the one copy that can be the VM, or one that only was: the move then says
// that it cannot be moved. A host that cannot tell which of its processes is the VM has one
// as well. Of hosts that cannot be asked none counts beside a copy that runs; one that is
// paused may be of another time, and what runs at such a host.
func choose(all []*copyAt, vm string) (best *copyAt, err error) {
	var problems []error
	for _, c := range all {
		switch {
		case c.err != nil && errors.Is(c.err, ErrNoVM):
		case c.err != nil:
			problems = append(problems, fmt.Errorf("host %s: %w", c.host.Name(), c.err))
		case best == nil || best.state == Moved:
			best = c
		case c.state != Moved:
			return best, fmt.Errorf("vm %s: host %s has it (%s), and so has host %s (%s); give one of them another name or end it: %w",
				vm, best.host.Name(), best.state, c.host.Name(), c.state, ErrBusy)
		}
	}
	why := errors.Join(problems...)
	switch {
	case why == nil, best != nil && best.state == Running && !errors.Is(why, ErrBusy):
		return best, nil
	case best != nil:
		return best, fmt.Errorf("vm %s: host %s has it (%s), and another may have it too: %w", vm, best.host.Name(), best.state, why)
	}
	return nil, fmt.Errorf("vm %s: %w", vm, why)
}
