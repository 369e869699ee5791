package main

import (
	"context"
	"errors"
	"slices"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
	"github.com/longhaul-project/longhaul/gateway"
)

// configured makes the segments and forwards of the config. One that does not
// work is reported and does not keep the gateway from serving moves. Then it
// follows the sites that are met later, until ctx is done: they may have joined
// with a token, or dial in without being in the config.
func (d *daemon) configured(ctx context.Context, cfg config.Config) error {
	everywhere := map[string][]string{} // segments that name no sites, and those they have been given
	for _, s := range cfg.Segments {
		v := s.View()
		if s.Sites == nil {
			v.Sites = d.sites()
			everywhere[s.Name] = v.Sites
		}
		if _, err := d.layer2.AddSegment(ctx, v); err != nil && ctx.Err() == nil {
			d.log.Error("segment of the config", "segment", s.Name, "err", err)
		}
	}
	waiting := d.forwards(ctx, cfg.Forwards)
	for _, f := range waiting {
		d.log.Warn("forward of the config waits for its site", "forward", f.Name, "peer", f.To)
	}
	select {
	case <-d.node.Listening():
	case <-ctx.Done(): // a port that cannot be had ends the gateway, which has then never been ready
		return nil
	}
	notify("READY=1")
	d.log.Info("ready", "site", cfg.Site, "version", version)
	for {
		select {
		case <-d.met:
			waiting = d.forwards(ctx, waiting)
			d.spread(ctx, everywhere)
		case <-ctx.Done():
			return nil
		}
	}
}

// sites are all that this gateway knows.
func (d *daemon) sites() []string {
	var names []string
	for _, l := range d.node.Links() {
		names = append(names, l.Site())
	}
	return names
}

// forwards makes forwards, and returns those whose site is not known yet.
func (d *daemon) forwards(ctx context.Context, all []config.Forward) (waiting []config.Forward) {
	for _, f := range all {
		_, err := d.gateway.AddForward(ctx, f.View())
		switch {
		case errors.Is(err, gateway.ErrNoSite):
			waiting = append(waiting, f)
		case err != nil && ctx.Err() == nil:
			d.log.Error("forward of the config", "forward", f.Name, "err", err)
		}
	}
	return waiting
}

// spread stretches segments that name no sites to all that are known by now.
// One that an operator has changed since is left alone.
func (d *daemon) spread(ctx context.Context, everywhere map[string][]string) {
	next := d.sites()
	for name, had := range everywhere {
		if slices.Equal(had, next) {
			continue
		}
		if s, err := d.layer2.Segment(ctx, name); err != nil || !slices.Equal(s.Sites, had) {
			continue
		}
		if err := d.layer2.SetSites(ctx, name, next); err != nil && ctx.Err() == nil {
			d.log.Error("segment of the config", "segment", name, "err", err)
			continue
		}
		d.log.Info("segment spans", "segment", name, "sites", next)
		everywhere[name] = next
	}
}
