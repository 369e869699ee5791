package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/gateway"
)

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "What is up: this gateway, its peers, its hosts",
		Long: `Shows this gateway, its links to the other sites, its hosts and its store.

A peer is "up" while the link carries data; MEMBER is what the membership of all
gateways says of it. CARRIER is quic, or tcp where QUIC does not get through;
CONTROLLER is what decides how fast it sends. Of several paths what is urgent and the
frames of segments go over one, the cheapest.

What was sent is shown by class: what is urgent and the frames of segments (L2) go
before all else; TAIL is the rest of VMs that stand still, MEMORY and DISK are of
those that run, and SEED is images. The config's link.weights say how these share the
link. COPIED went a second time, so that no VM waits for a loss.`,
		Example: `  longhaul status
  longhaul status --json | jq '.peers[] | select(.alive | not)'`,
		GroupID: "use",
		Args:    exactly(),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			st, err := a.gateway().Status(ctx)
			if err != nil {
				return err
			}
			return a.show(st, func(w io.Writer) error { return writeStatus(w, st) })
		}),
	}
}

// writePaths shows the ways to those peers that have several.
func writePaths(w io.Writer, peers []gateway.PeerStatus) error {
	if !slices.ContainsFunc(peers, func(p gateway.PeerStatus) bool { return len(p.Paths) > 0 }) {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w, "PATH", "PEER", "FROM", "ADDRESS", "STATE", "RTT", "CONNS", "COST", "RATE", "CARRIES", "SENT", "RECEIVED")
	for _, p := range peers {
		for _, x := range p.Paths {
			state := "up"
			switch {
			case !x.Alive:
				state = "down"
			case x.Urgent:
				state = "up, urgent"
			}
			t.row(x.Name, p.Site, or(x.Source, "-"), or(x.Address, "-"), state, short(x.RTT)+" ms", x.Conns, x.Cost,
				limit(x.Rate), rate(x.Carries), size(x.Sent), size(x.Received))
		}
	}
	return t.flush()
}

// writeClasses shows what was sent by class.
func writeClasses(w io.Writer, peers []gateway.PeerStatus) error {
	fmt.Fprintln(w)
	t := newTable(w, "SENT TO", "URGENT", "L2", "TAIL", "MEMORY", "DISK", "SEED", "COPIED")
	for _, p := range peers {
		sent := make(map[string]int64)
		for _, c := range p.Classes {
			sent[c.Name] = c.Sent
		}
		t.row(p.Site, size(sent["urgent"]), size(sent["l2"]), size(sent["tail"]), size(sent["memory"]), size(sent["disk"]), size(sent["seed"]), size(p.Copied))
	}
	return t.flush()
}

// writeDrops tells what was lost at this gateway, if anything was.
func writeDrops(w io.Writer, st gateway.Status) {
	for _, p := range st.Peers {
		d := p.Drops
		if d == (gateway.LinkDrops{}) {
			continue
		}
		fmt.Fprintf(w, "\nlost here of the link to %s: %d packets at a full socket, %d reads of a busy connection, "+
			"%d datagrams in full queues, %d that could not be sent\n", clean(p.Site), d.Socket, d.Busy, d.SendQueue+d.ReceiveQueue, d.Unsendable)
	}
	if d := st.Drops; d != (gateway.PortDrops{}) {
		fmt.Fprintf(w, "\nlost at the listening port: %d packets at a full socket, %d connections of strangers refused\n", d.Packets, d.Refused)
	}
}

func writeStatus(w io.Writer, st gateway.Status) error {
	head := newTable(w)
	head.row("site", st.Site)
	head.row("gateway", fmt.Sprintf("%s, longhauld %s, up since %s", st.Gateway, st.Version, moment(st.Since)))
	head.row("listens on", or(st.Listen, "-"))
	head.row("certificate", "until "+moment(st.CertEnd))
	head.row("store", fmt.Sprintf("%s of %s, %s in memory, %d pages", size(st.Store.Bytes), size(st.Store.Budget), size(st.Store.Memory), st.Store.Pages))
	head.row("jobs running", st.Jobs)
	head.row("moves from here", fmt.Sprintf("%d done, %d aborted, %d failed since it is up", st.Moves.Done, st.Moves.Aborted, st.Moves.Failed))
	if err := head.flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	peers := newTable(w, "PEER", "ADDRESS", "LINK", "SINCE", "MEMBER", "RTT", "CARRIER", "CONTROLLER", "CONNS", "GOODPUT", "CAP", "SENT", "RECEIVED")
	for _, p := range st.Peers {
		link := "up"
		if !p.Alive {
			link = "down"
		}
		runs, _ := controller(p)
		peers.row(p.Site, or(p.Address, "-"), link, moment(p.Since), or(p.Member, "-"), short(p.RTT)+" ms",
			or(p.Carrier, "-"), or(runs, "-"), p.Conns, rate(p.Goodput), limit(p.Rate), size(p.Sent), size(p.Received))
	}
	if err := peers.flush(); err != nil {
		return err
	}
	if err := writePaths(w, st.Peers); err != nil {
		return err
	}
	if err := writeClasses(w, st.Peers); err != nil {
		return err
	}
	fmt.Fprintln(w)
	hosts := newTable(w, "HOST", "VMS", "PROBLEM")
	for _, h := range st.Hosts {
		hosts.row(h.Name, h.VMs, or(h.Problem, "-"))
	}
	if err := hosts.flush(); err != nil {
		return err
	}
	for _, l := range st.Left {
		fmt.Fprintf(w, "\n%s at %s, left by job %s: %s\n", clean(l.VM), clean(l.Host), clean(l.Job), clean(l.Problem))
	}
	writeDrops(w, st)
	for _, p := range st.Peers {
		if p.Why != "" {
			fmt.Fprintf(w, "\n%s is down: %s\n", clean(p.Site), clean(p.Why))
		}
		for _, x := range p.Paths {
			if x.Why != "" {
				fmt.Fprintf(w, "\npath %s to %s is down: %s\n", clean(x.Name), clean(p.Site), clean(x.Why))
			}
		}
		if p.Fallback != "" {
			fmt.Fprintf(w, "\n%s is reached by TCP: %s\n", clean(p.Site), clean(p.Fallback))
		}
		if p.FarFallback != "" {
			fmt.Fprintf(w, "\n%s reaches us by TCP: QUIC does not get through from there (%s)\n", clean(p.Site), clean(p.FarFallback))
		}
		if runs, why, _ := strings.Cut(p.FarController, ": "); why != "" {
			fmt.Fprintf(w, "\nthe link from %s has %s in place of our congestion control, and is slow where packets are lost: %s\n",
				clean(p.Site), clean(runs), clean(why))
		}
		if runs, why := controller(p); why != "" {
			fmt.Fprintf(w, "\nthe link to %s has %s in place of our congestion control, and is slow where packets are lost: %s\n",
				clean(p.Site), clean(runs), clean(why))
		}
	}
	return nil
}

// controller is what decides how fast a link sends, and why it is not ours.
func controller(p gateway.PeerStatus) (runs, why string) {
	runs, why, _ = strings.Cut(p.Controller, ": ")
	return runs, why
}

func (a *app) vmCmd() *cobra.Command {
	vm := &cobra.Command{
		Use:     "vm",
		Short:   "VMs of this site",
		Example: "  longhaul vm list",
		GroupID: "use",
		RunE:    group,
	}
	vm.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List the VMs of this site's hosts",
		Example: `  longhaul vm list
  longhaul vm list --json | jq -r '.[] | select(.state == "running") | .name'`,
		Args: exactly(),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			vms, err := a.gateway().VMs(ctx)
			if err != nil {
				return err
			}
			return a.show(vms, func(w io.Writer) error { return writeVMs(w, vms) })
		}),
	})
	return vm
}

func writeVMs(w io.Writer, vms []gateway.VMInfo) error {
	t := newTable(w, "NAME", "HOST", "STATE", "MEMORY", "MAC", "DISKS", "HYPERVISOR", "PROBLEM")
	for _, v := range vms {
		var macs []string
		for _, n := range v.NICs {
			macs = append(macs, n.MAC)
		}
		t.row(or(v.Name, "-"), v.Host, v.State, size(v.Memory), or(strings.Join(macs, ","), "-"),
			len(v.Disks), or(v.Version, "-"), or(v.Problem, "-"))
	}
	return t.flush()
}

func (a *app) reloadCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Make the gateway read its config again",
		Long: `Makes the gateway read its config file again, as SIGHUP and "systemctl reload
longhauld" do. The cap of the link, its calendar, its weights, the peers and the log level change at
once. Other keys that differ wait for a restart; they are named. A file that is wrong
changes nothing.`,
		Example: "  longhaul reload",
		GroupID: "setup",
		Args:    exactly(),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			done, err := a.gateway().Reload(ctx)
			if err != nil {
				return err
			}
			return a.show(struct {
				Reloaded bool     `json:"reloaded"`
				Restart  []string `json:"restart,omitempty"`
			}{true, done.Restart}, func(io.Writer) error {
				a.say("reloaded")
				if len(done.Restart) > 0 {
					a.say("these keys wait for a restart of the gateway: %s", strings.Join(done.Restart, ", "))
				}
				return nil
			})
		}),
	}
}

// versionInfo is what "longhaul version --json" shows.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Version of this command",
		Long:    `Shows the version of this command. "longhaul status" shows that of the gateways.`,
		Example: "  longhaul version --json",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			v := readVersion()
			return a.show(v, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, strings.Join(strings.Fields("longhaul "+v.Version+" "+v.Revision+" "+v.Go+" "+v.Platform), " "))
				return err
			})
		},
	}
}

// readVersion prefers what the Makefile gave the linker to what "go build"
// stamps by itself.
func readVersion() versionInfo {
	v := versionInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		v.Version = or(v.Version, "unknown")
		return v
	}
	v.Version = or(v.Version, or(info.Main.Version, "unknown"))
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Revision = s.Value
		}
	}
	return v
}
