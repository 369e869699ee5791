package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// linkTests are the tests that an operator has asked for here: the newest for
// each site.
type linkTests struct {
	idle, load time.Duration // zero means testIdle and testLoad; tests are in a hurry

	mu     sync.Mutex // guards bySite
	bySite map[string]*linkTest
}

// A linkTest is one that runs or has ended.
type linkTest struct {
	cancel context.CancelCauseFunc
	view   LinkTest // linkTests.mu guards it
}

var errTestStopped = errors.New("stopped by an operator")

// StartLinkTest begins a test of the link to a site, which takes less than 15 s
// and outlives ctx. ErrNoSite; ErrUnavailable: the link is down; ErrBusy: a test
// of it is running.
func (g *Gateway) StartLinkTest(_ context.Context, site string) (LinkTest, error) {
	link := g.node.Link(site)
	if link == nil {
		return LinkTest{}, fmt.Errorf("testing a link: %w", g.noSite(site))
	}
	if s := link.State(); !s.Up {
		return LinkTest{}, fmt.Errorf("testing the link to %s: it is down: %s: %w", site, s.Why, ErrUnavailable)
	}
	if g.served.serves(site) {
		return LinkTest{}, fmt.Errorf("testing the link to %s: %w: that site is testing it", site, ErrBusy)
	}
	t := &g.tests
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.bySite[site]; old != nil && old.view.State == LinkTestRunning {
		return LinkTest{}, fmt.Errorf("testing the link to %s: %w: a test is running", site, ErrBusy)
	}
	if t.bySite == nil {
		t.bySite = make(map[string]*linkTest)
	}
	ctx, cancel := context.WithCancelCause(g.ctx)
	test := &linkTest{cancel: cancel, view: LinkTest{
		Site: site, State: LinkTestRunning, Phase: "starting", Started: time.Now().UTC(), Moves: g.jobs.running(), Idle4G: -1, Raw4G: -1,
	}}
	t.bySite[site] = test
	p := &prober{link: link, idle: testIdle, load: testLoad, now: test.view, tell: func(v LinkTest) { t.set(test, v) }}
	if t.load > 0 {
		p.idle, p.load = t.idle, t.load
	}
	g.wg.Go(func() {
		defer cancel(nil)
		g.runTest(ctx, p, test)
	})
	return test.view, nil
}

// runTest runs a test to its end.
func (g *Gateway) runTest(ctx context.Context, p *prober, test *linkTest) {
	v, err := p.run(ctx)
	v.State = LinkTestDone
	if err != nil && g.ctx.Err() != nil {
		err = errStopping
	}
	if err != nil {
		v.State, v.Phase, v.Error, v.Verdict = LinkTestFailed, "ended", err.Error(), ""
	}
	v.Moves = max(v.Moves, g.jobs.running())
	g.tests.set(test, v)
	if err != nil {
		g.log.Info("link test failed", "peer", v.Site, "err", err)
		return
	}
	g.log.Info("link test", "peer", v.Site, "there", v.There.Steady, "back", v.Back.Steady)
}

// goesFirst tells whether a test of ours makes the one of the other site wait. Two tests
// at once would each measure what the other leaves. Of two that begin together, when
// neither knows of the other, that of the lower name goes on.
func (g *Gateway) goesFirst(site string) bool {
	g.tests.mu.Lock()
	defer g.tests.mu.Unlock()
	test := g.tests.bySite[site]
	return test != nil && test.view.State == LinkTestRunning && (g.cfg.Site < site || time.Since(test.view.Started) > testIdle)
}

func (t *linkTests) set(test *linkTest, v LinkTest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	test.view = v
}

// LinkTest is the newest test of the link to a site. ErrNotFound: there was none.
func (g *Gateway) LinkTest(_ context.Context, site string) (LinkTest, error) {
	g.tests.mu.Lock()
	defer g.tests.mu.Unlock()
	test := g.tests.bySite[site]
	if test == nil {
		return LinkTest{}, fmt.Errorf("test of the link to %q: %w", site, ErrNotFound)
	}
	return test.view, nil
}

// StopLinkTest ends the running test of the link to a site; one that has ended
// stays as it is. ErrNotFound: there was none.
func (g *Gateway) StopLinkTest(_ context.Context, site string) error {
	g.tests.mu.Lock()
	defer g.tests.mu.Unlock()
	test := g.tests.bySite[site]
	if test == nil {
		return fmt.Errorf("test of the link to %q: %w", site, ErrNotFound)
	}
	test.cancel(errTestStopped)
	return nil
}
