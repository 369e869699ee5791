package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/tunnel"
)

// errOperator is why a job ends that an operator has aborted.
var errOperator = errors.New("aborted by an operator")

// Migrate starts a move and returns its job at once.
func (g *Gateway) Migrate(ctx context.Context, req MigrateRequest) (Job, error) {
	if req.To == g.cfg.Site {
		return Job{}, fmt.Errorf("site %q is this one, where the VM is: %w", req.To, ErrInvalid)
	}
	link := g.node.Link(req.To)
	if link == nil {
		return Job{}, g.noSite(req.To)
	}
	if err := reachable(ctx, link); err != nil {
		return Job{}, err
	}
	if err := g.begun(ctx); err != nil {
		return Job{}, err
	}
	host, src, err := g.findVM(ctx, req.VM)
	if err != nil {
		return Job{}, err
	}
	m, err := g.newSourceMove(ctx, req, host, src)
	if err != nil {
		return Job{}, errors.Join(err, src.Close())
	}
	m.link, m.s = link, newSession(m.entry.Token, link, nil, g.log) // prepare adds the store
	m.s.tenant = m.job.snapshot().Request.Tenant
	m.s.flow, m.s.cores, m.s.spoil = link.NewFlow(m.job.id), &g.jobs.cores, g.spoil
	g.setRate(m, req.Rate)
	if err := m.step(StepMoving); err != nil {
		m.job.end(JobFailed, err)
		return Job{}, errors.Join(err, src.Close())
	}
	run, abort := context.WithCancelCause(g.ctx)
	over := make(chan struct{})
	m.job.mu.Lock()
	m.job.abort, m.job.over = abort, over
	m.job.setRate = func(bps int64) { g.setRate(m, bps) }
	m.job.recover = m.decide
	m.job.mu.Unlock()
	g.log.Info("move begins", "vm", req.VM, "peer", req.To, "job", m.job.id)
	g.wg.Go(func() {
		defer close(over)
		defer abort(nil)
		m.run(run)
	})
	return m.job.snapshot(), nil
}

// noSite says that a site is none of the peers, and which are.
func (g *Gateway) noSite(site string) error {
	var known []string
	for _, l := range g.node.Links() {
		known = append(known, l.Site())
	}
	slices.Sort(known)
	if len(known) == 0 {
		return fmt.Errorf("site %q: %w; this gateway knows no other site yet", site, ErrNoSite)
	}
	return fmt.Errorf("site %q: %w; this gateway knows %s", site, ErrNoSite, strings.Join(known, ", "))
}

// linkGrace is how long a request waits for a link that is down: a few round
// trips over any WAN, in which connections are replaced by new ones.
const linkGrace = 2 * time.Second

func reachable(ctx context.Context, link *tunnel.Link) error {
	ctx, cancel := context.WithTimeout(ctx, linkGrace)
	defer cancel()
	if err := link.WaitUp(ctx); err != nil {
		return fmt.Errorf("site %s is not reachable: %s: %w", link.Site(), cmp.Or(link.State().Why, err.Error()), ErrUnavailable)
	}
	return nil
}

// begun waits until what an earlier run has left is known: a move that is journaled
// before that would be taken for one of that run, and be given up while it goes on.
func (g *Gateway) begun(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, linkGrace)
	defer cancel()
	select {
	case <-g.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the gateway is starting and has not read its journal yet: %w", ErrUnavailable)
	}
}

func (g *Gateway) newSourceMove(ctx context.Context, req MigrateRequest, host Host, src Source) (*sourceMove, error) {
	spec, err := src.Spec(ctx)
	if err != nil {
		return nil, fmt.Errorf("vm %s: %w", req.VM, err)
	}
	state, err := src.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("vm %s: %w", req.VM, err)
	}
	if state != Running && state != Paused {
		return nil, fmt.Errorf("vm %s is %s, it cannot be moved: %w", req.VM, state, ErrBusy)
	}
	if req.Tenant, err = g.tenantOf(host.Name(), req.Tenant); err != nil {
		return nil, fmt.Errorf("vm %s: %w", req.VM, err)
	}
	spec.Token = newToken()
	spec.VM, spec.Channels = req.VM, req.Channels
	j := newJob(Job{
		ID: jobID(spec.Token), VM: req.VM, From: g.cfg.Site, To: req.To, Role: string(RoleSource),
		State: JobPreparing, Phase: "beginning", Started: time.Now().UTC(), Request: req,
	}, spec.Token)
	if err := g.jobs.add(j); err != nil {
		return nil, err
	}
	return &sourceMove{
		g: g, job: j, src: src, begun: time.Now(), decisions: make(chan Decision, 1),
		entry: Entry{Token: spec.Token, Role: RoleSource, Peer: req.To, Host: host.Name(), Process: src.Process(), Spec: spec, Ran: state == Running},
	}, nil
}

// setRate caps a move, in bits per second; 0 is no cap.
func (g *Gateway) setRate(m *sourceMove, bps int64) {
	m.s.flow.SetRate(bps / 8)
	m.job.update(func(v *Job) { v.Progress.RateCap = bps })
}

// Jobs lists the moves that this gateway knows, the newest last.
func (g *Gateway) Jobs(context.Context) ([]Job, error) { return g.jobs.list(), nil }

// Job returns one.
func (g *Gateway) Job(_ context.Context, id string) (Job, error) {
	j, err := g.jobs.get(id)
	if err != nil {
		return Job{}, err
	}
	return j.snapshot(), nil
}

// WatchJob sends a job now and after each change; the channel is closed when
// the job has ended or ctx is done.
func (g *Gateway) WatchJob(ctx context.Context, id string) (<-chan JobEvent, error) {
	j, err := g.jobs.get(id)
	if err != nil {
		return nil, err
	}
	return j.watch(ctx), nil
}

// AbortJob ends a move; the VM stays at its source. It fails with ErrBusy once
// the destination has been told to run.
func (g *Gateway) AbortJob(_ context.Context, id string) (Job, error) {
	j, err := g.jobs.get(id)
	if err != nil {
		return Job{}, err
	}
	v := j.snapshot()
	switch {
	case v.State.Ended():
		return v, fmt.Errorf("job %s has ended: %w", id, ErrBusy)
	case v.Role != string(RoleSource):
		return v, fmt.Errorf("job %s: abort it at site %s, where the VM is: %w", id, v.From, ErrBusy)
	case !j.stop(errOperator):
		return v, fmt.Errorf("job %s: the destination has been told to run the VM: %w", id, ErrBusy)
	}
	return j.snapshot(), nil
}

// SetJobRate caps a running move, in bits per second; 0 lifts the cap.
func (g *Gateway) SetJobRate(_ context.Context, id string, bps int64) (Job, error) {
	j, err := g.jobs.get(id)
	if err != nil {
		return Job{}, err
	}
	j.mu.Lock()
	set := j.setRate
	j.mu.Unlock()
	v := j.snapshot()
	switch {
	case bps < 0:
		return v, fmt.Errorf("rate of %d bits per second: %w", bps, ErrInvalid)
	case v.State.Ended():
		return v, fmt.Errorf("job %s has ended: %w", id, ErrBusy)
	case set == nil:
		return v, fmt.Errorf("job %s: set its rate at site %s, which sends: %w", id, v.From, ErrBusy)
	}
	set(bps)
	return j.snapshot(), nil
}

// RecoverJob ends a job in doubt as an operator decides, who has looked at both
// sites. Whatever a gateway can find out by itself, it does not ask.
func (g *Gateway) RecoverJob(_ context.Context, id, where string) (Job, error) {
	d := Decision(where)
	j, err := g.jobs.get(id)
	if err != nil {
		return Job{}, err
	}
	v := j.snapshot()
	j.mu.Lock()
	recover := j.recover
	j.mu.Unlock()
	switch {
	case d != DecideSource && d != DecideDestination:
		return v, fmt.Errorf("decision %q: it is %q or %q: %w", d, DecideSource, DecideDestination, ErrInvalid)
	case v.State != JobInDoubt || recover == nil:
		return v, fmt.Errorf("job %s is %s, not in doubt: %w", id, v.State, ErrBusy)
	}
	if err := recover(d); err != nil {
		return j.snapshot(), err
	}
	return j.snapshot(), nil
}

// decide hands an operator's decision to the move, which waits in its commit.
func (m *sourceMove) decide(d Decision) error {
	select {
	case m.decisions <- d:
		return nil
	default:
		return fmt.Errorf("another decision is being carried out: %w", ErrBusy)
	}
}

// decide carries out an operator's decision at the destination.
func (m *sinkMove) decide(d Decision) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx, cancel := context.WithTimeout(m.g.ctx, cleanupTime)
	defer cancel()
	if d == DecideDestination {
		if a := m.obey(ctx); a.Type != msgRunning {
			return fmt.Errorf("it does not run here: %s: %w", a.Reason, ErrUnavailable)
		}
		return nil
	}
	if a := m.abandon(ctx, errOperator); a.Type != msgAborted {
		return fmt.Errorf("it is not ended here: %s: %w", a.Reason, ErrUnavailable)
	}
	return nil
}

// abortAll ends the moves that have not come to their commit, and returns them.
func (g *Gateway) abortAll(why error) (ending []*job) {
	g.jobs.mu.Lock()
	defer g.jobs.mu.Unlock()
	for _, j := range g.jobs.byID {
		if j.stop(why) {
			ending = append(ending, j)
		}
	}
	return ending
}
