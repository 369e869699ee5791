package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/tunnel"
)

// What a forward lets through.
const (
	forwardAuto      = "auto"      // migration streams are recognised, all else is opaque
	forwardMigration = "migration" // migration streams: nothing is dialed before the source has spoken
	forwardTCP       = "tcp"       // opaque
)

// maxForwardConns bounds the connections of one forward that are open at once.
const maxForwardConns = 256

// dialTime bounds how long the far end of a forward may take to connect.
const dialTime = 10 * time.Second

// forward is a local address that comes out at another site. Connections that
// are open at the same time are one session, because the connections of a
// migration belong together; but a session takes no more of them once its
// migration has ended, and where nothing is looked into each has its own.
type forward struct {
	g  *Gateway
	ln net.Listener

	conns, total  atomic.Int64
	logical, wire atomic.Int64 // of sessions that have ended

	stop context.CancelFunc
	done chan struct{} // closed when all connections have ended

	mu   sync.Mutex // guards what follows
	view Forward
	last string                // why the last connection was refused or failed; empty when it was not
	s    *session              // that a new connection joins, unless it is spent; nil while there is none
	open map[*session]struct{} // all that have connections
}

var nameRule = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// splitAddress splits "tcp:HOST:PORT" and "unix:/path".
func splitAddress(a string) (network, address string, err error) {
	network, address, ok := strings.Cut(a, ":")
	switch {
	case !ok:
	case network == "unix" && filepath.IsAbs(address) && filepath.Clean(address) == address:
		// With ".." behind a link the kernel would go elsewhere than what a
		// rule that compares paths has allowed.
		return network, address, nil
	case network == "tcp":
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return "", "", fmt.Errorf("address %q: %v: %w", a, err, ErrInvalid)
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", "", fmt.Errorf("address %q: port %q is none: %w", a, port, ErrInvalid)
		}
		return network, address, nil
	}
	return "", "", fmt.Errorf("address %q: it is tcp:HOST:PORT or unix:/PATH: %w", a, ErrInvalid)
}

func (f Forward) check() error {
	if !nameRule.MatchString(f.Name) {
		return fmt.Errorf("name %q: small letters, digits and hyphens, at most 63: %w", f.Name, ErrInvalid)
	}
	if !slices.Contains([]string{forwardAuto, forwardMigration, forwardTCP}, f.Kind) {
		return fmt.Errorf("kind %q of a forward: it is auto, migration or tcp: %w", f.Kind, ErrInvalid)
	}
	_, _, err := splitAddress(f.Target)
	return err
}

// AddForward begins to listen.
func (g *Gateway) AddForward(_ context.Context, v Forward) (Forward, error) {
	if v.Kind == "" {
		v.Kind = forwardAuto
	}
	if err := v.check(); err != nil {
		return v, err
	}
	if g.node.Link(v.To) == nil {
		return v, g.noSite(v.To)
	}
	if err := g.checkTenant(v.Tenant); err != nil {
		return v, err
	}
	network, address, err := splitAddress(v.Listen)
	if err != nil {
		return v, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.forwards[v.Name] != nil {
		return v, fmt.Errorf("forward %s: %w", v.Name, ErrExists)
	}
	ln, err := listenOn(network, address)
	if err != nil {
		return v, fmt.Errorf("forward %s: %v: %w", v.Name, err, ErrUnavailable)
	}
	f := &forward{g: g, ln: ln, view: v, done: make(chan struct{}), open: map[*session]struct{}{}}
	if network == "tcp" {
		f.view.Listen = "tcp:" + ln.Addr().String() // port 0 has become a real one
	}
	ctx, stop := context.WithCancel(g.ctx)
	f.stop = stop
	g.forwards[v.Name] = f
	g.wg.Go(func() { f.run(ctx) })
	return f.snapshot(), nil
}

// listenOn listens; the socket file of a dead process is replaced, one that
// answers is not.
func listenOn(network, address string) (net.Listener, error) {
	ln, err := net.Listen(network, address)
	if err == nil || network != "unix" {
		return ln, err
	}
	if c, e := net.DialTimeout(network, address, time.Second); e == nil {
		c.Close()
		return nil, err
	}
	if st, e := os.Lstat(address); e != nil || st.Mode()&os.ModeSocket == 0 {
		return nil, err
	}
	if e := os.Remove(address); e != nil {
		return nil, errors.Join(err, e)
	}
	return net.Listen(network, address)
}

// Forwards lists the forwards by name.
func (g *Gateway) Forwards(context.Context) ([]Forward, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]Forward, 0, len(g.forwards))
	for _, f := range g.forwards {
		all = append(all, f.snapshot())
	}
	slices.SortFunc(all, func(a, b Forward) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// RemoveForward ends a forward with its connections.
func (g *Gateway) RemoveForward(_ context.Context, name string) error {
	g.mu.Lock()
	f := g.forwards[name]
	delete(g.forwards, name)
	g.mu.Unlock()
	if f == nil {
		return fmt.Errorf("forward %q: %w", name, ErrNotFound)
	}
	f.stop()
	<-f.done
	return nil
}

func (f *forward) snapshot() Forward {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.view
	v.Conns, v.Total, v.Logical, v.Wire = int(f.conns.Load()), f.total.Load(), f.logical.Load(), f.wire.Load()
	var codecs []string
	for s := range f.open {
		v.Logical += s.logical.Load()
		v.Wire += s.wire.Load()
		if codec, _ := s.effort(); codec != "" {
			codecs = append(codecs, codec)
		}
	}
	slices.Sort(codecs)
	v.Codec = strings.Join(slices.Compact(codecs), "; ")
	if link := f.g.node.Link(v.To); link == nil || !link.State().Up {
		v.Problem = "site " + v.To + " is not reachable"
	} else if f.last != "" {
		v.Problem = "the last connection: " + f.last
	}
	return v
}

// note keeps how the last connection ended, for those who ask. What the other
// site says is told without the way on which it came.
func (f *forward) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = ""
	var abort *tunnel.AbortError
	switch {
	case errors.As(err, &abort) && !abort.Local:
		f.last = "site " + f.view.To + ": " + abort.Reason
	case err != nil:
		f.last = err.Error()
	}
}

// run accepts connections until ctx is done.
func (f *forward) run(ctx context.Context) {
	defer close(f.done)
	stop := context.AfterFunc(ctx, func() { f.ln.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := f.ln.Accept()
		if err != nil {
			return // closed by ctx
		}
		if f.conns.Load() >= maxForwardConns {
			f.g.log.Warn("forward has too many connections, one refused", "forward", f.view.Name, "limit", maxForwardConns)
			f.note(fmt.Errorf("refused, because %d are open", maxForwardConns))
			conn.Close()
			continue
		}
		f.conns.Add(1)
		f.total.Add(1)
		wg.Go(func() { f.serve(ctx, conn) })
	}
}

// serve carries one connection; that it fails is the connection's affair.
func (f *forward) serve(ctx context.Context, conn net.Conn) {
	defer f.conns.Add(-1)
	s, err := f.enter(ctx)
	if err != nil {
		f.g.log.Warn("forwarded connection refused", "forward", f.view.Name, "peer", f.view.To, "err", err)
		f.note(err)
		conn.Close()
		return
	}
	defer func() { f.leave(s) }()
	err = s.serveLeg(ctx, conn, legRequest{
		formats: f.g.cfg.Formats, target: f.view.Target,
		opaque: f.view.Kind == forwardTCP, waits: f.view.Kind == forwardMigration,
		another: func(than *session) *session { s = f.another(than); return s },
	})
	if ctx.Err() != nil {
		return
	}
	f.note(err)
	if err != nil {
		f.g.log.Warn("forwarded connection failed", "forward", f.view.Name, "peer", f.view.To, "err", err)
	}
}

// enter joins the session of the connections that are open, or begins one.
func (f *forward) enter(ctx context.Context) (*session, error) {
	link := f.g.node.Link(f.view.To)
	if link == nil {
		return nil, f.g.noSite(f.view.To)
	}
	store, err := f.g.tenantStore(ctx, link, f.view.Tenant)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.s == nil || f.view.Kind == forwardTCP || f.s.spent() || f.s.store != store {
		f.s = f.begin(link, store)
	}
	f.s.users++
	return f.s, nil
}

// another moves a connection that turns out to be the main one of a further
// migration into a session of its own. Those that come after it follow.
func (f *forward) another(than *session) *session {
	f.mu.Lock()
	for f.s == nil || !f.s.claimMain() {
		f.s = f.begin(than.link, than.store)
	}
	s := f.s
	s.users++
	f.mu.Unlock()
	f.leave(than)
	return s
}

// begin makes a session. It is called under mu.
func (f *forward) begin(link *tunnel.Link, store *dedup.Store) *session {
	s := newSession(newToken(), link, store, f.g.log)
	s.tenant = f.view.Tenant
	s.flow, s.cores = link.NewFlow("forward "+f.view.Name), &f.g.jobs.cores
	s.disk = link.NewDiskFlow("disks of forward " + f.view.Name)
	ctx, stop := context.WithCancel(f.g.ctx)
	s.end = stop
	f.g.wg.Go(func() { s.pace(ctx) })
	f.open[s] = struct{}{}
	return s
}

func (f *forward) leave(s *session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	s.end()
	f.logical.Add(s.logical.Load())
	f.wire.Add(s.wire.Load())
	delete(f.open, s)
	if f.s == s {
		f.s = nil
	}
}

// spent tells whether a new connection would not belong to the session: its
// migration has ended, so that its main connection would hold back nobody any
// more; or a connection that stays open has kept it for so long that many others
// have ended in it, which count towards maxLegs.
func (s *session) spent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := 0
	for _, l := range s.legs {
		if l.role == roleMain && l.over {
			return true
		}
		if l.enc == nil || l.ch != nil {
			continue // being opened, or open
		}
		if ended++; l.role == roleMain || ended >= maxLegs/4 {
			return true
		}
	}
	return false
}

// serveForwarded is the far end of a forward.
func (g *Gateway) serveForwarded(ch *tunnel.Channel, h legHeader) {
	network, address, err := splitAddress(h.Target)
	if err == nil && (g.cfg.AllowForward == nil || g.cfg.AllowForward(network, address) != nil) {
		err = fmt.Errorf("forward to %s is not in forward_allow of site %s", h.Target, g.cfg.Site)
	}
	if err != nil {
		g.log.Warn("forwarded connection refused", "peer", ch.Site(), "err", err)
		ch.Abort(err.Error())
		return
	}
	s, err := g.joinGroup(ch, h)
	if err != nil {
		ch.Abort(err.Error())
		return
	}
	defer g.leaveGroup(s)
	dial := func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTime}
		return d.DialContext(ctx, network, address)
	}
	if err := s.takeLeg(g.ctx, ch, h, farEnd{dial, g.cfg.Formats.Pack}); err != nil {
		g.log.Warn("forwarded connection failed", "peer", ch.Site(), "target", h.Target, "err", err)
	}
}

// joinGroup finds or makes the session of forwarded connections that a peer
// names. Sessions of different peers never meet.
func (g *Gateway) joinGroup(ch *tunnel.Channel, h legHeader) (*session, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := ch.Site() + "/" + h.Session
	s := g.groups[key]
	if s == nil {
		link := g.node.Link(ch.Site())
		if link == nil {
			return nil, fmt.Errorf("site %s: %w", ch.Site(), ErrNoSite)
		}
		g.mu.Unlock()
		held := g.heldFor(ch.Site())
		store, err := g.tenantStore(g.ctx, link, h.Tenant)
		g.mu.Lock()
		if err != nil {
			return nil, err
		}
		if s = g.groups[key]; s == nil {
			s = newSession(h.Session, link, store, g.log)
			s.held, s.tenant = held, h.Tenant
			g.groups[key] = s
		}
	}
	s.users++
	return s, nil
}

func (g *Gateway) leaveGroup(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.users--; s.users == 0 {
		delete(g.groups, s.link.Site()+"/"+s.token)
	}
}
