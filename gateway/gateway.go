package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/tunnel"
)

// Config of a gateway. Site, Node, Formats, StateDir and RunDir are needed;
// the rest may be zero.
type Config struct {
	Site    string // name of this site
	Name    string // name of this gateway; the site's by default
	Version string
	Listen  string // address of the link, as it is shown
	Node    *tunnel.Node
	Hosts   []Host
	Network Network // nil: no segment is stretched
	Formats Formats

	StateDir string // holds the journal
	RunDir   string // holds the sockets of the legs

	// StoreMemory bounds what is kept in memory of the content that a peer
	// holds as well, in bytes; StoreDisk what is kept on disk below StoreDir,
	// for each peer. Zero means dedup's defaults; no StoreDir, no disk.
	StoreMemory int64
	StoreDisk   int64
	StoreDir    string

	// ContentKey is the fleet's, for hashes of pages; see dedup.Key.
	ContentKey dedup.Key

	// Tenants are those whose content is kept apart; the budgets of the store are
	// shared evenly among them and the default tenant. HostTenants tells by the
	// name of a host whose VMs it runs; other hosts run anybody's.
	Tenants     []string
	HostTenants map[string]string

	// Images opens what can be seeded. Nil, or no StoreDir: nothing can be, and
	// peers are not asked what they have.
	Images Images

	// SeedDirs are directories whose images are kept seeded. SeedRate caps what
	// of them crosses to each peer, in bits per second; 0 is no cap. SeedLocal
	// sends none of it. SeedReadRate bounds what is read of any image, in bits per second;
	// 0 is no bound.
	SeedDirs     []string
	SeedRate     int64
	SeedReadRate int64
	SeedLocal    bool

	// AllowForward tells whether a peer's forward may come out at this local
	// address. Nil allows none.
	AllowForward func(network, address string) error

	// Announcements serves a channel on which a peer announces what concerns
	// its segments, until ctx ends. Nil refuses them.
	Announcements func(ctx context.Context, ch *tunnel.Channel)

	// LinkChanged is told when the link to a site comes up or goes down; each
	// link has a goroutine that calls it. May be nil.
	LinkChanged func(site string, up bool)

	// Members tells what the membership says of a site; nil says nothing.
	Members func(site string) string

	// CertEnd tells when this gateway's certificate ends; nil says nothing.
	CertEnd func() time.Time

	Logger *slog.Logger // nil discards
}

// Network is what a move asks of the stretched segments; Layer2 is one. Every
// call may be repeated, and none waits for the WAN.
type Network interface {
	// Prepare says that a job will move these NICs to a site. One that was
	// revoked begins anew.
	Prepare(job string, nics []NIC, to string)
	// Flip sends their traffic there; the VM has stopped here.
	Flip(job string)
	// Expect says that the VM will come to run here, behind these NICs.
	Expect(job string, nics []NIC)
	// Settle announces them here; the VM runs.
	Settle(job string, nics []NIC)
	// Confirm makes the flip final; both sites are asked.
	Confirm(job string)
	// Revoke takes the flip back: the VM stays at its source.
	Revoke(job string)
	// Silence tells, at the source, how long the VM's peers heard nothing of
	// it; nil if that is not known. It may wait for silenceTime.
	Silence(job, peer string) *Silence
}

// noNetwork is for a gateway that stretches no segment.
type noNetwork struct{}

func (noNetwork) Prepare(string, []NIC, string) {}
func (noNetwork) Flip(string)                   {}
func (noNetwork) Expect(string, []NIC)          {}
func (noNetwork) Settle(string, []NIC)          {}
func (noNetwork) Confirm(string)                {}
func (noNetwork) Revoke(string)                 {}
func (noNetwork) Silence(_, _ string) *Silence  { return nil }

// A Gateway is one site's end of the path.
type Gateway struct {
	cfg     Config
	log     *slog.Logger
	node    *tunnel.Node
	l2      Network
	journal *Journal
	jobs    *jobs
	since   time.Time
	tests   linkTests
	served  served // parts of peers' tests

	images               images
	patience             patience
	hearEvery, keepEvery time.Duration // tests shorten them
	noteEvery            time.Duration // this, too
	spoil                func([]byte)  // of tests, see session
	noPages              atomic.Bool   // of tests: peers do not get what they have lost

	ready chan struct{} // closed when what an earlier run has left is known

	ctx  context.Context // of Run; set before anything is served
	stop context.CancelFunc
	wg   sync.WaitGroup // all goroutines but Run's

	clearing sync.Mutex   // held by clear, see left.go
	orders   sync.RWMutex // held while an order to run is carried out; for writing, none is any more

	mu       sync.Mutex // guards what follows
	commons  map[commonKey]*common
	sinks    map[string]*sinkMove
	forwards map[string]*forward
	left     map[*leftover]struct{}   // see left.go
	groups   map[string]*session      // forwarded sessions that come out here
	held     map[string]*atomic.Int64 // bytes held back for each peer, see inbound.go
}

// patience is how long a gateway waits for what others do. Tests shorten it.
type patience struct{ query, standstill, switchover, drain time.Duration }

// New opens the journal and makes a gateway; Run serves.
func New(cfg Config) (*Gateway, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Name == "" {
		cfg.Name = cfg.Site
	}
	if cfg.Network == nil {
		cfg.Network = noNetwork{}
	}
	for _, dir := range []string{cfg.StateDir, cfg.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("making a directory of the gateway: %w", err)
		}
	}
	j, err := OpenJournal(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		cfg: cfg, log: cfg.Logger, node: cfg.Node, l2: cfg.Network, journal: j, since: time.Now().UTC(), patience: patience{query: queryEvery, standstill: standstill, switchover: switchPatience, drain: drainTime},
		hearEvery: hearEvery, keepEvery: keepEvery, noteEvery: noteEvery,
		jobs: newJobs(), ready: make(chan struct{}), commons: map[commonKey]*common{}, sinks: map[string]*sinkMove{},
		forwards: map[string]*forward{}, left: map[*leftover]struct{}{}, groups: map[string]*session{}, held: map[string]*atomic.Int64{},
	}
	g.served.own = g.goesFirst
	g.openImages()
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.seedOn()
	return g, nil
}

// errStopping is why moves end when the gateway does.
var errStopping = errors.New("the gateway is being stopped")

// Run takes up what an earlier run has left, and serves peers until ctx is
// done. Moves that have not come to their commit then go back to their source; see
// goback.go.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.journal.Close()
	defer g.closeStores()
	if err := g.recover(); err != nil {
		return err
	}
	close(g.ready)
	if g.cfg.LinkChanged != nil {
		g.wg.Go(func() { g.watchLinks(g.ctx) })
	}
	if g.images.pool != nil {
		g.wg.Go(func() { g.hearPeers(g.ctx) })
	}
	if g.images.pool != nil && len(g.cfg.SeedDirs) > 0 {
		g.wg.Go(func() { g.keepSeeded(g.ctx) })
	}
	err := g.accept(ctx)
	g.goBack()
	g.wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// accept takes the channels that peers open.
func (g *Gateway) accept(ctx context.Context) error {
	for {
		ch, err := g.node.Accept(ctx)
		if err != nil {
			return fmt.Errorf("accepting channels: %w", err)
		}
		switch ch.Kind() {
		case kindControl:
			g.wg.Go(func() { g.serveControl(g.ctx, ch) })
		case kindLeg:
			g.wg.Go(func() { g.serveLeg(ch) })
		case kindStore:
			g.wg.Go(func() { g.serveStore(g.ctx, ch) })
		case kindPages:
			g.wg.Go(func() { g.servePages(g.ctx, ch) })
		case kindTest:
			g.wg.Go(func() { g.served.serve(g.ctx, ch) })
		case kindSeed:
			g.wg.Go(func() { g.serveSeed(g.ctx, ch) })
		case kindSummary:
			g.wg.Go(func() { g.serveSummary(g.ctx, ch) })
		case kindL2:
			if g.cfg.Announcements == nil {
				ch.Abort("this gateway stretches no segments")
				continue
			}
			g.wg.Go(func() { g.cfg.Announcements(g.ctx, ch) })
		default:
			ch.Abort(fmt.Sprintf("channel of kind %d: not known to this gateway", ch.Kind()))
		}
	}
}

// serveLeg finds the session that a peer's leg belongs to.
func (g *Gateway) serveLeg(ch *tunnel.Channel) {
	h, err := parseLegHeader(ch.Header())
	if err != nil {
		ch.Abort(err.Error())
		return
	}
	if h.Target != "" {
		g.serveForwarded(ch, h)
		return
	}
	m := g.sinkMove(h.Session)
	if m == nil || m.peer != ch.Site() {
		ch.Abort("no such move here")
		return
	}
	m.takeLeg(ch, h)
}

// heldFor counts the bytes that are held back for a peer.
func (g *Gateway) heldFor(site string) *atomic.Int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held[site] == nil {
		g.held[site] = new(atomic.Int64)
	}
	return g.held[site]
}

func (g *Gateway) sinkMove(token string) *sinkMove {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sinks[token]
}

// sinksFrom lists the moves from a peer to this site.
func (g *Gateway) sinksFrom(peer string) (all []*sinkMove) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.sinks {
		if m.peer == peer {
			all = append(all, m)
		}
	}
	return all
}

func (g *Gateway) rememberSink(m *sinkMove) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sinks[m.job.token] = m
}

func (g *Gateway) forgetSink(token string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sinks, token)
}

// trim forgets the oldest of the moves that have ended.
func (g *Gateway) trim() {
	g.jobs.trim()
	if err := g.journal.Trim(); err != nil {
		g.log.Warn("trimming the journal", "err", err)
	}
}

// chooseHost returns the named host, or the first that takes VMs of the tenant.
func (g *Gateway) chooseHost(name, tenant string) (Host, error) {
	for _, h := range g.cfg.Hosts {
		switch takes := g.takesTenant(h.Name(), tenant); {
		case takes && (name == "" || h.Name() == name):
			return h, nil
		case h.Name() == name:
			return nil, fmt.Errorf("host %s of site %s takes VMs of another tenant only: %w", name, g.cfg.Site, ErrInvalid)
		}
	}
	if name == "" && len(g.cfg.Hosts) > 0 {
		return nil, fmt.Errorf("no host of site %s takes VMs of tenant %q: %w", g.cfg.Site, tenant, ErrUnavailable)
	}
	if name == "" {
		return nil, fmt.Errorf("site %s has no hypervisor host in its config: %w", g.cfg.Site, ErrUnavailable)
	}
	return nil, fmt.Errorf("site %s has no host %q: %w", g.cfg.Site, name, ErrNotFound)
}
