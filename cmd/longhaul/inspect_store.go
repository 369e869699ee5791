package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/cmd/longhaul/inspect"
	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/page"
)

// A heldStore is a gateway's content store with one peer, which inspect looks into. The
// flags say which one.
type heldStore struct {
	Dir      string `json:"dir"`
	Site     string `json:"site,omitempty"`
	Tenant   string `json:"tenant,omitempty"`
	Pages    int64  `json:"pages"`
	Bytes    int64  `json:"bytes"` // of these pages
	Segments int    `json:"segments"`
}

// asked tells whether a store is to be looked into.
func (h *heldStore) asked() bool { return h.Dir != "" || h.Site != "" }

func (a *app) heldFlags(c *cobra.Command, h *heldStore) {
	flags := c.Flags()
	flags.StringVar(&h.Site, "to", "", "`site` that knows what this gateway's store holds with it")
	flags.StringVar(&h.Dir, "store", "", "`directory` of the store, if it is not this gateway's")
	flags.StringVar(&h.Tenant, "tenant", "", "`tenant` whose content counts")
	_ = c.RegisterFlagCompletionFunc("to", a.siteNames) // fails for unknown flags only
	_ = c.MarkFlagDirname("store")
}

// know finds the store and has the inspector look into it.
func (a *app) know(ctx context.Context, in *inspect.Inspector, h *heldStore) error {
	if h.Dir == "" {
		r, err := a.gateway().Store(ctx)
		if err != nil {
			return fmt.Errorf("where the store is: %w; or name it with --store", err)
		}
		if h.Dir = r.Dir; h.Dir == "" {
			return errors.New("this gateway keeps nothing on disk")
		}
	}
	if err := h.find(); err != nil {
		return err
	}
	v, err := dedup.OpenView(h.Dir)
	if err != nil {
		return err
	}
	h.Pages, h.Segments = v.Pages(), v.Segments()
	h.Bytes = h.Pages * page.Size
	if a.width()() > 0 { // ECMA-48 EL erases it again
		fmt.Fprintf(a.stderr, "\rreading the store: %s in %d segments\x1b[K", size(h.Bytes), h.Segments)
		defer fmt.Fprint(a.stderr, "\r\x1b[K")
	}
	return in.Know(ctx, v)
}

// find chooses the store among those below Dir, or Dir itself.
func (h *heldStore) find() error {
	if isShelves(h.Dir) && h.Site == "" && h.Tenant == "" {
		return nil
	}
	all, err := gateway.StoreDirs(h.Dir)
	if err != nil {
		return err
	}
	var names []string // of what else could be meant
	fits := slices.DeleteFunc(slices.Clone(all), func(d gateway.StoreDir) bool {
		return d.Tenant != h.Tenant || h.Site != "" && d.Site != h.Site
	})
	for _, d := range all {
		names = append(names, heldName(d.Site, d.Tenant))
	}
	switch {
	case len(all) == 0:
		return fmt.Errorf("%s has no content store", clean(h.Dir))
	case len(fits) == 0:
		return fmt.Errorf("%s has no store of %s; it has: %s", clean(h.Dir), heldName(or(h.Site, "any site"), h.Tenant), strings.Join(names, ", "))
	case len(fits) > 1:
		return &usageError{fmt.Errorf("which site is it? --to is missing; %s has: %s", clean(h.Dir), strings.Join(names, ", ")), "longhaul inspect"}
	}
	h.Dir, h.Site = fits[0].Path, fits[0].Site
	return nil
}

// isShelves tells whether a directory is a store with one peer, or a copy of it.
func isShelves(dir string) bool {
	for _, shelf := range []string{"sent", "received"} {
		if st, err := os.Stat(filepath.Join(dir, shelf)); err == nil && st.IsDir() {
			return true
		}
	}
	return false
}

// heldName is a peer and a tenant as people read them.
func heldName(site, tenant string) string {
	if tenant != "" {
		site += " for " + tenant
	}
	return clean(site)
}

// writeHeld shows which store was looked into.
func writeHeld(w io.Writer, h *heldStore) error {
	t := newTable(w, "store "+h.Dir)
	if h.Site != "" {
		t.row("  held with", heldName(h.Site, h.Tenant))
	}
	t.row("  holds", fmt.Sprintf("%d pages, %s in %d segments", h.Pages, size(h.Bytes), h.Segments))
	t.row("")
	return t.flush()
}
