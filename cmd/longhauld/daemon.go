package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api"
	"github.com/longhaul-project/longhaul/gateway/cluster"
	"github.com/longhaul-project/longhaul/gateway/metrics"
	"github.com/longhaul-project/longhaul/internal/qemu/host"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream"
	"github.com/longhaul-project/longhaul/l2ext/hostnet"
	"github.com/longhaul-project/longhaul/tunnel"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// metricsTime bounds one scrape.
const metricsTime = 10 * time.Second

// daemon is all that a gateway consists of.
type daemon struct {
	path  string // of the config
	level *slog.LevelVar
	log   *slog.Logger

	reloading sync.Mutex // one reload at a time, from the file to the last part that takes it; before any other lock

	conf    *current
	id      *pki.Identity
	node    *tunnel.Node
	hosts   []*host.Host
	layer2  *gateway.Layer2
	cluster *cluster.Cluster
	gateway *gateway.Gateway
	peers   *peers

	met chan struct{} // a link has come up; one place: looks at the sites coalesce
}

// serve runs a gateway until ctx is done.
func serve(ctx context.Context, path string, cfg config.Config, stderr io.Writer) error {
	d, err := newDaemon(path, cfg, stderr)
	if err != nil {
		return err
	}
	return d.run(ctx, cfg)
}

// newDaemon makes a gateway that does not run yet.
func newDaemon(path string, cfg config.Config, stderr io.Writer) (*daemon, error) {
	d := &daemon{path: path, level: new(slog.LevelVar), conf: &current{cfg: cfg}, met: make(chan struct{}, 1)}
	d.log = newLogger(stderr, cfg.Log, d.level)
	return d, d.build(cfg)
}

func newLogger(w io.Writer, c config.Log, level *slog.LevelVar) *slog.Logger {
	setLevel(level, c.Level)
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// setLevel takes a level that the config's check has seen.
func setLevel(v *slog.LevelVar, name string) {
	var l slog.Level
	if l.UnmarshalText([]byte(name)) == nil {
		v.Set(l)
	}
}

// build makes the parts, from the outside in. Nothing runs yet.
func (d *daemon) build(cfg config.Config) error {
	// The API's group has to get at its socket; what is secret is in Dir.
	for dir, mode := range map[string]os.FileMode{cfg.Dir: 0o700, cfg.RunDir: 0o755, filepath.Join(cfg.RunDir, "forward"): 0o755} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return fmt.Errorf("making a directory of the gateway: %w", err)
		}
	}
	id, err := pki.Load(cfg.PKI)
	if err != nil {
		return fmt.Errorf("loading the identity (longhaul init or longhaul join makes it): %w", err)
	}
	if id.Site() != cfg.Site || id.Gateway() != cfg.Gateway {
		return fmt.Errorf("the certificate in %s is for site %s, gateway %s; the config says %s, %s", cfg.PKI, id.Site(), id.Gateway(), cfg.Site, cfg.Gateway)
	}
	d.id = id
	if d.peers, err = openPeers(cfg); err != nil {
		return err
	}
	if err := d.buildNode(cfg); err != nil {
		return err
	}
	if err := d.buildHosts(cfg); err != nil {
		return err
	}
	return d.buildGateway(cfg)
}

func (d *daemon) buildNode(cfg config.Config) error {
	key, err := resetKey(cfg.Dir)
	if err != nil {
		return err
	}
	d.conf.rate = cfg.Link.Rates().At(time.Now())
	d.node, err = tunnel.New(tunnel.Config{
		Site: cfg.Site, Gateway: cfg.Gateway, Version: version,
		ServerTLS: d.id.ServerTLS(), ClientTLS: d.id.ClientTLS(), Enrol: d.enrol, ResetKey: key,
		Listen: cfg.Listen, Patience: cfg.Link.Patience.Std(), Conns: cfg.Link.Connections, Carrier: tunnel.Carrier(cfg.Link.Carrier), Rate: d.conf.rate,
		Weights: cfg.Link.Weights.Tunnel(),
		Logger:  d.log, OnDatagram: d.onDatagram, OnExpress: d.onExpress,
	})
	if err != nil {
		return err
	}
	return d.node.SetPeers(d.peers.list())
}

func (d *daemon) buildHosts(cfg config.Config) error {
	for _, h := range cfg.Hosts {
		made, err := host.New(host.Config{
			Name: h.Name, Sockets: h.QMP, Dir: h.QMPDir, RunDir: h.RunDir, Template: h.Launch, Emulators: h.Emulators,
			Before: h.Before, After: h.After, Env: h.Env, WorkDir: h.WorkDir, Logger: d.log,
		})
		if err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
		d.hosts = append(d.hosts, made)
	}
	return nil
}

func (d *daemon) buildGateway(cfg config.Config) error {
	net, err := hostnet.New(hostnet.Config{Tun: cfg.L2.Carrier, Logger: d.log})
	if err != nil {
		return err
	}
	if d.layer2, err = gateway.NewLayer2(gateway.Layer2Config{Site: cfg.Site, Node: d.node, Host: net, Underlay: cfg.L2.Address(), StateDir: cfg.Dir, Logger: d.log}); err != nil {
		return err
	}
	d.cluster, err = cluster.New(cluster.Config{
		Site: cfg.Site, Gateway: cfg.Gateway, Carrier: clusterCarrier{d.node}, Meta: cluster.Meta{Version: version}, Logger: d.log,
	})
	if err != nil {
		return err
	}
	d.cluster.SetPeers(d.peers.sites())
	g := gateway.Config{
		Site: cfg.Site, Name: cfg.Gateway, Version: version, Listen: cfg.Listen, Node: d.node, Network: d.layer2,
		Formats:  gateway.Formats{Recognise: vmstream.Recognise, Opaque: vmstream.NewOpaque, Pack: vmstream.NewPacker},
		StateDir: cfg.Dir, RunDir: cfg.RunDir, StoreMemory: int64(cfg.Store.Memory),
		StoreDisk: int64(cfg.Store.Disk), StoreDir: filepath.Join(cfg.Dir, "store"), AllowForward: cfg.AllowForward,
		Announcements: d.layer2.Serve, LinkChanged: d.linkChanged, CertEnd: d.id.Expires, Logger: d.log,
		ContentKey: d.id.FleetKey("pages of the content store"), Images: images{},
		SeedDirs: cfg.Store.Seed.Dirs, SeedRate: int64(cfg.Store.Seed.Rate), SeedReadRate: int64(cfg.Store.Seed.ReadRate), SeedLocal: cfg.Store.Seed.Local,
		Members: func(site string) string { return string(d.cluster.Site(site).State) },
	}
	for _, h := range d.hosts {
		g.Hosts = append(g.Hosts, h)
	}
	g.Tenants, g.HostTenants = cfg.Tenants, map[string]string{}
	for _, h := range cfg.Hosts {
		g.HostTenants[h.Name] = h.Tenant
	}
	d.gateway, err = gateway.New(g)
	return err
}

// run serves until ctx is done, and then ends the parts in the order in which
// they need each other: moves, then segments and membership, then the link.
func (d *daemon) run(ctx context.Context, cfg config.Config) error {
	ln, err := api.Listen(cfg.API.Socket, cfg.API.Group)
	if err != nil {
		return err
	}
	outer, stopOuter := context.WithCancel(context.WithoutCancel(ctx)) // the link
	defer stopOuter()
	inner, stopInner := context.WithCancel(outer) // what moves need of it
	defer stopInner()
	link, linkCtx := errgroup.WithContext(outer)
	link.Go(func() error { return d.node.Run(linkCtx) })
	below, belowCtx := errgroup.WithContext(inner)
	below.Go(func() error { return d.layer2.Run(belowCtx) })
	accepting, stopAccepting := context.WithCancel(outer) // who says good-bye while we do waits for an answer
	defer stopAccepting()
	below.Go(func() error { defer stopAccepting(); return d.cluster.Run(belowCtx) })
	below.Go(func() error { return d.acceptConns(accepting) })

	everywhere := d.stretch(ctx, cfg)
	top, topCtx := errgroup.WithContext(ctx)
	top.Go(func() error { // nothing goes on without the link, or with half of what is below
		select {
		case <-linkCtx.Done():
			return context.Cause(linkCtx)
		case <-belowCtx.Done():
			return context.Cause(belowCtx)
		case <-topCtx.Done():
			return nil
		}
	})
	top.Go(func() error { return d.gateway.Run(topCtx) })
	top.Go(func() error { return d.serveAPI(topCtx, ln, cfg) })
	top.Go(func() error { return d.renew(topCtx) })
	top.Go(func() error { return d.reloadOnHangup(topCtx) })
	top.Go(func() error { return d.configured(topCtx, cfg, everywhere) })
	top.Go(func() error { return d.followCalendar(topCtx) })
	err = top.Wait()
	notify("STOPPING=1")
	d.log.Info("stopping", "err", err)
	stopInner()
	err = errors.Join(err, below.Wait())
	failed := linkCtx.Err() != nil // by itself: what else has failed has failed for that
	stopOuter()
	if e := link.Wait(); failed {
		err = e
	} else {
		err = errors.Join(err, e)
	}
	for _, h := range d.hosts {
		err = errors.Join(err, h.Close())
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serveAPI serves the unix socket, and the metrics on a port if there is one.
func (d *daemon) serveAPI(ctx context.Context, ln net.Listener, cfg config.Config) error {
	b := &backend{Gateway: d.gateway, Layer2: d.layer2, d: d}
	reg := prometheus.NewRegistry()
	reg.MustRegister(metrics.New(b), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return api.New(api.Config{Backend: b, Version: version, Gatherer: reg, Registerer: reg, Logger: d.log}).Run(ctx, ln)
	})
	if cfg.Metrics.Listen != "" {
		g.Go(func() error { return serveMetrics(ctx, cfg.Metrics.Listen, api.MetricsHandler(reg)) })
	}
	return g.Wait()
}

func serveMetrics(ctx context.Context, addr string, h http.Handler) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listening for Prometheus: %w", err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: metricsTime, WriteTimeout: metricsTime, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving metrics: %w", err)
	}
	return nil
}
