package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/gateway"
)

// policyFlags are those of a segment's policy.
func (a *app) policyFlags(c *cobra.Command, p *gateway.SegmentPolicy) {
	flags := c.Flags()
	flags.StringVar(&p.Home, "home", "", "`site` at which the rest of the network finds the segment's hosts")
	flags.StringVar(&p.Gateway, "gateway", "", "`where` the guests' gateway is: home (the default) or anycast")
	flags.StringVar(&p.GatewayMAC, "gateway-mac", "", "`MAC` of the anycast gateways")
	flags.StringSliceVar(&p.GatewayIPs, "gateway-ip", nil, "`address` of the anycast gateways; may be repeated")
	flags.StringVar(&p.Unknown, "unknown", "", "unicast for a MAC that nobody knows: `drop` (the default) or limited")
	flags.StringVar(&p.Multicast, "multicast", "", "multicast goes to `listeners` (the default), flood (that of direct) or link-local")
	flags.StringVar(&p.DHCP, "dhcp", "", "DHCP that is not unicast: `carry` or local")
	flags.StringVar(&p.RouterAdverts, "router-adverts", "", "IPv6 router advertisements: `carry` or local")
	flags.StringVar(&p.Streams, "streams", "", "TCP by reliable streams: `auto` (the default), on or off")
	flags.StringVar(&p.FHRP, "fhrp", "", "hellos of VRRP, HSRP, GLBP and CARP: `local` (the default) or carry")
	l := &p.Limits
	flags.IntVar(&l.Resolve, "limit-resolve", 0, "`rate` of ARP and neighbour discovery, frames a second (default 100)")
	flags.IntVar(&l.Broadcast, "limit-broadcast", 0, "`rate` of other broadcast, frames a second (default 50)")
	flags.IntVar(&l.Multicast, "limit-multicast", 0, "`rate` of multicast, frames a second (default 500)")
	flags.IntVar(&l.Unknown, "limit-unknown", 0, "`rate` of unicast for a MAC that nobody knows, if limited (default 500)")
	_ = c.RegisterFlagCompletionFunc("home", a.siteNames) // fails for unknown flags only
	choices(c, "gateway", "home", "anycast")
	choices(c, "unknown", "drop", "limited")
	choices(c, "multicast", "listeners", "flood", "link-local")
	choices(c, "streams", "auto", "on", "off")
	for _, flag := range []string{"dhcp", "router-adverts", "fhrp"} {
		choices(c, flag, "carry", "local")
	}
}

func (a *app) segmentShowCmd() *cobra.Command {
	var live bool
	c := &cobra.Command{
		Use:   "show NAME",
		Short: "Show a segment and who owns which MAC on it",
		Long: `Shows a segment: its policy where that was given, which site owns which MAC, at
which site a host's traffic to other networks enters and leaves, what that adds to
a round trip, and what became of the segment's frames.

With --live it is shown anew every second until you stop it; with --json as
well, each time as one line.`,
		Example: `  longhaul segment show prod
  longhaul segment show prod --live`,
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeFirst(a.segmentNames),
	}
	c.Flags().BoolVar(&live, "live", false, "show it anew every second")
	c.RunE = a.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
		if live {
			return a.follow(ctx, args[0])
		}
		s, err := a.gateway().Segment(ctx, args[0])
		if err != nil {
			return err
		}
		return a.show(s, func(w io.Writer) error { return writeSegment(w, s) })
	})
	return c
}

// refresh is how often --live asks.
const refresh = time.Second

// follow shows a segment until ctx ends.
func (a *app) follow(ctx context.Context, name string) error {
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	screen := &display{w: a.stdout, width: func() int { return 0 }}
	if f, ok := a.stdout.(*os.File); ok {
		screen.width = func() int { return columns(f) }
	}
	var last gateway.Segment
	for {
		s, err := a.gateway().Segment(ctx, name)
		if err != nil {
			return err
		}
		if a.json {
			err = json.NewEncoder(a.stdout).Encode(s)
		} else {
			err = screen.drawSegment(s, last)
		}
		if err != nil {
			return err
		}
		last = s
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// drawSegment draws a segment in the place of what was drawn before, and with
// each count what came since then.
func (d *display) drawSegment(s, last gateway.Segment) error {
	var b strings.Builder
	if err := writeSegment(&b, s); err != nil {
		return err
	}
	if last.Name != "" {
		fmt.Fprintf(&b, "\nsince the last second: %d sent, %d received, %d dropped, %d flips\n",
			s.Sent-last.Sent, s.Received-last.Received, s.Dropped-last.Dropped, s.Counts["flips"]-last.Counts["flips"])
	}
	width := d.width()
	if width == 0 { // no terminal: one after the other
		_, err := fmt.Fprintln(d.w, b.String())
		return err
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for i, l := range lines {
		lines[i] = cut(clean(l), width)
	}
	d.draw(lines)
	return nil
}

// policyText is a line with what a policy says, or nothing if all is as by default.
func policyText(p gateway.SegmentPolicy) string {
	var said []string
	say := func(name, value string) {
		if value != "" {
			said = append(said, name+" "+value)
		}
	}
	say("home", p.Home)
	say("gateway", p.Gateway)
	say("gateway mac", p.GatewayMAC)
	say("gateway ips", strings.Join(p.GatewayIPs, " "))
	say("host route by", strings.Join(p.HostRoute, " "))
	say("unknown", p.Unknown)
	say("multicast", p.Multicast)
	say("router adverts", p.RouterAdverts)
	say("dhcp", p.DHCP)
	say("fhrp", p.FHRP)
	say("streams", p.Streams)
	for _, l := range []struct {
		name   string
		frames int
	}{{"resolve", p.Limits.Resolve}, {"broadcast", p.Limits.Broadcast}, {"multicast", p.Limits.Multicast}, {"unknown", p.Limits.Unknown}} {
		if l.frames != 0 {
			say("limit of "+l.name, fmt.Sprintf("%d/s", l.frames))
		}
	}
	if said == nil {
		return ""
	}
	return "\npolicy: " + strings.Join(said, ", ") + "\n"
}

// writeWays shows how frames get to other sites, where that is not simply the link.
func writeWays(w io.Writer, s gateway.Segment) error {
	if len(s.Ways) == 0 {
		return nil
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	t := newTable(w, "SITE", "MODE", "UNDERLAY", "UP", "RTT", "PROBLEM")
	for _, y := range s.Ways {
		rtt := "-"
		if y.Up {
			rtt = fmt.Sprintf("%.1f ms", y.RTT)
		}
		t.row(y.Site, or(y.Mode, "-"), or(y.Address, "-"), yes(y.Up), rtt, or(y.Problem, "-"))
	}
	return t.flush()
}

// writeCounts shows what became of the frames, beside the sums.
func writeCounts(w io.Writer, s gateway.Segment) error {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(s.Counts)), func(name string) bool { return s.Counts[name] == 0 })
	if len(names) == 0 {
		return nil
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	t := newTable(w, "COUNT", "FRAMES")
	for _, name := range names {
		t.row(strings.ReplaceAll(name, "_", " "), s.Counts[name])
	}
	return t.flush()
}

// added is what the way of a host's traffic adds to a round trip.
func added(b gateway.Binding) string {
	if b.AddedRTT == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", *b.AddedRTT)
}

func (a *app) segmentCaptureCmd() *cobra.Command {
	var r gateway.CaptureRequest
	var file string
	c := &cobra.Command{
		Use:   "capture NAME --write FILE",
		Short: "Write the frames of a segment to a file that tcpdump reads",
		Long: `Writes the frames of a segment, as a pcap file, until there are enough or you
stop it: those of this site as they come to the gateway, also such that it then
drops, and those that other sites send. In mode direct they are those that the
kernel sends to other sites and gets from them, as it has them: several packets
of a connection may be one long frame. "--write -" is the standard output.`,
		Example: `  longhaul segment capture prod --write prod.pcap --frames 1000
  longhaul segment capture prod --write - | tcpdump -r -`,
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeFirst(a.segmentNames),
	}
	flags := c.Flags()
	flags.StringVarP(&file, "write", "w", "", "`file` to write, - for the standard output")
	flags.IntVar(&r.Frames, "frames", 0, "end after so many frames")
	flags.IntVar(&r.Snap, "snap", 0, "`bytes` kept of each frame; all if not given")
	flags.StringVar(&r.Only, "only", "", "`in`: frames from other sites; out: frames of this one")
	flags.Int64Var(&r.Bytes, "max", 100<<20, "end before there are more `bytes`")
	choices(c, "only", "in", "out")
	c.RunE = a.do(func(ctx context.Context, c *cobra.Command, args []string) error {
		if err := require(c, "write"); err != nil {
			return err
		}
		before, err := a.gateway().Segment(ctx, args[0])
		if err != nil {
			return err // before the file is made
		}
		out := &counted{w: a.stdout, close: func() error { return nil }}
		if file != "-" {
			f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) // frames are other people's business
			if err != nil {
				return fmt.Errorf("opening the capture's file: %w", err)
			}
			out.w, out.close = f, f.Close
		}
		err = a.gateway().CaptureSegment(ctx, args[0], r, out)
		closed := out.close() // a full disk may say so only here
		if err != nil && (context.Cause(ctx) == nil || out.n == 0) {
			return err
		}
		if closed != nil {
			return fmt.Errorf("writing the capture's file: %w", closed)
		}
		a.say("%d bytes written", out.n) // being stopped is how a capture ends
		if n := a.leftOut(ctx, before); n > 0 {
			a.say("%d frames came too fast, and were left out", n)
		}
		return nil
	})
	return c
}

// captureMissed is the name of that count.
const captureMissed = "capture_missed"

// leftOutTime bounds the question how many frames a capture lacks.
const leftOutTime = 2 * time.Second

// leftOut is how many frames the captures of a segment have left out since before.
// It asks also when ctx has ended: that is how captures end.
func (a *app) leftOut(ctx context.Context, before gateway.Segment) int64 {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leftOutTime)
	defer cancel()
	now, err := a.gateway().Segment(ctx, before.Name)
	if err != nil {
		return 0 // the segment has gone; what was captured is there
	}
	return now.Counts[captureMissed] - before.Counts[captureMissed]
}

// counted counts what is written.
type counted struct {
	w     io.Writer
	close func() error // of w
	n     int64
}

// Write writes to w.
func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

func (a *app) segmentUnstretchCmd() *cobra.Command {
	var r gateway.UnstretchRequest
	c := &cobra.Command{
		Use:   "unstretch NAME",
		Short: "End a segment at this site when no host depends on it",
		Long: `Lists the hosts for which the segment is still stretched: VMs that are away from
home or being moved, and hosts that use the gateway of another site. When there are
none the segment ends at this site, and the other sites are told so; otherwise nothing
changes and the exit code is 5. So it is while a site cannot be reached, as there may be
such hosts that this gateway does not know. Take it out of the config file as well if it is there:
the gateway's next start would stretch it again.

--force ends it all the same: the hosts that are listed then lose their
connections with this site, and with their gateway if that is here.`,
		Example: `  longhaul segment unstretch prod
  longhaul segment unstretch prod --force`,
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeFirst(a.segmentNames),
	}
	c.Flags().BoolVar(&r.Force, "force", false, "end it even if hosts depend on it")
	c.RunE = a.do(func(ctx context.Context, _ *cobra.Command, args []string) error {
		got, err := a.gateway().UnstretchSegment(ctx, args[0], r)
		if err != nil {
			return err
		}
		err = a.show(got, func(w io.Writer) error { return writeDependents(w, got) })
		if err == nil && !got.Cut {
			a.say("segment %s stays: %s", got.Name, stays(got))
			return fmt.Errorf("%w: %w", errShown, gateway.ErrBusy)
		}
		return err
	})
	return c
}

// stays says why a segment does not end.
func stays(u gateway.Unstretched) string {
	var why []string
	if n := len(u.Dependents); n > 0 {
		why = append(why, fmt.Sprintf("%d hosts depend on it", n))
	}
	if len(u.Unheard) > 0 {
		why = append(why, "not all hosts are known of site "+strings.Join(u.Unheard, ", ")+", which cannot be asked")
	}
	return strings.Join(why, ", and ")
}

func writeDependents(w io.Writer, u gateway.Unstretched) error {
	if u.Cut {
		if _, err := fmt.Fprintf(w, "segment %s has ended at this site\n", u.Name); err != nil {
			return err
		}
	}
	if len(u.Dependents) == 0 {
		return nil
	}
	t := newTable(w, "MAC", "IPS", "SITE", "DEPENDS BECAUSE IT")
	for _, d := range u.Dependents {
		t.row(d.MAC, or(strings.Join(d.IPs, ","), "-"), d.Site, d.Why)
	}
	return t.flush()
}
