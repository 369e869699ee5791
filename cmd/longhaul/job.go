package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api"
	"github.com/longhaul-project/longhaul/internal/conffile"
)

func (a *app) jobCmd() *cobra.Command {
	job := &cobra.Command{
		Use:   "job",
		Short: "Moves that run or have run",
		Example: `  longhaul job list
  longhaul job watch m-894809c4`,
		GroupID: "use",
		RunE:    group,
	}
	job.AddCommand(a.jobListCmd(), a.jobShowCmd(), a.jobWatchCmd(), a.jobAbortCmd(), a.jobSetRateCmd(), a.jobRecoverCmd())
	return job
}

func (a *app) jobListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the jobs that this gateway knows, the newest last",
		Example: `  longhaul job list
  longhaul job list --json | jq '.[] | select(.state == "in-doubt")'`,
		Args: exactly(),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			jobs, err := a.gateway().Jobs(ctx)
			if err != nil {
				return err
			}
			return a.show(jobs, func(w io.Writer) error { return writeJobs(w, jobs) })
		}),
	}
}

func writeJobs(w io.Writer, jobs []gateway.Job) error {
	t := newTable(w, "JOB", "VM", "FROM", "TO", "STATE", "STARTED", "ROUNDS", "CROSSED", "WIRE", "REDUCTION", "RATE")
	for _, j := range jobs {
		p := j.Progress
		t.row(j.ID, j.VM, j.From, j.To, j.State, moment(j.Started), p.Rounds,
			size(p.LogicalBytes), size(p.WireBytes), times(p.Reduction), rate(p.Rate))
	}
	return t.flush()
}

// jobCmdFor is a command that does one thing to one job and shows the job.
func (a *app) jobCmdFor(c *cobra.Command, f func(ctx context.Context, c *cobra.Command, id string, args []string) (gateway.Job, error)) *cobra.Command {
	c.ValidArgsFunction = a.completeFirst(a.jobIDs)
	c.RunE = a.do(func(ctx context.Context, c *cobra.Command, args []string) error {
		job, err := f(ctx, c, args[0], args[1:])
		if err != nil {
			return err
		}
		return a.show(job, func(w io.Writer) error { return writeJob(w, job) })
	})
	return c
}

func (a *app) jobShowCmd() *cobra.Command {
	return a.jobCmdFor(&cobra.Command{
		Use:   "show JOB",
		Short: "Show a job, and in doubt what is safe",
		Example: `  longhaul job show m-894809c4
  longhaul job show m-894809c4 --json | jq .report`,
		Args: exactly("JOB"),
	}, func(ctx context.Context, _ *cobra.Command, id string, _ []string) (gateway.Job, error) {
		return a.gateway().Job(ctx, id)
	})
}

func writeJob(w io.Writer, j gateway.Job) error {
	p := j.Progress
	t := newTable(w)
	t.row("job", j.ID)
	t.row("vm", fmt.Sprintf("%s, %s -> %s (this site is the %s)", j.VM, j.From, j.To, j.Role))
	t.row("state", doing(j))
	t.row("started", moment(j.Started))
	if j.Ended != nil {
		t.row("ended", fmt.Sprintf("%s, after %s", moment(*j.Ended), span(j.Ended.Sub(j.Started))))
	}
	if j.Error != "" {
		t.row("error", j.Error)
	}
	if j.Safe != "" {
		t.row("safe", j.Safe)
	}
	if p.Stalled != "" {
		t.row("stalled", p.Stalled)
	}
	t.row("memory", fmt.Sprintf("%s, %s to go, round %d", size(p.TotalBytes), size(p.Remaining), p.Rounds))
	t.row("dirtied", rate(p.DirtyRate)+throttled(p))
	t.row("crossed", fmt.Sprintf("%s as %s on the wire, %s", size(p.LogicalBytes), size(p.WireBytes), times(p.Reduction)))
	t.row("rate", fmt.Sprintf("%s, cap %s", rate(p.Rate), limit(p.RateCap)))
	t.row("backlog", fmt.Sprintf("%s of at most %s", size(p.Backlog), size(p.BacklogMax)))
	if p.Sealed != "" {
		t.row("pages", sealed(p.Sealed))
	}
	if p.Codec != "" && !j.State.Ended() {
		t.row("codec", codec(p))
	}
	if !j.State.Ended() {
		t.row("switch", fmt.Sprintf("%s, downtime %s", eta(p), forecast(p)))
	}
	if r := j.Report; r != nil {
		t.row("took", fmt.Sprintf("%s, downtime %s", millis(r.Total), stood(r.Downtime)))
		if n := r.Network; n != nil {
			t.row("network", silence(n))
		}
		t.row("pages", fmt.Sprintf("%d: %d zero, %d known, %d changed", r.Pages, r.ZeroPages, r.Refs, r.Deltas))
		t.row("digest", r.Digest)
		codecRows(t, r.Codecs)
	} else {
		codecRows(t, p.Codecs)
	}
	return t.flush()
}

// codecRows show how what has crossed was compressed.
func codecRows(t *table, all []gateway.CodecReport) {
	for _, c := range all {
		t.row("codec", fmt.Sprintf("%s: %s as %s on the wire, %s of CPU time", c.Codec, size(c.LogicalBytes), size(c.WireBytes), millis(c.CPU)))
	}
}

func (a *app) jobAbortCmd() *cobra.Command {
	return a.jobCmdFor(&cobra.Command{
		Use:   "abort JOB",
		Short: "End a move; the VM goes on at its source",
		Long: `Asks a move to end. The VM goes on at its source. Past the switchover it is too
late (exit code 5): then wait for the outcome, or move the VM back.`,
		Example: "  longhaul job abort m-894809c4",
		Args:    exactly("JOB"),
	}, func(ctx context.Context, _ *cobra.Command, id string, _ []string) (gateway.Job, error) {
		return a.gateway().AbortJob(ctx, id)
	})
}

func (a *app) jobSetRateCmd() *cobra.Command {
	return a.jobCmdFor(&cobra.Command{
		Use:   "set-rate JOB RATE",
		Short: "Cap a move while it runs",
		Long: `Caps what a move may send on the WAN, in bits per second with all headers. 0
lifts the cap. The cap of the link holds beside it.`,
		Example: `  longhaul job set-rate m-894809c4 50Mbit
  longhaul job set-rate m-894809c4 0`,
		Args: exactly("JOB", "RATE"),
	}, func(ctx context.Context, c *cobra.Command, id string, args []string) (gateway.Job, error) {
		var r conffile.Rate
		if err := r.Set(args[0]); err != nil {
			return gateway.Job{}, &usageError{fmt.Errorf("RATE: %w", err), c.CommandPath()}
		}
		return a.gateway().SetJobRate(ctx, id, int64(r))
	})
}

func (a *app) jobRecoverCmd() *cobra.Command {
	var run string
	c := a.jobCmdFor(&cobra.Command{
		Use:   "recover JOB --run source|destination",
		Short: "End a job in doubt: say where the VM shall run",
		Long: `Ends a job in doubt by saying where the VM shall run. The copy at the other side
is ended. A job is in doubt when the sites lost each other in the moment of the
switchover; both copies are paused then.

First look: "longhaul job show" at both sites says which side is safe and why.
Letting both run damages the VM's disks.`,
		Example: `  longhaul job show m-894809c4
  longhaul job recover m-894809c4 --run destination`,
		Args: exactly("JOB"),
	}, func(ctx context.Context, c *cobra.Command, id string, _ []string) (gateway.Job, error) {
		if err := require(c, "run"); err != nil {
			return gateway.Job{}, err
		}
		if run != api.RecoverSource && run != api.RecoverDestination {
			return gateway.Job{}, &usageError{fmt.Errorf("--run %q: want source or destination", run), c.CommandPath()}
		}
		return a.gateway().RecoverJob(ctx, id, run)
	})
	c.Flags().StringVar(&run, "run", "", "`side` at which the VM shall run: source or destination")
	choices(c, "run", api.RecoverSource, api.RecoverDestination)
	return c
}

func (a *app) jobWatchCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "watch JOB",
		Short: "Follow a job until it ends",
		Long: `Follows a job until it ends or falls in doubt. On a terminal it is one block
that is drawn again; elsewhere a line for each change. With --json every change
is one line of JSON on stdout.

Ctrl-C stops watching; the job goes on.`,
		Example: `  longhaul job watch m-894809c4
  longhaul job watch m-894809c4 --json | jq .job.progress.rate_bps`,
		Args:              exactly("JOB"),
		ValidArgsFunction: a.completeFirst(a.jobIDs),
		RunE: func(c *cobra.Command, args []string) error {
			return a.watchJob(c.Context(), args[0])
		},
	}
}

func (a *app) watchJob(ctx context.Context, id string) error {
	gw := a.gateway()
	defer gw.Close()
	d := a.newDisplay("Ctrl-C stops watching; the job goes on")
	each := d.update
	var broken error // of stdout
	if a.json {
		enc := json.NewEncoder(a.stdout)
		enc.SetEscapeHTML(false)
		each = func(ev gateway.JobEvent) { broken = errors.Join(broken, enc.Encode(ev)) }
	}
	w := &watch{client: gw, id: id, signals: a.signals, each: each, note: d.note,
		signal: func(int, os.Signal) error {
			return fmt.Errorf("%w: %s goes on", errInterrupted, id)
		}}
	last, err := w.run(ctx)
	if !a.json {
		d.end()
	}
	if err = errors.Join(err, broken); err != nil {
		return err
	}
	if err := outcome(last); err != nil || a.json {
		return err
	}
	return writeReport(a.stdout, last)
}
