package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/gateway"
)

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong, or soon will be",
		Long: `Has the gateway look at itself, its machine and its links: kernel, rights and
ports, certificate, hosts, the other sites and their clocks, room on the disk of the
content stores, whether full frames pass end to end on each segment, loops, duplicate
MACs and storms.

What failed comes first. The exit code is 1 when something has failed, 0 when there
is nothing or only a warning.`,
		Example: `  longhaul doctor
  longhaul doctor --json | jq '.checks[] | select(.state != "ok")'`,
		GroupID: "use",
		Args:    exactly(),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			c, err := a.gateway().Doctor(ctx)
			if err != nil {
				return err
			}
			if err := a.show(c, func(w io.Writer) error { return writeCheckup(w, c) }); err != nil {
				return err
			}
			if !c.OK {
				return errShown
			}
			return nil
		}),
	}
}

func writeCheckup(w io.Writer, c gateway.Checkup) error {
	t := newTable(w, "STATE", "CHECK", "OF", "FOUND")
	counts := make(map[gateway.CheckState]int)
	for _, k := range c.Checks {
		t.row(k.State, k.Name, or(k.Subject, "-"), k.Detail)
		counts[k.State]++
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d failed, %d warnings, %d ok\n", counts[gateway.CheckFail], counts[gateway.CheckWarn], counts[gateway.CheckOK])
	return err
}
