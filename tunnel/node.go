package tunnel

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go/ccslot"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// maxLinks bounds the sites that we hold a link to: all have certificates of
// the fleet, so this is against mistakes.
const maxLinks = 256

// A Node is one gateway's end of all its links. All methods are safe for
// concurrent use.
type Node struct {
	cfg   Config
	log   *slog.Logger
	epoch frame.ID
	// firstPacket is largePacket; tests of NewReno in virtual time need stockPacket.
	firstPacket uint16
	// stock says why quic-go's controller is used; nil: ours is.
	stock error
	// newConns counts handshakes begun by strangers in the current second.
	newConns window

	// wake tells Run that links have come; capacity 1: one token says it all.
	wake chan struct{}
	// listening is closed when the port is open.
	listening chan struct{}

	mu       sync.Mutex // guards what follows, and cfg.Rate and cfg.Weights
	links    map[string]*Link
	inbound  int // handshakes of accepted connections in hand
	enrols   int
	channels queue[*Channel]
	conns    queue[*Conn]
	closed   bool

	dropped     atomic.Uint64 // packets that found the listening socket's buffer full
	refused     atomic.Int64  // connections of strangers beyond their bounds
	lastCarrier atomic.Uint32 // numbers connections for logs and ownership of cells
}

// New makes a node. It does nothing until Run.
func New(cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg:   cfg,
		log:   cfg.Logger,
		wake:  make(chan struct{}, 1),
		links: make(map[string]*Link),

		listening:   make(chan struct{}),
		firstPacket: largePacket,
		stock:       ccslot.Check(),
	}
	if cfg.NewReno {
		n.stock = errAsked
	}
	if n.stock != nil {
		n.log.Warn("congestion control is quic-go's NewReno", "err", n.stock)
	}
	_, _ = rand.Read(n.epoch[:]) // never fails (crypto/rand)
	return n, nil
}

// Listening is closed once Run listens by QUIC; at once if it is not to listen. It
// stays open when the port cannot be had, which Run returns.
func (n *Node) Listening() <-chan struct{} { return n.listening }

// Epoch is the random name of this process's life, as peers see it.
func (n *Node) Epoch() [16]byte { return n.epoch }

// SetPeers says which sites to hold links to. A site that is no longer listed
// is no longer dialed and its channels fail with ErrPeerGone; it may still
// dial us.
func (n *Node) SetPeers(peers []Peer) error {
	for _, p := range peers {
		if err := p.check(n.cfg.Site); err != nil {
			return err
		}
		if _, err := ParseCarrier(string(p.Carrier)); err != nil {
			return fmt.Errorf("tunnel: peer %s: %w", p.Site, err)
		}
	}
	listed := make(map[string]bool)
	for _, p := range peers {
		l, err := n.linkTo(p.Site)
		if err != nil {
			return err
		}
		listed[p.Site] = true
		l.setPaths(p.paths(), cmp.Or(p.Carrier, n.cfg.Carrier))
	}
	for _, l := range n.Links() {
		if !listed[l.site] {
			l.forget()
		}
	}
	return nil
}

// SetRate caps what each link sends, those to come as well, in bytes per second
// on the wire, at once. 0 removes the caps.
func (n *Node) SetRate(rate int64) {
	n.mu.Lock()
	n.cfg.Rate = rate
	n.mu.Unlock()
	for _, l := range n.Links() {
		l.SetRate(rate)
	}
}

// linkTo finds or makes the link to a site.
func (n *Node) linkTo(site string) (*Link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.links[site]; l != nil {
		return l, nil
	}
	if n.closed {
		return nil, ErrClosed
	}
	if len(n.links) >= maxLinks {
		return nil, fmt.Errorf("tunnel: link to %q: %w", site, ErrTooMany)
	}
	l := newLink(n, site)
	n.links[site] = l
	poke(n.wake)
	return l, nil
}

// poke puts a token into a channel of capacity 1, if there is none.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Link is the link to a site, or nil when the site is no peer.
func (n *Node) Link(site string) *Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links[site]
}

// Links are all links, sorted by site.
func (n *Node) Links() []*Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	ls := make([]*Link, 0, len(n.links))
	for _, l := range n.links {
		ls = append(ls, l)
	}
	slices.SortFunc(ls, func(a, b *Link) int { return strings.Compare(a.site, b.site) })
	return ls
}

// Accept waits for a channel that any peer has opened.
func (n *Node) Accept(ctx context.Context) (*Channel, error) {
	return take(ctx, &n.mu, &n.channels)
}

// AcceptConn waits for a raw connection that any peer has dialed.
func (n *Node) AcceptConn(ctx context.Context) (*Conn, error) {
	return take(ctx, &n.mu, &n.conns)
}

// Recheck asks check for each connection whether its peer may still be one, and
// closes the links whose peer may not: after a revocation.
func (n *Node) Recheck(check func(tls.ConnectionState) error) {
	for _, l := range n.Links() {
		l.mu.Lock()
		s := l.set
		l.mu.Unlock()
		if s == nil {
			continue
		}
		if err := check(s.priority.conn.ConnectionState().TLS); err != nil {
			l.lost(s.priority, fmt.Errorf("certificate: %w", err))
		}
	}
}

// Run listens, dials and carries until ctx ends. When it returns, all that it
// started has ended, and all channels have failed.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer n.close()
	defer cancel() // before waiting

	var failed error
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		failed = n.listenBoth(ctx)
	})
	started := make(map[*Link]bool)
	for {
		for _, l := range n.Links() {
			if !started[l] {
				started[l] = true
				wg.Go(func() { l.run(ctx) })
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.wake:
		case <-done:
			return failed
		}
	}
}

// close fails all channels, and all who wait in Accept.
func (n *Node) close() {
	n.mu.Lock()
	n.closed = true
	n.channels.close()
	n.conns.close()
	n.mu.Unlock()
	for _, l := range n.Links() {
		l.close()
	}
}

// queue hands accepted things over. What bounds it is the bound of the things.
type queue[T any] struct {
	items   []T
	closed  bool
	changed broadcast
}

func (q *queue[T]) push(x T) {
	q.items = append(q.items, x)
	q.changed.fire()
}

func (q *queue[T]) close() {
	q.closed = true
	q.changed.fire()
}

// take waits for the first of q, which mu guards.
func take[T any](ctx context.Context, mu *sync.Mutex, q *queue[T]) (T, error) {
	var zero T
	for {
		mu.Lock()
		if len(q.items) > 0 {
			x := q.items[0]
			q.items[0] = zero
			q.items = q.items[1:]
			mu.Unlock()
			return x, nil
		}
		closed, changed := q.closed, q.changed.next()
		mu.Unlock()
		if closed {
			return zero, ErrClosed
		}
		select {
		case <-ctx.Done():
			return zero, context.Cause(ctx)
		case <-changed:
		}
	}
}
