package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/gateway"
)

func (a *app) linkCmd() *cobra.Command {
	link := &cobra.Command{
		Use:     "link",
		Short:   "The links to other sites",
		Example: "  longhaul link test --to b",
		GroupID: "use",
		RunE:    group,
	}
	link.AddCommand(a.linkTestCmd())
	return link
}

func (a *app) linkTestCmd() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:   "test --to SITE",
		Short: "Measure what the link to a site carries",
		Long: `Measures what the link to a site carries, between the two gateways and over the
connections that moves use: round trips without and under load, loss, the size of
packets, and goodput there and then back from a cold start. It takes less than
15 seconds and sends as much as the link carries; the caps of the config hold.
Moves that run come first, and what they use is missing in the figures.

GOODPUT is over the whole time, STEADY over its second half; LOST are packets that
were taken for lost and sent again.`,
		Example: `  longhaul link test --to b
  longhaul link test --to b --json | jq .there.steady_bps`,
		Args: exactly(),
	}
	c.Flags().StringVar(&to, "to", "", "`site` at the other end")
	_ = c.RegisterFlagCompletionFunc("to", a.siteNames) // fails for unknown flags only
	c.RunE = a.do(func(ctx context.Context, c *cobra.Command, _ []string) error {
		if err := require(c, "to"); err != nil {
			return err
		}
		t, err := a.testLink(ctx, to)
		if err != nil {
			return err
		}
		if t.State == gateway.LinkTestFailed {
			return fmt.Errorf("testing the link to %s: %s", t.Site, t.Error)
		}
		return a.show(t, func(w io.Writer) error { return writeLinkTest(w, t) })
	})
	return c
}

const (
	// askEvery is how often the gateway is asked how a test stands.
	askEvery = 250 * time.Millisecond
	// stopWithin is how long an interrupted command tries to end the test, which
	// would end by itself within seconds.
	stopWithin = 2 * time.Second
)

// testLink runs a test to its end, and shows on stderr how far it is.
func (a *app) testLink(ctx context.Context, to string) (t gateway.LinkTest, err error) {
	g := a.gateway()
	if t, err = g.StartLinkTest(ctx, to); err != nil {
		return t, err
	}
	a.say("testing the link to %s; this takes about 12 seconds", to)
	if t.Moves > 0 {
		a.say("%d moves are running: they come first, and the figures are of what they leave", t.Moves)
	}
	defer func() {
		if ctx.Err() != nil {
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
			defer cancel()
			_ = g.StopLinkTest(late, to) // it ends by itself as well
		}
	}()
	for phase := ""; t.State == gateway.LinkTestRunning; {
		select {
		case <-ctx.Done():
			return t, ctx.Err()
		case <-time.After(askEvery):
		}
		if t, err = g.LinkTest(ctx, to); err != nil {
			return t, err
		}
		if t.Phase != phase && t.State == gateway.LinkTestRunning {
			phase = t.Phase
			a.say("%3.0f %%  %s", 100*t.Progress, clean(phase))
		}
	}
	return t, nil
}

func writeLinkTest(w io.Writer, t gateway.LinkTest) error {
	head := newTable(w)
	head.row("peer", fmt.Sprintf("%s at %s", t.Site, t.Address))
	head.row("carried by", fmt.Sprintf("%s, %s, %d connections, cap %s", t.Carrier, t.Controller, t.Conns, limit(t.Rate)))
	head.row("packets", fmt.Sprintf("up to %d bytes", t.MTU))
	head.row("round trip", fmt.Sprintf("%s ms idle, %s ms at the least", short(t.RTT), short(t.RTTMin)))
	if err := head.flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	ways := newTable(w, "WAY", "GOODPUT", "STEADY", "90 % AFTER", "RTT LOADED", "RTT 99 %", "LOST")
	for _, way := range []struct {
		name string
		*gateway.LinkWay
	}{{"to " + t.Site, t.There}, {"from " + t.Site, t.Back}} {
		if way.LinkWay == nil {
			continue
		}
		ways.row(way.name, rate(way.Goodput), rate(way.Steady), after(way.T90), short(way.RTT)+" ms", short(way.RTTP99)+" ms", lost(*way.LinkWay))
	}
	if err := ways.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", clean(t.Verdict))
	return err
}

// after is a time of seconds, or a dash when it never came.
func after(seconds float64) string {
	if seconds < 0 {
		return "-"
	}
	return short(seconds) + " s"
}

func lost(w gateway.LinkWay) string {
	share := w.LossShare()
	if share < 0 {
		return "unknown"
	}
	return short(100*share) + " %"
}
