package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
)

const (
	// outage of the WAN that a move must survive.
	outage = 60 * time.Second

	// goesBackAfter is longer than a VM may stand still at its switchover
	// while the WAN is away (gateway, switchPatience), with time to go back.
	goesBackAfter = 40 * time.Second
)

// outageLine is the WAN of TestOutage.
func outageLine() lab.Link { return lab.Link{Rate: 50e6, RTT: 40 * time.Millisecond, Loss: 0.0005} }

// TestOutage cuts the WAN while memory crosses: the move waits, and goes on
// where it was. Then it cuts the WAN while the VM stands still: the VM goes on
// at its source, and the next move works.
func TestOutage(t *testing.T) {
	t.Parallel() // it waits most of its time
	b := newBed(t, bedOptions{link: outageLine()})
	p := b.probe(t)
	t.Run("moving", func(t *testing.T) { b.outageWhileMoving(t, p) })
	if !t.Failed() {
		t.Run("switching", func(t *testing.T) { b.outageWhileSwitching(t, p) })
	}
}

func (b *bed) outageWhileMoving(t *testing.T, p probes) {
	from, to := b.at, b.other()
	id := b.until(t, phase{"round 1", func(src, _ gateway.Job) bool {
		return src.State == gateway.JobMoving && src.Progress.LogicalBytes > 8<<20
	}})
	if err := b.lab.Cut(); err != nil {
		t.Fatal(err)
	}
	over := time.After(outage)
	b.stalls(t, from, id)
	<-over
	j, err := b.pair.API(from).Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if j.State != gateway.JobMoving {
		t.Fatalf("after %v without the WAN the move is %s: %s", outage, j.State, j.Error)
	}
	healed := time.Now()
	if err := b.lab.Heal(); err != nil {
		t.Fatal(err)
	}
	b.settled(t, id)
	b.executesAt(t, to)
	b.agreed(t, id, from, to)
	b.at = to
	took := time.Since(healed)
	p.alive(t)
	b.verify(t)
	t.Logf("the move ended %v after the WAN was healed; session %v without a record", took.Round(time.Millisecond), p.session.Report().Longest.For)
}

// stalls waits until the job says that the WAN is away.
func (b *bed) stalls(t *testing.T, s *lab.Site, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), outage)
	defer cancel()
	poll(t, ctx, func() error {
		j, err := b.pair.API(s).Job(ctx, id)
		if err == nil && !strings.Contains(j.Progress.Stalled, "WAN is away") {
			err = fmt.Errorf("the job does not say that the WAN is away: %q", j.Progress.Stalled)
		}
		return err
	})
}

func (b *bed) outageWhileSwitching(t *testing.T, p probes) {
	b.move(t, gateway.MigrateRequest{}) // home, where the client is
	from := b.at
	// The VM stands still for two round trips at least. On a busy machine the news
	// of that come later than 80 ms, and the cut would be too late.
	far := outageLine()
	far.RTT = 500 * time.Millisecond
	if err := b.lab.SetLink(far); err != nil {
		t.Fatal(err)
	}
	id := b.until(t, phase{"the switchover", func(src, _ gateway.Job) bool { return src.State == gateway.JobSwitching }})
	if err := b.lab.Cut(); err != nil {
		t.Fatal(err)
	}
	cut := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), goesBackAfter)
	defer cancel()
	poll(t, ctx, func() error {
		vms, err := b.pair.API(from).VMs(ctx)
		if err != nil {
			return err
		}
		for _, v := range vms {
			if v.Name == vmName && v.State == gateway.Running {
				return nil
			}
		}
		return errors.New("the VM does not go on at its source")
	})
	t.Logf("the VM went on at its source %v after the WAN was cut", time.Since(cut).Round(time.Millisecond))
	p.alive(t)
	if err := errors.Join(b.lab.SetLink(outageLine()), b.lab.Heal()); err != nil {
		t.Fatal(err)
	}
	b.settled(t, id)
	b.agreed(t, id, from, from)
	b.executesAt(t, from)
	b.move(t, gateway.MigrateRequest{})
	p.alive(t)
	b.verify(t)
}
