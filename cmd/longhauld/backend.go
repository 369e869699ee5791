package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// backend is what the API asks: the gateway, its segments, and what concerns
// the daemon as a whole.
type backend struct {
	*gateway.Gateway
	*gateway.Layer2
	d *daemon
}

var _ api.Backend = (*backend)(nil)

// Run is ambiguous between the embedded parts, and nobody's to call here.
func (b *backend) Run(context.Context) error { return errors.ErrUnsupported }

// AddSegment implements api.Backend. Who may use the API may not have commands
// run by root.
func (b *backend) AddSegment(ctx context.Context, s gateway.Segment) (gateway.Segment, error) {
	if len(s.Policy.HostRoute) > 0 {
		return s, fmt.Errorf("segment %s: host_route can only be set in the config: %w", s.Name, gateway.ErrInvalid)
	}
	return b.Layer2.StretchSegment(ctx, s)
}

// CreateToken implements api.Backend.
func (b *backend) CreateToken(_ context.Context, site string, ttl time.Duration) (string, time.Time, error) {
	cfg := b.d.conf.get()
	if site == cfg.Site { // a link leads to another site
		return "", time.Time{}, fmt.Errorf("site %s is this one, and a site has one gateway: %w", site, gateway.ErrInvalid)
	}
	if !b.d.id.Founder() { // before all that an operator could put right here
		return "", time.Time{}, fmt.Errorf("%w: %w", gateway.ErrUnavailable, pki.ErrNotFounder)
	}
	if len(cfg.Address) == 0 {
		return "", time.Time{}, fmt.Errorf("the config has no address at which the other site could reach this gateway: %w", gateway.ErrUnavailable)
	}
	line, err := b.d.id.CreateToken(site, ttl, cfg.Address...)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("%w: %w", gateway.ErrInvalid, err)
	}
	token, err := pki.ParseToken(line)
	return line, token.Expires, err
}

// Revoke implements api.Backend.
func (b *backend) Revoke(_ context.Context, site string) error {
	switch err := b.d.id.RevokeSite(site); {
	case errors.Is(err, pki.ErrNotFounder):
		return fmt.Errorf("%w: %w", gateway.ErrUnavailable, err)
	case err != nil:
		return fmt.Errorf("revoking site %s: %w: %w", site, gateway.ErrInvalid, err)
	}
	b.d.log.Warn("site revoked", "peer", site)
	return nil
}

// Reload implements api.Backend.
func (b *backend) Reload(context.Context) ([]string, error) { return b.d.reload() }

// current is the config in use.
type current struct {
	mu   sync.Mutex // guards what follows
	cfg  config.Config
	rate int64 // cap of the links now, bytes per second
}

func (c *current) get() config.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg
}

// reload reads the config file again and applies what can change while the
// gateway runs. It returns the keys that wait for a restart. SIGHUP and the API may ask
// for it at once: then the file that was read last is what holds.
func (d *daemon) reload() (restart []string, err error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	next, err := config.Load(d.path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", gateway.ErrInvalid, err)
	}
	d.conf.mu.Lock()
	now, restart := d.conf.cfg.Reload(next)
	d.conf.cfg = now
	d.conf.mu.Unlock()
	setLevel(d.level, now.Log.Level)
	d.peers.configure(now.Peers)
	if err := d.node.SetPeers(d.peers.list()); err != nil {
		return nil, err
	}
	d.cluster.SetPeers(d.peers.sites())
	if err := d.node.SetWeights(now.Link.Weights.Tunnel()); err != nil {
		return nil, err
	}
	rate, _ := d.conf.setRate(time.Now(), d.node.SetRate)
	d.log.Info("config reloaded", "rate", rate)
	if len(restart) > 0 {
		d.log.Warn("some keys of the config wait for a restart", "keys", strings.Join(restart, ", "))
	}
	return restart, nil
}

// reloadOnHangup reloads whenever SIGHUP arrives, until ctx is done.
func (d *daemon) reloadOnHangup(ctx context.Context) error {
	hangup := make(chan os.Signal, 1) // one: reloads coalesce
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-hangup:
			notify(reloadingNow())
			if _, err := d.reload(); err != nil {
				d.log.Error("config not reloaded, the old one stays", "err", err)
			}
			notify("READY=1")
		case <-ctx.Done():
			return nil
		}
	}
}
