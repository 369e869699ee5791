package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
	"github.com/longhaul-project/longhaul/gateway"
)

// againEvery is how often a forward of the config is tried that could not be made:
// its port may have been taken by what has ended since.
const againEvery = 10 * time.Second

// stretch makes the segments of the config, all at once and before anybody can add others:
// the kernel may be carrying each of them since an earlier gateway has died. It returns those
// that name no sites, with those that they have been given.
func (d *daemon) stretch(ctx context.Context, cfg config.Config) (everywhere map[string][]string) {
	everywhere = map[string][]string{}
	var all []gateway.Segment
	for _, s := range cfg.Segments {
		v := s.View()
		if s.Sites == nil {
			v.Sites, v.Everywhere = d.sites(), true
			everywhere[s.Name] = v.Sites
		}
		all = append(all, v)
	}
	for i, err := range d.layer2.Configure(ctx, all) {
		if err != nil && ctx.Err() == nil {
			d.log.Error("segment of the config", "segment", all[i].Name, "err", err)
		}
	}
	return everywhere
}

// configured makes the forwards of the config. One that does not work is reported and does
// not keep the gateway from serving moves; it is tried again. Then it follows the sites that
// are met later, until ctx is done: they may have joined with a token, or dial in without
// being in the config. Segments that are everywhere get them.
func (d *daemon) configured(ctx context.Context, cfg config.Config, everywhere map[string][]string) error {
	waiting := d.forwards(slices.Clone(cfg.Forwards))
	waiting.try(ctx)
	again := time.NewTicker(againEvery)
	defer again.Stop()
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
			waiting.try(ctx)
			d.spread(ctx, everywhere)
		case <-again.C:
			waiting.try(ctx)
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

// forwards are those of the config that could not be made yet.
type forwards struct {
	add     func(context.Context, config.Forward) error
	log     *slog.Logger
	waiting []config.Forward
	told    map[string]string // by name, what is wrong
}

func (d *daemon) forwards(all []config.Forward) *forwards {
	add := func(ctx context.Context, f config.Forward) error {
		_, err := d.gateway.AddForward(ctx, f.View())
		return err
	}
	return &forwards{add, d.log, all, map[string]string{}}
}

// try makes those that wait. It says what is wrong with one if that is news.
func (w *forwards) try(ctx context.Context) {
	w.waiting = slices.DeleteFunc(w.waiting, func(f config.Forward) bool {
		err := w.add(ctx, f)
		switch {
		case err == nil:
			if w.told[f.Name] != "" {
				w.log.Info("forward of the config works now", "forward", f.Name)
			}
			return true
		case ctx.Err() != nil || w.told[f.Name] == err.Error():
			return false
		case errors.Is(err, gateway.ErrNoSite):
			w.log.Warn("forward of the config waits for its site", "forward", f.Name, "peer", f.To)
		default:
			w.log.Error("forward of the config", "forward", f.Name, "err", err)
		}
		w.told[f.Name] = err.Error()
		return false
	})
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
