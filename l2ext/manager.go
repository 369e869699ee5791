package l2ext

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/internal/loglimit"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// Config of a Manager. Site, Host and Carrier are required.
type Config struct {
	Site    string // name of this site
	Host    Host
	Carrier Carrier
	// Streams carry TCP connections over lines that lose packets. Nil: there are
	// none, and none are taken.
	Streams Streams

	// Underlay is the address of this machine by which other sites reach it in
	// mode Direct. Invalid: there can be no such segment.
	Underlay netip.Addr

	// RTT is a round trip to another site, of which third sites are told; ok is false while the
	// link is down. Nil: they are not.
	RTT func(site string) (rtt time.Duration, ok bool)

	// Express carries segments of mode secure-fast. Nil: there can be none.
	Express Express

	// Route makes a route to a guest ("arrive") or takes it away ("depart"),
	// see Policy.HostRoutes. It must bear to be called again, after it has
	// failed or an earlier run has called it, and to take away what is not there.
	// It is called by several goroutines, but by one at a time for a MAC of a segment and
	// for an IP, and returns soon after ctx has ended. What it has left running may still have a hand
	// in the route until left is closed, seconds later: then the next call is made for that MAC and IP.
	// A left that is nil is nothing. Nil: there are no routes.
	Route func(ctx context.Context, what string, r HostRoute) (left <-chan struct{}, err error)
	// KeepRoutes keeps the routes that there are, or are about to be, for LeftRoutes
	// of the next run. Nil: they are not kept, and stay when a gateway dies and a guest
	// leaves before the next one runs.
	KeepRoutes func([]HostRoute) error
	// LeftRoutes are those that an earlier run has kept. They go when their guest has
	// left, or is not found within minutes.
	LeftRoutes []HostRoute

	// Limits of frames that are not for one known host.
	Limits Limits
	// Logger may be nil, which discards. It is limited as by LimitLog, but for lines
	// about the moves that this gateway orders.
	Logger *slog.Logger
}

// How often Run looks after things.
const (
	tickEvery      = time.Second
	digestEvery    = 10 * time.Second // facts/l2-extension.md, section A.5
	reconcileEvery = 30 * time.Second // a listing of the kernel's entries; costs about 1 µs for each
	undelivered    = 20               // frames of which none was delivered are no accident
	maxBatch       = 256              // sightings taken together: one announcement instead of many
)

// Errors by which a caller decides.
var (
	ErrNoJob   = errors.New("l2ext: no such job")
	ErrJobOver = errors.New("l2ext: the job is past that step")
	ErrClosed  = errors.New("l2ext: not running")

	ErrNoSegment = errors.New("l2ext: no such segment")
	ErrNoBridge  = errors.New("l2ext: not a bridge")
)

// A Manager keeps this site's end of all stretched segments. Its methods are
// safe for concurrent use, and all but Run, Segments and Check need Run to be running.
type Manager struct {
	// Constant after New.
	cfg     Config
	log     *slog.Logger
	limit   *loglimit.Handler // of log
	orders  *slog.Logger      // without limits: what our own orders meet, of which each line tells of another VM
	done    chan struct{}     // closed when Run has returned
	calls   chan func()       // orders of this gateway; unbuffered, the caller waits for the answer
	news    chan func()       // what peers send; 64 so that the link's reader need not wait for one kernel call each
	seen    chan Sighting     // 1024: a bridge that learns many at once, and when full the next frame tells again
	echoes  *echoes
	parking *budget
	state   atomic.Pointer[map[uint32]*segment] // by VNI; replaced, never changed
	keys    atomic.Pointer[map[uint32]*inKey]   // by index; likewise
	first   atomic.Pointer[map[string]*segment] // by site, see firstExpress; likewise

	// Owned by Run's loop.
	jobs      map[string]*job
	endpoints map[string]vxlan.Endpoint
	senders   sync.WaitGroup
	readers   sync.WaitGroup        // of ports in mode secure-fast
	reading   map[uint32]Port       // by VNI, which they read
	agreed    map[string]*agreement // by site, about keys of that mode; see there
	untold    []untold              // hosts to be announced in the LAN
	lastApply time.Time
	wished    bool // Apply was called: what there is to be is known
	dirty     bool // an entry could not be programmed
	hasten    bool // the kernel has to follow before the next tick, see followWays
	signer    *signer
	routes    *routes // what runRoutes owns, and the way to it

	mu    sync.Mutex       // guards what follows
	peers map[string]*peer // by site
}

// New makes a Manager that has no segments yet.
func New(cfg Config) (*Manager, error) {
	if cfg.Site == "" || len(cfg.Site) > announce.MaxSite || cfg.Host == nil || cfg.Carrier == nil {
		return nil, fmt.Errorf("l2ext: site %q, host and carrier are required", cfg.Site)
	}
	cfg.Limits = cfg.Limits.or(defaultLimits)
	limit := limited(cfg.Logger)
	m := &Manager{
		cfg:       cfg,
		log:       slog.New(limit),
		limit:     limit,
		orders:    slog.New(limit.Unlimited()),
		done:      make(chan struct{}),
		calls:     make(chan func()),
		news:      make(chan func(), 64),
		seen:      make(chan Sighting, 1024),
		jobs:      make(map[string]*job),
		endpoints: make(map[string]vxlan.Endpoint),
		reading:   make(map[uint32]Port),
		agreed:    make(map[string]*agreement),
		peers:     make(map[string]*peer),
		signer:    newSigner(),
		echoes:    &echoes{waiting: make(map[uint64]chan struct{})},
		routes:    newRoutes(cfg.LeftRoutes),
		parking:   &budget{most: maxParkedAll},
	}
	m.state.Store(&map[uint32]*segment{})
	m.keys.Store(&map[uint32]*inKey{})
	m.first.Store(&map[string]*segment{})
	return m, nil
}

// Run does the work until ctx ends, and closes the Host. It may run once.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var watchErr, readErr error
	stop := sync.OnceFunc(func() { cancel(); m.cfg.Host.Close() })
	context.AfterFunc(ctx, stop) // a waiting ReadPacket does not know of ctx
	wg.Go(func() { defer stop(); watchErr = m.cfg.Host.Watch(ctx, func(s Sighting) { m.report(ctx, s) }) })
	wg.Go(func() { m.runRoutes(ctx) })
	wg.Go(func() { defer stop(); readErr = m.readPackets(ctx) })
	m.loop(ctx)
	close(m.done)
	m.setPeers(nil)
	stop()
	m.senders.Wait()
	wg.Wait()
	m.readers.Wait() // the host has closed their ports
	return errors.Join(watchErr, readErr)
}

// loop is the one goroutine that changes bindings. What this gateway orders
// goes first: a flip must not wait for news.
func (m *Manager) loop(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	probes := time.NewTicker(probeFast)
	defer probes.Stop()
	for {
		select {
		case f := <-m.calls:
			f()
			continue
		default:
		}
		select {
		case <-ctx.Done():
			return
		case f := <-m.calls:
			f()
		case f := <-m.news:
			f()
		case s := <-m.seen:
			m.observe(time.Now(), s)
		case <-m.moreToTell():
			m.tellSome()
		case <-tick.C:
			m.tick(ctx, time.Now())
		case <-probes.C:
			m.sendProbes(ctx, time.Now())
			m.restoreTaken(time.Now())
			m.followWays(ctx, time.Now())
			m.askWays(time.Now())
			m.wishDue(time.Now())
		}
	}
}

// call has f done by the loop and waits for its answer.
func (m *Manager) call(ctx context.Context, f func() error) error {
	answer := make(chan error, 1) // the loop need not wait for us
	select {
	case m.calls <- func() { answer <- f() }:
	case <-m.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-m.done:
		return ErrClosed
	}
}

// report takes a sighting from the host.
func (m *Manager) report(ctx context.Context, s Sighting) {
	select {
	case m.seen <- s:
	case <-ctx.Done():
	}
}

// readPackets takes frames from the kernel until the host is closed.
func (m *Manager) readPackets(ctx context.Context) error {
	o := outward{m: m}
	b := make([]byte, 1<<16) // the longest packet
	for {
		n, err := m.cfg.Host.ReadPacket(b)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading from the carrier: %w", err)
		}
		o.packet(time.Now(), b[:n])
	}
}

// segments by VNI, now. The map is not changed any more.
func (m *Manager) segments() map[uint32]*segment { return *m.state.Load() }

// observe takes what was seen on LAN ports: s, and what waits behind it.
func (m *Manager) observe(now time.Time, s Sighting) {
	batches := make(map[*segment]*batch)
	m.observeOne(now, s, batches)
	for n, more := 1, true; more && n < maxBatch; n++ {
		select {
		case s = <-m.seen:
			m.observeOne(now, s, batches)
		default:
			more = false
		}
	}
	for seg, b := range batches {
		m.publish(seg, b)
	}
}

func (m *Manager) observeOne(now time.Time, s Sighting, batches map[*segment]*batch) {
	seg := m.segments()[s.VNI]
	if seg != nil && s.Probe != nil {
		m.takeProbe(now, seg, s.Probe)
		return
	}
	if seg != nil && s.Report != nil {
		m.takeReport(now, seg, s.Report)
		return
	}
	if seg == nil || seg.left || !seg.Policy.binds(s.MAC) || s.Somewhere && !m.bindsHere(seg, s.MAC) {
		return
	}
	if seg.Policy.isGatewayIP(s.IP) {
		s.IP = netip.Addr{} // no host's, whatever it says
	}
	b := batches[seg]
	if b == nil {
		b = &batch{}
		batches[seg] = b
	}
	seg.mu.Lock()
	before := seg.table.site(s.MAC)
	if before != "" && before != m.cfg.Site && seg.loop.mayEcho(now) && (!s.Announced || seg.loop.isJoined(now)) {
		seg.mu.Unlock()
		return // it is there, and we hear it through the back door
	}
	if s.Announced && seg.table.byMAC[s.MAC].isOurs(now, m.cfg.Site) {
		seg.mu.Unlock()
		return
	}
	v := nothing
	if !s.Leased {
		v = seg.table.see(now, s.MAC, s.Announced)
	}
	after := seg.table.site(s.MAC)
	found := !s.Leased && seg.table.found(s.MAC)
	claims := seg.table.note(now, s.MAC, ether.Claim{IP: s.IP, Router: s.Router})
	if known := seg.table.byMAC[s.MAC]; v == broughtHome || v == changed && claims == nil {
		claims = append(claims, known.rec)
	}
	seg.mu.Unlock()
	b.records = append(b.records, claims...)
	for _, r := range claims {
		m.addressed(seg, nil, r.IPs)
	}
	if found || before != after && (before != "" || after != m.cfg.Site || seg.adopted > 0) { // an earlier run may have had it elsewhere
		b.entries = append(b.entries, seg.entryOf(s.MAC, after))
	}
	switch v {
	case fenced, broughtHome:
		m.refuse(now, seg, s.MAC)
	case full:
		m.setOdd(now, seg, fmt.Sprintf("more than %d MACs", MaxMACs))
	default:
		m.heard(now, seg, s)
	}
}

// bindsHere tells whether a host is bound to this site.
func (m *Manager) bindsHere(seg *segment, mac MAC) bool {
	site, _ := seg.lookup(mac)
	return site == m.cfg.Site
}

// batch is what changed on one segment by one step of the loop.
type batch struct {
	records []announce.Record // to announce
	entries []Entry           // to program
}

// publish makes the kernel follow a change, and tells all peers. The peers
// first: theirs is the longer way, and it is walked by other goroutines.
func (m *Manager) publish(seg *segment, b *batch) {
	m.announce(seg, b.records)
	m.point(seg, b.entries)
}

func (m *Manager) point(seg *segment, entries []Entry) {
	if len(entries) == 0 {
		return
	}
	if err := m.cfg.Host.Point(seg.VNI, entries); err != nil {
		m.dirty = true
		m.log.Warn("forwarding entries not programmed; will be tried again", "segment", seg.Name, "err", err)
	}
	if seg.shares() {
		m.pointOthers(seg, entries)
	}
}

// tick looks after what is due.
func (m *Manager) tick(ctx context.Context, now time.Time) {
	m.limit.Report(now)
	m.expireJobs(now)
	m.expireParked(now)
	m.lookAfterExpress(now)
	m.wishRoutes(now)
	m.lookAtLines(now)
	m.lookAtMembers(now)
	for _, seg := range m.segments() {
		seg.mu.Lock()
		gone := seg.table.expire(now)
		if now.After(seg.oddUntil) || seg.table.explained(seg.oddTwin) {
			seg.odd, seg.oddTwin = "", twin{}
		}
		seg.mu.Unlock()
		m.announce(seg, gone)
	}
	m.tellFrozen(now)
	m.sendOwed(now)
	m.hastenDigests()
	m.sendDigests(now)
	if m.wished && (m.dirty || now.Sub(m.lastApply) >= reconcileEvery) {
		if err := m.reconcile(ctx, now); err != nil && ctx.Err() == nil {
			m.log.Warn("segments not reconciled; will be tried again", "err", err)
		}
	}
}

// setProblem notes why the host cannot make a segment; "" that it can.
func (m *Manager) setProblem(seg *segment, problem string) {
	seg.mu.Lock()
	known := seg.problem == problem
	seg.problem = problem
	seg.mu.Unlock()
	if !known && problem != "" {
		m.log.Warn("segment does not work", "segment", seg.Name, "problem", problem)
	}
}

// setOdd notes what an operator ought to look at.
func (m *Manager) setOdd(now time.Time, seg *segment, odd string) {
	m.noteOdd(now, seg, "segment is odd", odd, twin{})
}

// setHampered is setOdd for what is wrong with this machine. Its lines are of a kind of
// their own, since guests can have as many of the other as they like.
func (m *Manager) setHampered(now time.Time, seg *segment, odd string) {
	m.noteOdd(now, seg, "segment is hampered by this machine", odd, twin{})
}

func (m *Manager) noteOdd(now time.Time, seg *segment, message, odd string, by twin) {
	seg.mu.Lock()
	known := seg.odd == odd
	seg.odd, seg.oddUntil, seg.oddTwin = odd, now.Add(freezeTime), by
	seg.mu.Unlock()
	if !known {
		m.log.Warn(message, "segment", seg.Name, "problem", odd)
	}
}
