package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
)

// Carrier is the links to other sites.
type Carrier interface {
	// SendDatagram sends b to the site, without any promise; it does not
	// wait. It borrows b. An error says that the site is out of reach now.
	SendDatagram(site string, b []byte) error
	// Dial opens a connection on which the peer calls HandleConn.
	Dial(ctx context.Context, site string) (net.Conn, error)
}

// Config of a Cluster. Site, Gateway and Carrier are needed.
type Config struct {
	Site    string // name of this gateway's site
	Gateway string // name of this gateway within it
	Carrier Carrier
	Meta    Meta // see SetMeta
	// OnChange, if not nil, is told of each member whose State or Meta has
	// changed, this one included, one at a time.
	OnChange func(Member)
	// Logger may be nil, which discards.
	Logger *slog.Logger
}

// Timing for WANs. Two sites see a death after 10 to 14 s, which is well
// before an operator has read that something is wrong, and later than the
// reconnecting of a link that lost its path.
const (
	probeInterval  = 2 * time.Second
	probeTimeout   = time.Second // a round trip over the worst WAN with a full queue
	suspicionMult  = 4           // times probeInterval: 8 s for a suspect to refute
	gossipInterval = 500 * time.Millisecond
	pushPull       = 30 * time.Second
	streamTimeout  = 10 * time.Second
	forgetAfter    = 60 * time.Second // then memberlist forgets a dead node
	leaveTimeout   = 3 * time.Second  // for saying good-bye: three round trips over the worst WAN
	pollInterval   = time.Second
	joinMin        = time.Second
	joinMax        = 30 * time.Second
)

// Cluster is this gateway's view of the fleet. All methods are safe for
// concurrent use; what comes in while Run does not run is dropped.
type Cluster struct {
	// Constant after New.
	cfg Config
	log *slog.Logger

	table table
	poke  chan struct{} // capacity 1: one reminder to look is enough

	mu    sync.Mutex // guards what follows; held for no I/O and no callback
	t     *transport // while Run runs
	meta  Meta
	dirty bool // meta has changed and the others do not know yet
	peers map[string]*peer
	wg    sync.WaitGroup // goroutines of Run
}

// peer is a site that we wish to be in touch with.
type peer struct {
	next    time.Time // when to try to join it; zero is at once
	backoff time.Duration
	busy    bool
}

// New makes a cluster of one. It starts nothing: Run does.
func New(cfg Config) (*Cluster, error) {
	if _, _, err := splitName(nodeName(cfg.Site, cfg.Gateway)); err != nil {
		return nil, err
	}
	if err := cfg.Meta.check(); err != nil {
		return nil, err
	}
	if cfg.Carrier == nil {
		return nil, errors.New("cluster without a carrier")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Cluster{
		cfg:   cfg,
		log:   cfg.Logger,
		meta:  cfg.Meta,
		table: table{members: map[string]*Member{}},
		peers: map[string]*peer{},
		poke:  make(chan struct{}, 1),
	}, nil
}

// Members gives all gateways that have ever been heard of, the dead of the
// last week included, by name.
func (c *Cluster) Members() []Member { return c.table.list() }

// Site gives the member of a site that is best off; its State is Unknown when
// none has been heard of.
func (c *Cluster) Site(site string) Member { return c.table.site(site) }

// SetPeers names the sites to be in touch with. Others are not cut off: they
// are heard of through these, and those that speak to us are kept.
func (c *Cluster) SetPeers(sites []string) {
	for _, site := range sites {
		c.know(site)
	}
	c.wake()
}

// PeerUp says that the link to a site has come up: it is joined at once.
func (c *Cluster) PeerUp(site string) {
	if !c.know(site) {
		return
	}
	c.mu.Lock()
	c.peers[site].next, c.peers[site].backoff = time.Time{}, 0
	c.mu.Unlock()
	c.wake()
}

// know makes a site a peer; false says that it cannot be one.
func (c *Cluster) know(site string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers[site] != nil {
		return true
	}
	if site == c.cfg.Site || !validName(site) || len(c.peers) >= maxMembers-1 {
		return false
	}
	c.peers[site] = &peer{}
	if c.t != nil {
		c.t.learn(site)
	}
	return true
}

// SetMeta changes what this gateway tells the others of itself.
func (c *Cluster) SetMeta(m Meta) error {
	if err := m.check(); err != nil {
		return err
	}
	c.mu.Lock()
	c.dirty = c.dirty || m != c.meta
	c.meta = m
	c.mu.Unlock()
	c.wake()
	return nil
}

func (c *Cluster) wake() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// HandleDatagram takes a datagram that a site's gateway has sent with
// Carrier.SendDatagram. It takes b and does not wait.
func (c *Cluster) HandleDatagram(site string, b []byte) {
	t := c.running(site)
	if t == nil {
		return
	}
	if err := t.deliver(site, b); err != nil {
		c.log.Debug("membership packet dropped", "site", site, "err", err)
	}
}

// HandleConn takes a connection that a site's gateway has dialed with
// Carrier.Dial. It takes conn and does not wait.
func (c *Cluster) HandleConn(site string, conn net.Conn) {
	t := c.running(site)
	if t == nil {
		_ = conn.Close()
		return
	}
	// memberlist takes it at once, unless it is just ending.
	if err := t.accept(site, conn); err != nil {
		c.log.Debug("membership connection dropped", "site", site, "err", err)
	}
}

// running is the transport while Run runs; the site becomes a peer.
func (c *Cluster) running(site string) *transport {
	if !c.know(site) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

// Run takes part in the fleet until ctx ends, and then says good-bye, which
// takes a round trip to the farthest gateway, 3 s at most, and needs the carrier
// to work until Run returns. All connections are closed then; a probe of
// memberlist that is under way may hold its goroutine for some seconds more,
// without using anything of ours.
func (c *Cluster) Run(ctx context.Context) error {
	t := newTransport(c.cfg.Site, c.cfg.Carrier)
	t.learn(c.cfg.Site)
	c.mu.Lock()
	for site := range c.peers {
		t.learn(site)
	}
	c.t = t
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.t = nil
		c.mu.Unlock()
		t.stop()
	}()
	m, err := memberlist.Create(c.config(t))
	if err != nil {
		return fmt.Errorf("starting membership: %w", err)
	}
	c.loop(ctx, m, t)
	c.leave(m)
	err = m.Shutdown() // cuts what still waits for an answer
	c.wg.Wait()
	t.conns.Wait()
	return err
}

// config is memberlist's.
func (c *Cluster) config(t *transport) *memberlist.Config {
	conf := memberlist.DefaultWANConfig()
	conf.Name = nodeName(c.cfg.Site, c.cfg.Gateway)
	conf.Transport = t
	conf.ProtocolVersion = memberlist.ProtocolVersionMax
	conf.BindPort, conf.AdvertisePort = nodePort, nodePort
	conf.ProbeInterval, conf.ProbeTimeout = probeInterval, probeTimeout
	conf.SuspicionMult, conf.SuspicionMaxTimeoutMult = suspicionMult, 3
	conf.GossipInterval, conf.GossipNodes, conf.GossipToTheDeadTime = gossipInterval, 3, forgetAfter
	conf.PushPullInterval = pushPull
	conf.TCPTimeout = streamTimeout
	// When all probes fail, the link is down and we are not: slow down
	// little. The default of 8 would make a death take minutes.
	conf.AwarenessMaxMultiplier = 2
	conf.EnableCompression = false          // checkPacket refuses it
	conf.UDPBufferSize = maxPacket - 20     // it does not count checksum and heads
	conf.HandoffQueueDepth = 4 * maxMembers // messages of 1200 bytes at most
	conf.Logger = memberlistLogger(c.log)
	d := delegate{c}
	conf.Delegate, conf.Events, conf.Alive = d, d, d
	return conf
}

// loop looks, joins and tells until ctx ends.
func (c *Cluster) loop(ctx context.Context, m *memberlist.Memberlist, t *transport) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		c.look(m, t)
		c.tellMeta(m)
		c.join(m)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.poke:
		}
	}
}

// look brings the table up to date and tells what has changed.
func (c *Cluster) look(m *memberlist.Memberlist, t *transport) {
	// The error is that of a snapshot, always.
	_, _ = m.Join([]string{siteAddr(c.cfg.Site).String()})
	nodes, err := parseState(t.takeSnapshot())
	if err != nil {
		c.log.Error("membership state unreadable", "err", err)
		return
	}
	for _, member := range c.table.update(time.Now(), nodes) {
		c.log.Info("member changed", "peer", member.Name, "state", string(member.State), "why", member.Why)
		if c.cfg.OnChange != nil {
			c.cfg.OnChange(member)
		}
	}
}

// tellMeta tells the others of a changed Meta.
func (c *Cluster) tellMeta(m *memberlist.Memberlist) {
	c.mu.Lock()
	dirty := c.dirty
	c.dirty = false
	c.mu.Unlock()
	if dirty {
		// It queues the news and then waits until they are sent; the
		// shortest wait is what we want.
		_ = m.UpdateNode(time.Nanosecond)
	}
}

// join tries to get in touch with the sites of which nobody is alive.
func (c *Cluster) join(m *memberlist.Memberlist) {
	now := time.Now()
	c.mu.Lock()
	peers := maps.Clone(c.peers)
	c.mu.Unlock()
	for site := range peers {
		state := c.table.site(site).State
		if c.due(site, state, now) {
			c.wg.Go(func() { c.joinSite(m, site) })
		}
	}
}

// due decides whether to join a site now.
func (c *Cluster) due(site string, state State, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.peers[site]
	if state == Alive || state == Suspect {
		p.next, p.backoff = time.Time{}, 0
		return false
	}
	if p.busy || now.Before(p.next) {
		return false
	}
	p.busy = true
	return true
}

// joinSite tries once, and says when to try again.
func (c *Cluster) joinSite(m *memberlist.Memberlist, site string) {
	_, err := m.Join([]string{siteAddr(site).String()})
	c.mu.Lock()
	p := c.peers[site]
	p.busy = false
	if err == nil {
		p.backoff = 0 // it may take a second time: see the package comment
	}
	p.backoff = min(max(2*p.backoff, joinMin), joinMax)
	p.next = time.Now().Add(p.backoff)
	c.mu.Unlock()
	if err == nil {
		c.wake()
	}
}

// leaveTogether is how many sites are told good-bye at a time, of the maxConns
// connections that there may be.
const leaveTogether = maxConns / 2

// leave says good-bye to all sites. memberlist's own way is to gossip it with the
// next four rounds, 2 s and more, to nodes by chance; instead we exchange the whole
// state with each site, in which we have left: it has been read when the answer comes.
func (c *Cluster) leave(m *memberlist.Memberlist) {
	// It marks us as gone and then waits for the rounds; the shortest wait is
	// what we want, and that it was too short the only error.
	_ = m.Leave(time.Nanosecond)
	var sites []string
	for _, n := range m.Members() { // suspects are among them, the dead are not
		if site, _, err := splitName(n.Name); err == nil && site != c.cfg.Site && !slices.Contains(sites, site) {
			sites = append(sites, site)
		}
	}
	slices.SortStableFunc(sites, func(a, b string) int { // those that answer first
		return cmp.Compare(rank(c.Site(b).State), rank(c.Site(a).State))
	})
	told := make(chan struct{})
	c.wg.Go(func() {
		defer close(told)
		var g errgroup.Group
		g.SetLimit(leaveTogether)
		for _, site := range sites {
			g.Go(func() error {
				if _, err := m.Join([]string{siteAddr(site).String()}); err != nil {
					c.log.Debug("good-bye not said", "peer", site, "err", err)
				}
				return nil
			})
		}
		_ = g.Wait() // there are no errors
	})
	select {
	case <-told:
	case <-time.After(leaveTimeout):
	}
}

// delegate is what memberlist calls, under its locks.
type delegate struct{ c *Cluster }

var (
	_ memberlist.Delegate      = delegate{}
	_ memberlist.EventDelegate = delegate{}
	_ memberlist.AliveDelegate = delegate{}
)

// NodeMeta is what we tell of ourselves.
func (d delegate) NodeMeta(int) []byte {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	return d.c.meta.Append(nil)
}

// NotifyAlive refuses gateways that cannot be.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	site, _, err := splitName(n.Name)
	if err != nil {
		return err
	}
	if !n.Addr.Equal(siteIP(site)) || n.Port != nodePort {
		return fmt.Errorf("%s claims address %s", n.Name, n.Address())
	}
	if _, err := ParseMeta(n.Meta); err != nil {
		return err
	}
	return d.c.table.room(n.Name)
}

// NotifyJoin, NotifyLeave and NotifyUpdate have Run look at once.
func (d delegate) NotifyJoin(*memberlist.Node) { d.c.wake() }

// NotifyLeave is NotifyJoin.
func (d delegate) NotifyLeave(*memberlist.Node) { d.c.wake() }

// NotifyUpdate is NotifyJoin.
func (d delegate) NotifyUpdate(*memberlist.Node) { d.c.wake() }

// NotifyMsg gets user messages, of which there are none.
func (d delegate) NotifyMsg([]byte) {}

// GetBroadcasts gives user messages, of which there are none.
func (d delegate) GetBroadcasts(_, _ int) [][]byte { return nil }

// LocalState gives user state, of which there is none.
func (d delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState gets user state, of which there is none.
func (d delegate) MergeRemoteState([]byte, bool) {}
