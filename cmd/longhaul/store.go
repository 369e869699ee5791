package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/conffile"
)

func (a *app) storeCmd() *cobra.Command {
	store := &cobra.Command{
		Use:   "store",
		Short: "What sites hold so that it need not cross again",
		Long: `The store is what this site and each of its peers both hold: pages that crossed
once, and templates, ISO files and disk images that were seeded. What both hold
crosses as a reference of a few bits. Losing any of it costs bandwidth only.`,
		Example: `  longhaul store stats
  longhaul store seed /srv/templates`,
		GroupID: "use",
		RunE:    group,
	}
	store.AddCommand(a.storeStatsCmd(), a.storeSeedCmd(), a.storeVerifyCmd(), a.storeTaskCmd())
	return store
}

func (a *app) storeStatsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Show what the store holds, for each peer and tenant and in total",
		Long: `Shows what this site holds in common with each peer, for each tenant, in memory
and on disk, and what it has of its own. Of a peer that was not reached since the
gateway started it shows what lies on this site's disk, and dashes else: the two have
not told each other yet what they still hold. What lies on disk of tenants that the
config does not have, and of sites that are not in it and have not dialed in since
the gateway started, comes last: nothing uses it now, no budget counts it, and if
they do not come back, removing its directory frees the disk.`,
		Example: `  longhaul store stats
  longhaul store stats --json | jq .total.disk_bytes`,
		Args: exactly(),
		RunE: a.do(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			r, err := a.gateway().Store(ctx)
			if err != nil {
				return err
			}
			return a.show(r, func(w io.Writer) error { return writeStore(w, r) })
		}),
	}
}

func writeStore(w io.Writer, r gateway.StoreReport) error {
	t := newTable(w, "HELD WITH", "PAGES", "MEMORY", "DISK", "BUDGET", "SEGMENTS", "INDEX", "ANCHORS", "HITS", "HASHES", "EVICTED", "DAMAGED")
	for _, p := range r.Peers {
		with := heldName(p.Site, p.Tenant)
		if !p.Agreed {
			t.row(with, p.Pages, "-", size(p.Disk), "-", p.Segments, "-", "-", "-", "-", "-", "-")
			continue
		}
		t.row(with, p.Pages, size(p.Memory)+" of "+size(p.MemoryBudget), size(p.Disk), size(p.Budget), p.Segments,
			size(p.Index), size(p.Anchors), p.Hits, p.Claims, p.Evicted, p.Damaged)
	}
	im := r.Images
	t.row("(images)", im.Pages, "-", size(im.Disk), size(im.Budget), im.Segments, size(im.Index), "-", im.Hits, "-", im.Evicted, im.Damaged)
	t.row("(total)", r.Total.Pages, size(r.Total.Memory), size(r.Total.Disk), size(r.Total.Budget), "-", "-", "-", "-", "-", "-", "-")
	if err := t.flush(); err != nil {
		return err
	}
	if len(im.Dirs) > 0 {
		fmt.Fprintf(w, "\nkept seeded: %s\n", clean(strings.Join(im.Dirs, ", ")))
	}
	return writeLeftStores(w, r.Left)
}

// writeLeftStores shows what lies on disk and is nobody's.
func writeLeftStores(w io.Writer, left []gateway.LeftStore) error {
	if len(left) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w, "LEFT OF", "DISK", "DIRECTORY")
	for _, l := range left {
		t.row(heldName(l.Site, l.Tenant), size(l.Disk), l.Dir)
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "The config has no such site or tenant, so nothing uses these and no budget counts them.\n"+
		"To free the disk, remove the directories.")
	return err
}

const seedLong = `Makes the content of templates, ISO files and disk images (raw and qcow2, holes
skipped) known to this site and to its peers, so that the pages of VMs made from
them cross as references. Arguments are files and directories of the gateway's
host, and exports of NBD servers.

What a peer lacks is sent once, in the background of moves; what it has
itself, because it seeded the same, is agreed on by hashes. The task belongs to
the gateway, and goes on by itself when the gateway is restarted. Seeding again goes
on where it was: what was read is not read again unless the file has changed, and
nothing crosses twice. An export and a block device do not tell whether they have
changed: they go on where they were for a day, and are read anew when they were whole.

Ctrl-C aborts the task, a second time leaves at once; a SIGTERM leaves without
aborting. A directory that shall stay seeded goes into the config: store.seed.dirs.`

func (a *app) storeSeedCmd() *cobra.Command {
	var r gateway.SeedRequest
	var cap, read conffile.Rate
	var detach bool
	c := &cobra.Command{
		Use:   "seed FILE|DIR|nbd://HOST/EXPORT...",
		Short: "Make templates, ISO files and disk images known to all sites",
		Long:  seedLong,
		Example: `  longhaul store seed /srv/templates/debian-12.qcow2
  longhaul store seed /srv/templates /srv/iso --rate 20Mbit --read-rate 400Mbit
  longhaul store seed nbd://10.0.0.7/golden --local`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{errors.New("FILE, DIR or nbd:// is missing"), c.CommandPath()}
			}
			return nil
		},
	}
	flags := c.Flags()
	flags.Var(&cap, "rate", "cap of what crosses to each peer, such as 20Mbit; the config's if not given")
	flags.Var(&read, "read-rate", "bound on what is read from disk, such as 400Mbit; the config's if not given")
	flags.BoolVar(&r.Local, "local", false, "send nothing: peers that have the same agree by hashes when a page is needed")
	flags.BoolVar(&detach, "detach", false, "do not wait")
	c.RunE = func(c *cobra.Command, args []string) error {
		for _, s := range args {
			if !hasScheme.MatchString(s) {
				abs, err := filepath.Abs(s) // the gateway has another working directory
				if err != nil {
					return err
				}
				s = abs
			}
			r.Sources = append(r.Sources, s)
		}
		r.Rate, r.ReadRate = int64(cap), int64(read)
		return a.runTask(c.Context(), detach, func(ctx context.Context) (gateway.StoreTask, error) {
			gw := a.gateway()
			defer gw.Close()
			return gw.Seed(ctx, r)
		})
	}
	return c
}

// hasScheme tells a URI from a path (RFC 3986, section 3.1): what is no path is the gateway's
// to refuse, which knows from where it can seed.
var hasScheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)

func (a *app) storeVerifyCmd() *cobra.Command {
	var detach bool
	c := &cobra.Command{
		Use:   "verify",
		Short: "Read the store's disk, and mend or drop what is damaged",
		Long: `Reads every segment that is on disk and compares it with its checksums. One that
is damaged is written anew if the store still has it in memory, and dropped if not.
What is dropped crosses again when it is needed. It ends with exit code 1 if
something was damaged. Nothing damaged is ever used, also without this command: pages
are checked whenever they are read.`,
		Example: `  longhaul store verify
  longhaul store verify --json | jq .damaged_pages`,
		Args: exactly(),
	}
	c.Flags().BoolVar(&detach, "detach", false, "do not wait")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.runTask(c.Context(), detach, func(ctx context.Context) (gateway.StoreTask, error) {
			gw := a.gateway()
			defer gw.Close()
			return gw.VerifyStore(ctx)
		})
	}
	return c
}

// writeTask says what a task has done.
func writeTask(w io.Writer, t gateway.StoreTask) error {
	if t.Kind == gateway.TaskVerify {
		_, err := fmt.Fprintf(w, "%s in %d segments read; damaged: %d pages, dropped: %d segments, written anew: %d segments\n", size(t.Done), t.Segments, t.Damaged, t.Dropped, t.Mended)
		return err
	}
	before := ""
	if t.Before > 0 {
		before = fmt.Sprintf(" (%s of it before)", size(t.Before))
	}
	if _, err := fmt.Fprintf(w, "%d images, %s read%s: %d pages, %d of them new here\n", t.Files, size(t.Done), before, t.Pages, t.Fresh); err != nil || len(t.Peers) == 0 {
		return err
	}
	tab := newTable(w, "PEER", "STATE", "LACKED", "SENT", "BY HASH", "WIRE", "NOTE")
	for _, p := range t.Peers {
		tab.row(p.Site, p.State, size(p.Total), fmt.Sprintf("%d pages", p.Sent), fmt.Sprintf("%d pages", p.Claims), size(p.Wire), or(p.Note, "-"))
	}
	return tab.flush()
}
