package tunnel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

// A Link is all that there is between this gateway and one peer. It outlives
// the connections under it. All methods are safe for concurrent use.
type Link struct {
	node    *Node
	site    string
	decides bool // this end says which set of connections is used: the lower name
	born    time.Time
	bucket  *shaper.Bucket
	wire    [3]traffic // by shaper.Class
	rest    *Flow      // of channels that have no flow

	// wake tells the keeper to look again; capacity 1: one token says it all.
	wake chan struct{}

	mu      sync.Mutex // guards what follows; held across no I/O, no callback
	paths   []*path    // never empty
	watched time.Time
	removed bool
	closed  bool

	set    *set // nil while there are no connections
	serial uint64
	epoch  frame.ID // of the peer; zero before the first contact
	peer   peerInfo
	// unseated says why a connection of the set in use has NewReno; nil: none has.
	unseated error

	state   linkState
	dials   dialState
	choose  chooser
	grow    growth
	good    goodput
	account account

	channels map[uint64]*Channel
	lastID   uint64 // of the channels that we opened
	closedID idSet  // of the channels that have ended
	granted  int64  // sum of the windows we have granted
	advanced int64  // what channels have of the peer's advance
	dirty    []*Channel
	replies  []frame.Frame // ResetAcks and Gones to be written; at most maxReplies
	sched    scheduler
	out      datagramRing
	in       datagramRing
	drops    Drops // of datagrams; dropped adds what sockets count
	copied   int64 // bytes of chunks sent again, see again.go
	express  express

	buffered memory
}

// peerInfo is what the peer's Hello said.
type peerInfo struct{ gateway, version string }

// maxReplies bounds Link.replies. Only a peer that resets unknown channels in
// a flood gets there, and loses the link.
const maxReplies = 4 * maxChannels

func newLink(n *Node, site string) *Link {
	l := &Link{
		node:     n,
		site:     site,
		decides:  n.cfg.Site < site,
		born:     time.Now(),
		bucket:   shaper.New(n.cfg.Rate),
		wake:     make(chan struct{}, 1),
		channels: make(map[uint64]*Channel),
		account:  account{factor: startFactor},
	}
	l.express.wake = make(chan struct{}, 1)
	l.newPath(Path{})
	l.shareRate()
	l.rest = l.NewFlow("")
	l.choose.setting = n.cfg.Carrier
	l.state.heard = l.born
	l.state.since = l.born
	l.state.why = "no connection yet"
	l.buffered.max = n.cfg.Memory + memorySlack + n.cfg.advance()
	l.grow.want = cmp.Or(n.cfg.Conns, startConns)
	l.sched.init(&l.mu)
	l.sched.weights = n.cfg.Weights
	return l
}

// Site is the name of the peer's site.
func (l *Link) Site() string { return l.site }

// Epoch is the random name of the life of the peer's process; zero before the
// first contact.
func (l *Link) Epoch() [16]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// SetRate caps what the link sends, in bytes per second on the wire, at once.
// 0 removes the cap.
func (l *Link) SetRate(rate int64) {
	l.bucket.SetRate(rate)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shareRate()
}

// forget is what becomes of a peer that is no longer listed.
func (l *Link) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.removed {
		return
	}
	l.removed = true
	for _, p := range l.paths {
		p.conf.Addrs = nil
	}
	l.abortAll(ErrPeerGone, "the site has been removed as a peer")
	l.drop(errors.New("the peer has been removed"), codeRemoved)
}

// close is the end of the node.
func (l *Link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.drop(errShutdown, codeShutdown)
	l.failAll(ErrClosed)
	l.state.changed.fire()
	l.wakeAll()
}

// wakeAll makes all who wait look again.
func (l *Link) wakeAll() {
	l.sched.wakeAll()
	poke(l.wake)
}

// failAll ends all channels, without telling the peer. The caller holds mu.
func (l *Link) failAll(why error) {
	for _, ch := range l.channels {
		ch.fail(why)
		l.remove(ch)
	}
}

// abortAll ends all channels, and tells the peer when it is next reached. The
// caller holds mu.
func (l *Link) abortAll(why error, reason string) {
	for _, ch := range l.channels {
		ch.abort(why, reason)
	}
}

// Spec says what channel to open.
type Spec struct {
	// Kind tells the peer's acceptor what the channel is for.
	Kind uint16
	// Header goes with it, at most 64 KiB.
	Header []byte
	// Class of what we send; the zero value is Bulk.
	Class Class
	// BackBulk makes the way back Bulk; it is Urgent otherwise.
	BackBulk bool
	// Flow caps and groups what we send. Nil: no cap, and one share with all
	// other channels that have none.
	Flow *Flow
}

// Class says how a channel's messages travel.
type Class uint8

// The classes.
const (
	// Bulk is striped over the bulk connections.
	Bulk Class = iota
	// Urgent goes over the priority connection, ahead of all else.
	Urgent
)

func (c Class) wire() uint8 {
	if c == Urgent {
		return frame.ClassUrgent
	}
	return frame.ClassBulk
}

func classOf(wire uint8) Class {
	if wire == frame.ClassUrgent {
		return Urgent
	}
	return Bulk
}

// Open opens a channel. It does not wait for the link or the peer: the channel
// waits, for up to Patience.
func (l *Link) Open(ctx context.Context, spec Spec) (*Channel, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if len(spec.Header) > frame.MaxHeader {
		return nil, fmt.Errorf("header of %d bytes: %w", len(spec.Header), ErrTooLarge)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, ErrClosed
	case l.removed:
		return nil, ErrPeerGone
	case len(l.channels) >= maxChannels:
		return nil, fmt.Errorf("opening a channel to %s: %w", l.site, ErrTooMany)
	}
	l.lastID += 2
	if l.lastID == 2 && l.decides {
		l.lastID = 1 // odd numbers are opened by the end that decides
	}
	back := Urgent
	if spec.BackBulk {
		back = Bulk
	}
	ch := l.newChannel(l.lastID)
	ch.describe(spec.Kind, slices.Clone(spec.Header), spec.Class, back)
	ch.opener = true
	l.takeAdvance(ch)
	if spec.Flow != nil && spec.Flow.link == l {
		ch.flow = spec.Flow
	}
	ch.mark(needOpen | needAck) // with the Open, the peer gets its window
	return ch, nil
}

// opens tells whether a channel's number is one that we give out.
func (l *Link) opens(id uint64) bool { return (id%2 == 1) == l.decides }
