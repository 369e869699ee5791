package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/cmd/longhaul/demo"
	"github.com/longhaul-project/longhaul/internal/conffile"
)

const demoLong = `Sets two sites and a WAN between them up on this machine, in network namespaces,
starts a real VM at one of them, and moves it while a third host pings it and
holds a TCP session to it. Then it does the same move by plain QEMU over TCP on
the same WAN, and shows both side by side.

It needs root, qemu-system-x86_64 and a few minutes. All that it set up is
removed at the end, also after Ctrl-C or a crash. With --keep the gateways and the
VM stay up after the summary, until Ctrl-C; plain QEMU's move comes first then.`

const demoExample = `  longhaul demo
  longhaul demo --link rate=50Mbit,rtt=120ms,loss=0.1% --no-plain
  longhaul demo --moves 20 --no-plain --json`

func (a *app) demoCmd() *cobra.Command {
	o := demo.Options{Link: lab.DefaultLink()}
	memory := conffile.Size(256 << 20)
	var noPlain bool
	c := &cobra.Command{
		Use:     "demo",
		Short:   "Two sites, a WAN and a real VM on this machine, and a move",
		Long:    demoLong,
		Example: demoExample,
		GroupID: "setup",
		Args:    exactly(),
	}
	flags := c.Flags()
	flags.Var(&o.Link, "link", "the WAN")
	flags.Var(&memory, "memory", "memory of the VM")
	flags.IntVar(&o.Moves, "moves", 1, "`number` of moves, back and forth")
	flags.BoolVar(&noPlain, "no-plain", false, "leave out the move by plain QEMU")
	flags.IntVar(&o.Dirty, "dirty", demo.DefaultDirty, "`pages` that the VM rewrites each second while it moves")
	flags.StringVar(&o.TCP, "tcp", "cubic", "congestion `control` of the move by plain QEMU, such as bbr")
	flags.BoolVar(&o.Keep, "keep", false, "leave the lab up at the end, until Ctrl-C, and say how to look into it")
	c.RunE = a.do(func(ctx context.Context, c *cobra.Command, _ []string) error {
		if err := checkDemo(o, memory); err != nil {
			return &usageError{err, c.CommandPath()}
		}
		if a.demo == nil {
			return errors.New("the demo is not part of this build")
		}
		o.Memory, o.Plain, o.JSON = int64(memory), !noPlain, a.json
		o.Stdout, o.Stderr = a.stdout, a.stderr
		d := a.newDisplay("")
		o.Show, o.Done = d.update, d.clear
		return a.demo(ctx, o)
	})
	return c
}

// checkDemo refuses what would fail after everything has been set up.
func checkDemo(o demo.Options, memory conffile.Size) error {
	switch {
	case o.Moves < 1:
		return errors.New("--moves: at least 1")
	case o.Dirty < 1:
		return errors.New("--dirty: at least 1")
	case memory < demo.MinMemory:
		return fmt.Errorf("--memory: at least %v", conffile.Size(demo.MinMemory))
	}
	return nil
}
