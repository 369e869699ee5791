package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/gateway"
)

// removed is the document of what has been removed.
type removed struct {
	Removed string `json:"removed"`
}

func (a *app) showRemoved(name string) error {
	return a.show(removed{name}, func(io.Writer) error { a.say("removed %s", name); return nil })
}

func (a *app) forwardCmd() *cobra.Command {
	forward := &cobra.Command{
		Use:   "forward",
		Short: "Local ports that come out at another site",
		Long: `A forward is a local port, or unix socket, that comes out at an address of the
other site. What is a QEMU migration is recognised and reduced; anything else
passes as it is. virsh, "migrate tcp:" in QEMU's monitor and other tools go through it.

The other site's config says which of its addresses may be reached (forward_allow).`,
		Example: `  longhaul forward add mig --listen tcp:127.0.0.1:49300 --to b --target tcp:127.0.0.1:49300
  longhaul forward list`,
		GroupID: "use",
		RunE:    group,
	}
	forward.AddCommand(a.forwardAddCmd(), &cobra.Command{
		Use:     "list",
		Short:   "List the forwards of this gateway",
		Example: "  longhaul forward list",
		Args:    exactly(),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			all, err := a.gateway().Forwards(ctx)
			if err != nil {
				return err
			}
			return a.show(all, func(w io.Writer) error { return writeForwards(w, all) })
		}),
	}, &cobra.Command{
		Use:               "remove NAME",
		Short:             "Remove a forward; its open connections end",
		Example:           "  longhaul forward remove mig",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeFirst(a.forwardNames),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
			if err := a.gateway().RemoveForward(ctx, args[0]); err != nil {
				return err
			}
			return a.showRemoved(args[0])
		}),
	})
	return forward
}

func (a *app) forwardAddCmd() *cobra.Command {
	var f gateway.Forward
	c := &cobra.Command{
		Use:   "add NAME --listen ADDRESS --to SITE --target ADDRESS",
		Short: "Add a forward",
		Long: `Adds a forward. Addresses are tcp:HOST:PORT or unix:/path. It lasts until it is
removed or the gateway restarts; one that shall stay goes into the config file.`,
		Example: `  longhaul forward add mig --listen tcp:127.0.0.1:49300 --to b --target tcp:127.0.0.1:49300
  longhaul forward add ram --listen unix:/run/longhaul/forward/ram.sock --to b \
      --target unix:/run/longhaul/forward/ram.sock`,
		Args: exactly("NAME"),
	}
	flags := c.Flags()
	flags.StringVar(&f.Listen, "listen", "", "`address` to listen on here")
	flags.StringVar(&f.To, "to", "", "`site` at which it comes out")
	flags.StringVar(&f.Target, "target", "", "`address` to connect to there")
	flags.StringVar(&f.Kind, "kind", "auto", "what comes through: auto, migration or tcp")
	flags.StringVar(&f.Tenant, "tenant", "", "`tenant` whose VMs come through; nobody's if not given")
	_ = c.RegisterFlagCompletionFunc("to", a.siteNames) // fails for unknown flags only
	choices(c, "kind", "auto", "migration", "tcp")
	c.RunE = a.do(func(ctx context.Context, c *cobra.Command, args []string) error {
		if err := require(c, "listen", "to", "target"); err != nil {
			return err
		}
		f.Name = args[0]
		got, err := a.gateway().AddForward(ctx, f)
		if err != nil {
			return err
		}
		return a.show(got, func(w io.Writer) error { return writeForwards(w, []gateway.Forward{got}) })
	})
	return c
}

func writeForwards(w io.Writer, all []gateway.Forward) error {
	t := newTable(w, "NAME", "LISTEN", "TO", "TARGET", "KIND", "OPEN", "TOTAL", "IN", "WIRE", "CODEC", "PROBLEM")
	for _, f := range all {
		t.row(f.Name, f.Listen, f.To, f.Target, or(f.Kind, "auto"), f.Conns, f.Total,
			size(f.Logical), size(f.Wire), or(f.Codec, "-"), or(f.Problem, "-"))
	}
	return t.flush()
}

func (a *app) segmentCmd() *cobra.Command {
	segment := &cobra.Command{
		Use:   "segment",
		Short: "Layer 2 networks that span sites",
		Long: `A segment is a Layer 2 network that spans sites, so that a VM keeps its IP, its
MAC and its connections when it moves. Each site names its own bridge; name and
VNI are the same everywhere.`,
		Example: `  longhaul segment add prod --vni 100 --bridge br-prod --site b
  longhaul segment show prod`,
		GroupID: "use",
		RunE:    group,
	}
	segment.AddCommand(a.segmentAddCmd(), &cobra.Command{
		Use:     "list",
		Short:   "List the segments at this site",
		Example: "  longhaul segment list",
		Args:    exactly(),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			all, err := a.gateway().Segments(ctx)
			if err != nil {
				return err
			}
			return a.show(all, func(w io.Writer) error { return writeSegments(w, all) })
		}),
	}, a.segmentShowCmd(), a.segmentCaptureCmd(), a.segmentUnstretchCmd(), a.segmentClearCmd(), &cobra.Command{
		Use:   "remove NAME",
		Short: "Stop stretching a segment from this site",
		Long: `Stops stretching a segment from this site, whatever depends on it; "segment unstretch"
looks at that first. A bridge that the gateway made goes with it, one that was there
before stays as it was. A segment of the config file is back after the gateway's next
start unless it is taken out there.`,
		Example:           "  longhaul segment remove prod",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeFirst(a.segmentNames),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
			if err := a.gateway().RemoveSegment(ctx, args[0]); err != nil {
				return err
			}
			return a.showRemoved(args[0])
		}),
	})
	return segment
}

// cleared is the document of a MAC that was cleared.
type cleared struct {
	Segment string `json:"segment"`
	MAC     string `json:"cleared"`
}

func (a *app) segmentClearCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "clear NAME MAC",
		Short: "Let a frozen MAC move again",
		Long: `A MAC that two sites claim in turn, five times within three minutes and without a
move of ours, is frozen for ten minutes where the last move has left it: two hosts
have the same MAC. "segment show" says at which site it is frozen. When you have found
and stopped one of them, clear the MAC, at any site: at all sites of the segment it goes
where it is next seen. It fails, and names the site, if the one at which it is frozen
cannot be told now.`,
		Example:           "  longhaul segment clear prod 52:54:00:00:00:01",
		Args:              exactly("NAME", "MAC"),
		ValidArgsFunction: a.completeFirst(a.segmentNames),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
			if err := a.gateway().ClearMAC(ctx, args[0], args[1]); err != nil {
				return err
			}
			return a.show(cleared{args[0], args[1]}, func(io.Writer) error { a.say("cleared %s on %s", args[1], args[0]); return nil })
		}),
	}
}

func (a *app) segmentAddCmd() *cobra.Command {
	var s gateway.Segment
	c := &cobra.Command{
		Use:   "add NAME --vni N --bridge BRIDGE --site SITE",
		Short: "Stretch a segment from this site",
		Long: `Stretches a segment from this site. A bridge that exists is adopted, one that
does not is made. Do the same at the other site, with its own bridge. It lasts
until it is removed or the gateway restarts; one that shall stay goes into the config file.

With --vlan the segment is one VLAN of the bridge, whose frames have its tag there. The
other site may have another VLAN for it, or a bridge without tags. Several segments may
share a bridge, each with a VLAN of its own.

Frames that are not for one known host are limited, by kind, in frames a second. One LAN
port may send half of a limit. What is over it is dropped, and counted in segment show.`,
		Example: `  longhaul segment add prod --vni 100 --bridge br-prod --site b
  longhaul segment add web --vni 10100 --bridge vmbr0 --vlan 100 --site b
  longhaul segment add video --vni 101 --bridge br-video --site b --limit-multicast 20000`,
		Args: exactly("NAME"),
	}
	flags := c.Flags()
	flags.Uint32Var(&s.VNI, "vni", 0, "VXLAN network identifier, 1 to 16777215")
	flags.StringVar(&s.Bridge, "bridge", "", "`bridge` at this site")
	flags.Uint16Var(&s.VLAN, "vlan", 0, "`vlan` of the bridge, 1 to 4094; without, frames that have no tag")
	flags.IntVar(&s.MTU, "mtu", 1500, "MTU of the segment in `bytes`")
	flags.StringSliceVar(&s.Sites, "site", nil, "other `site` on the segment; may be repeated")
	flags.StringVar(&s.Mode, "mode", "", "how frames cross: `secure` (the default), secure-fast or direct")
	_ = c.RegisterFlagCompletionFunc("site", a.siteNames) // fails for unknown flags only
	choices(c, "mode", "secure", "secure-fast", "direct")
	a.policyFlags(c, &s.Policy)
	c.RunE = a.do(func(ctx context.Context, c *cobra.Command, args []string) error {
		if err := require(c, "vni", "bridge", "site"); err != nil {
			return err
		}
		if c.Flags().Changed("vlan") && s.VLAN == 0 {
			return &usageError{errors.New("--vlan 0: 1 to 4094"), c.CommandPath()}
		}
		if err := positive(c, "limit-resolve", "limit-broadcast", "limit-multicast", "limit-unknown"); err != nil {
			return err
		}
		s.Name = args[0]
		got, err := a.gateway().AddSegment(ctx, s)
		if err != nil {
			return err
		}
		a.warnUnknown(ctx, s.Sites)
		return a.show(got, func(w io.Writer) error { return writeSegments(w, []gateway.Segment{got}) })
	})
	return c
}

// positive refuses flags that were given as less than 1: nothing means the default.
func positive(c *cobra.Command, names ...string) error {
	for _, name := range names {
		if n, err := c.Flags().GetInt(name); err != nil || n < 1 && c.Flags().Changed(name) {
			return errors.Join(err, &usageError{fmt.Errorf("--%s %d: at least 1", name, n), c.CommandPath()})
		}
	}
	return nil
}

// warnUnknown tells of sites that the gateway does not know. A segment may name one
// that joins later, so that is no error.
func (a *app) warnUnknown(ctx context.Context, sites []string) {
	st, err := a.gateway().Status(ctx)
	if err != nil {
		return // the segment is there all the same
	}
	var known []string
	for _, p := range st.Peers {
		known = append(known, p.Site)
	}
	for _, s := range sites {
		if !slices.Contains(known, s) {
			a.say("warning: the gateway knows no site %q yet, so the segment does not reach it; it knows %s", s, or(strings.Join(known, ", "), "none"))
		}
	}
}

func writeSegments(w io.Writer, all []gateway.Segment) error {
	t := newTable(w, "NAME", "VNI", "BRIDGE", "VLAN", "ADOPTED", "MTU", "MODE", "SITES", "MACS", "SENT", "RECEIVED", "DROPPED", "PROBLEM")
	for _, s := range all {
		t.row(s.Name, s.VNI, s.Bridge, vlanText(s.VLAN), yes(s.Adopted), s.MTU, or(s.Mode, "secure"), strings.Join(s.Sites, ","), len(s.Bindings),
			s.Sent, s.Received, s.Dropped, or(s.Problem, "-"))
	}
	return t.flush()
}

// vlanText is "-" for a segment whose frames have no tag.
func vlanText(vid uint16) string {
	if vid == 0 {
		return "-"
	}
	return strconv.Itoa(int(vid))
}

func writeSegment(w io.Writer, s gateway.Segment) error {
	if err := writeSegments(w, []gateway.Segment{s}); err != nil {
		return err
	}
	if _, err := fmt.Fprint(w, policyText(s.Policy), "\n"); err != nil {
		return err
	}
	t := newTable(w, "MAC", "SITE", "STATE", "SEQ", "IPS", "ENTERS", "LEAVES", "ADDS", "JOB")
	for _, b := range s.Bindings {
		t.row(b.MAC, b.Site, stateText(b), b.Seq, or(strings.Join(b.IPs, ","), "-"),
			or(b.Ingress, "-"), or(b.Egress, "-"), added(b), or(b.Job, "-"))
	}
	if err := t.flush(); err != nil {
		return err
	}
	if err := writeWays(w, s); err != nil {
		return err
	}
	if err := writeStreams(w, s); err != nil {
		return err
	}
	return writeCounts(w, s)
}

// stateText is the state of a binding, and at which sites it is frozen.
func stateText(b gateway.Binding) string {
	if len(b.FrozenAt) == 0 {
		return b.State
	}
	at := "frozen at " + strings.Join(b.FrozenAt, ",")
	if b.State == "frozen" {
		return at
	}
	return b.State + ", " + at
}

// writeStreams shows how TCP connections cross.
func writeStreams(w io.Writer, s gateway.Segment) error {
	if len(s.Streams) == 0 {
		return nil
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	t := newTable(w, "TCP TO", "STREAMS", "LOSS", "BECAUSE")
	for _, v := range s.Streams {
		t.row(v.Site, onOff(v.On), fmt.Sprintf("%.3f %%", 100*v.Loss), v.Why)
	}
	return t.flush()
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
