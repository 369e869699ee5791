package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/longhaul-project/longhaul/tunnel"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

const (
	// renewEvery is how often the end of our certificate is looked at.
	renewEvery = time.Hour
	// syncTime bounds one exchange of revocation lists.
	syncTime = 20 * time.Second
)

// enroller answers joiners and gateways of the fleet.
func (d *daemon) enroller() *pki.Enroller {
	cfg := d.conf.get()
	return &pki.Enroller{
		ID:     d.id,
		Peers:  func() []pki.Peer { return []pki.Peer{{Site: cfg.Site, Addrs: cfg.Address}} },
		OnJoin: d.joined,
		Logger: d.log,
	}
}

// enrol answers a stranger with a token.
func (d *daemon) enrol(ctx context.Context, conn net.Conn, state tls.ConnectionState) {
	if err := d.enroller().Handle(ctx, conn, state); err != nil {
		d.log.Warn("a gateway asked to join", "peer", conn.RemoteAddr(), "err", err)
	}
}

// joined remembers a new site, so that it is dialed and shown from now on.
func (d *daemon) joined(site, gw string, addrs []string) {
	d.log.Info("a gateway joined the fleet", "peer", site, "gateway", gw)
	if site == d.conf.get().Site {
		return // no link leads to one's own site
	}
	if err := d.peers.add(tunnel.Peer{Site: site, Addrs: addrs}); err != nil {
		d.log.Error("remembering a new site", "peer", site, "err", err)
	}
	if err := d.node.SetPeers(d.peers.list()); err != nil {
		d.log.Error("dialing a new site", "peer", site, "err", err)
	}
	d.cluster.SetPeers(d.peers.sites())
}

// answerPKI answers one request of a gateway of the fleet. It takes conn.
func (d *daemon) answerPKI(ctx context.Context, conn *tunnel.Conn) {
	defer conn.Close()
	if err := d.enroller().Handle(ctx, conn, conn.ConnectionState()); err != nil {
		d.log.Warn("request of a peer", "peer", conn.Site(), "err", err)
	}
}

// syncWith exchanges revocation lists with a peer whose link came up.
func (d *daemon) syncWith(site string) {
	go func() { // bounded by syncTime
		ctx, cancel := context.WithTimeout(context.Background(), syncTime)
		defer cancel()
		changed, err := d.overPKI(ctx, site, func(c *tunnel.Conn) (bool, error) { return pki.Sync(ctx, c, d.id) })
		if err != nil {
			d.log.Debug("exchanging revocation lists", "peer", site, "err", err)
		} else if changed {
			d.log.Info("revocation list updated", "peer", site)
		}
	}()
}

// overPKI runs one exchange over a connection to a peer.
func (d *daemon) overPKI(ctx context.Context, site string, exchange func(*tunnel.Conn) (bool, error)) (bool, error) {
	link := d.node.Link(site)
	if link == nil {
		return false, fmt.Errorf("site %s is no peer", site)
	}
	conn, err := link.Dial(ctx, protoPKI)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	return exchange(conn)
}

// renew renews our certificate in good time, and cuts off peers whose
// certificates have been revoked, until ctx is done.
func (d *daemon) renew(ctx context.Context) error {
	stop := d.id.OnRevocation(d.revoked)
	defer stop()
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		if d.id.RenewDue(time.Now()) {
			if err := d.renewOnce(ctx); err != nil && ctx.Err() == nil {
				d.log.Warn("certificate not renewed, tried again in an hour", "expires", d.id.Expires(), "err", err)
			} else if err == nil {
				d.log.Info("certificate renewed", "expires", d.id.Expires())
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// revoked cuts off the peers that a new list names and passes it on; where it
// is known already, that is where it ends.
func (d *daemon) revoked() {
	d.node.Recheck(d.id.Check)
	for _, l := range d.node.Links() {
		if l.State().Up {
			d.syncWith(l.Site())
		}
	}
}

// renewOnce asks the founding gateway, whichever of the peers it is.
func (d *daemon) renewOnce(ctx context.Context) error {
	if d.id.Founder() {
		return d.id.RenewSelf()
	}
	problems := []error{errors.New("no peer has renewed it")}
	for _, l := range d.node.Links() {
		ctx, cancel := context.WithTimeout(ctx, syncTime)
		_, err := d.overPKI(ctx, l.Site(), func(c *tunnel.Conn) (bool, error) { return true, pki.Renew(ctx, c, d.id) })
		cancel()
		if err == nil {
			return nil
		}
		problems = append(problems, fmt.Errorf("site %s: %w", l.Site(), err))
	}
	return errors.Join(problems...)
}

// resetKey is the secret with which a restarted gateway tells its peers that
// their connections are dead. It is made once.
func resetKey(dir string) (*[32]byte, error) {
	path := filepath.Join(dir, "reset.key")
	var key [32]byte
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) != len(key) {
		rand.Read(key[:])
		return &key, os.WriteFile(path, key[:], 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the reset key: %w", err)
	}
	copy(key[:], b)
	return &key, nil
}
