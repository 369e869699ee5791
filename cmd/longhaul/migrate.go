package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api/client"
	"github.com/longhaul-project/longhaul/internal/conffile"
)

const migrateLong = `Moves a running VM to another site and waits until it runs there.

Whatever goes wrong before the switchover, the VM goes on running here. The move
belongs to the gateway: it goes on when this command, or the ssh session around
it, ends. "longhaul job watch" shows it again.

Ctrl-C aborts the move as long as that is possible, and says what became of it.
Ctrl-C a second time leaves at once. A SIGTERM leaves without aborting.`

const migrateExample = `  longhaul migrate db1 --to b
  longhaul migrate db1 --to b --rate 200Mbit --downtime 500ms
  longhaul migrate db1 --to b --detach --json | jq -r .id`

func (a *app) migrateCmd() *cobra.Command {
	var r gateway.MigrateRequest
	var cap conffile.Rate
	downtime := conffile.Duration(300 * time.Millisecond) // QEMU's own default
	var deadline conffile.Duration
	var detach bool
	c := &cobra.Command{
		Use:               "migrate VM --to SITE",
		Short:             "Move a VM to another site",
		Long:              migrateLong,
		Example:           migrateExample,
		GroupID:           "use",
		Args:              exactly("VM"),
		ValidArgsFunction: a.completeFirst(a.vmNames),
	}
	flags := c.Flags()
	flags.StringVar(&r.To, "to", "", "`site` to move it to")
	flags.StringVar(&r.ToHost, "to-host", "", "`host` at that site; the site chooses if not given")
	flags.Var(&cap, "rate", "cap of this move, such as 200Mbit; none if not given")
	flags.Var(&downtime, "downtime", "downtime to aim for")
	flags.Var(&deadline, "deadline", "`time` to be done in; dearer WAN paths are used if need be; 0s for none")
	flags.IntVar(&r.Channels, "channels", 0, "multifd connections of the hypervisor; 0 for none")
	flags.StringVar(&r.Tenant, "tenant", "", "`tenant` whose VM it is, where its host has none")
	flags.BoolVar(&r.Throttle, "throttle", false, "slow the guest's CPUs down if it would not converge")
	flags.BoolVar(&detach, "detach", false, "do not wait")
	_ = c.RegisterFlagCompletionFunc("to", a.siteNames) // fails for unknown flags only
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := require(c, "to"); err != nil {
			return err
		}
		r.VM, r.Rate, r.Downtime = args[0], int64(cap), time.Duration(downtime).Milliseconds()
		r.Deadline = int64(math.Ceil(deadline.Std().Seconds()))
		return a.migrate(c.Context(), r, detach)
	}
	return c
}

// migrate starts the move. It does not run under do: a signal has to reach
// the move, not this command.
func (a *app) migrate(ctx context.Context, r gateway.MigrateRequest, detach bool) error {
	gw := a.gateway()
	defer gw.Close()
	job, err := gw.Migrate(ctx, r)
	if err != nil {
		return err
	}
	if detach {
		return a.show(job, func(w io.Writer) error {
			a.say("moving %s to %s; longhaul job watch %s", job.VM, job.To, job.ID)
			_, err := fmt.Fprintln(w, job.ID)
			return err
		})
	}
	d := a.newDisplay("Ctrl-C aborts the move; the VM stays at " + job.From)
	ab := &aborter{client: gw, job: job, note: d.note}
	w := &watch{client: gw, id: job.ID, signals: a.signals, each: d.update, note: d.note, signal: ab.signal}
	last, err := w.run(ctx)
	d.end()
	if last.ID == "" {
		last = job
	}
	if err == nil {
		err = outcome(last)
	}
	if err != nil && ab.asked && !errors.Is(err, errInterrupted) {
		err = fmt.Errorf("%w: %w", errInterrupted, err)
	}
	return errors.Join(err, a.show(last, func(w io.Writer) error {
		if last.State != gateway.JobDone {
			return nil // the error says it all
		}
		return writeReport(w, last)
	}))
}

// An aborter ends a move when the operator presses Ctrl-C.
type aborter struct {
	client *client.Client
	job    gateway.Job
	note   func(format string, args ...any)
	asked  bool
}

// abortTimeout bounds the wait for a gateway that does not answer.
const abortTimeout = 10 * time.Second

func (b *aborter) signal(n int, s os.Signal) error {
	if n > 1 || s != os.Interrupt {
		return fmt.Errorf("%w: %s goes on at the gateway; longhaul job watch %s", errInterrupted, b.job.ID, b.job.ID)
	}
	b.asked = true
	b.note("aborting %s; %s stays at %s (Ctrl-C again leaves at once)", b.job.ID, b.job.VM, b.job.From)
	ctx, cancel := context.WithTimeout(context.Background(), abortTimeout)
	defer cancel()
	_, err := b.client.AbortJob(ctx, b.job.ID)
	if errors.Is(err, gateway.ErrBusy) {
		b.note("too late to abort: %v; waiting for the outcome", err)
	} else if err != nil {
		b.note("aborting: %v; the move may go on (longhaul job abort %s)", err, b.job.ID)
	}
	return nil
}

// writeReport says what a finished move took.
func writeReport(w io.Writer, j gateway.Job) error {
	fmt.Fprintf(w, "%s runs at %s\n", clean(j.VM), clean(j.To))
	r := j.Report
	if r == nil {
		return nil
	}
	t := newTable(w)
	t.row("  downtime", stood(r.Downtime))
	if r.Network != nil {
		t.row("  network", silence(r.Network))
	}
	t.row("  total", fmt.Sprintf("%s, %d rounds", millis(r.Total), r.Rounds))
	t.row("  crossed", fmt.Sprintf("%s as %s on the wire, %s", size(r.LogicalBytes), size(r.WireBytes), times(r.Reduction)))
	t.row("  pages", fmt.Sprintf("%d: %d zero, %d known, %d changed", r.Pages, r.ZeroPages, r.Refs, r.Deltas))
	t.row("  digest", r.Digest)
	return t.flush()
}

// silence says what the network saw of a switchover.
func silence(n *gateway.Silence) string {
	gap := "the VM was not heard on both sides"
	if n.Gap >= 0 {
		gap = "silent for " + millis(n.Gap)
	}
	return fmt.Sprintf("%s; %d frames waited for it, %d were lost", gap, n.Held, n.Lost)
}
