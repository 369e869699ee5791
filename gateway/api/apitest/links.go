package apitest

import (
	"context"
	"fmt"

	"github.com/longhaul-project/longhaul/gateway"
)

// StartLinkTest begins a test of the link to b. It advances by half each time
// that somebody asks how it stands.
func (f *Fake) StartLinkTest(ctx context.Context, site string) (gateway.LinkTest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.fail != nil:
		return gateway.LinkTest{}, f.fail
	case site != "b":
		return gateway.LinkTest{}, fmt.Errorf("testing the link to %q: %w", site, gateway.ErrNoSite)
	case f.test != nil && f.test.State == gateway.LinkTestRunning:
		return gateway.LinkTest{}, fmt.Errorf("testing the link to %s: %w: a test is running", site, gateway.ErrBusy)
	}
	f.test = &gateway.LinkTest{Site: "b", State: gateway.LinkTestRunning, Phase: "starting", Started: Epoch(), Idle4G: -1, Raw4G: -1}
	return *f.test, nil
}

// LinkTest tells how it stands.
func (f *Fake) LinkTest(ctx context.Context, site string) (gateway.LinkTest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return gateway.LinkTest{}, f.fail
	}
	if site != "b" || f.test == nil {
		return gateway.LinkTest{}, fmt.Errorf("test of the link to %q: %w", site, gateway.ErrNotFound)
	}
	t := f.test
	switch {
	case t.State != gateway.LinkTestRunning:
	case t.Progress < 0.5:
		t.Phase, t.Progress = "the way there", 0.5
	default:
		t.State, t.Phase, t.Progress = gateway.LinkTestDone, "ended", 1
		t.Address, t.Carrier, t.Controller, t.Conns, t.Rate = "192.0.2.2:7447", "quic", "newreno", 6, 200e6
		t.MTU, t.RTT, t.RTTMin = 1480, 60.2, 60
		t.There = &gateway.LinkWay{Goodput: 171e6, Steady: 186e6, T90: 0.4, RTT: 61.5, RTTP99: 70, Sent: 80000, Lost: 40}
		t.Back = &gateway.LinkWay{Goodput: 150e6, Steady: 180e6, T90: -1, RTT: 62, RTTP99: 88, Sent: 78000, Lost: -1}
		t.Idle4G, t.Raw4G, t.Verdict = 48, 184, "this line carries an idle 4 GiB VM in about 48 s"
	}
	return *t, nil
}

// StopLinkTest ends the test.
func (f *Fake) StopLinkTest(ctx context.Context, site string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	if site != "b" || f.test == nil {
		return fmt.Errorf("test of the link to %q: %w", site, gateway.ErrNotFound)
	}
	if f.test.State == gateway.LinkTestRunning {
		f.test.State, f.test.Phase, f.test.Error = gateway.LinkTestFailed, "ended", "stopped by an operator"
	}
	f.happen("stop")
	return nil
}
