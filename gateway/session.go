package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/tunnel"
)

// maxLegs bounds the connections of one session: main, preempt, and multifd
// channels, of which QEMU permits 255.
const maxLegs = 260

// session is one move, or one group of forwarded connections, as one gateway
// sees it: its legs, and what they have carried. Its owner runs the legs and
// waits for them.
type session struct {
	// Constant after newSession.
	token string
	link  *tunnel.Link
	flow  *tunnel.Flow // nil at the destination
	disk  *tunnel.Flow // of connections that turn out to carry blocks of a disk; nil: they stay in flow
	store *dedup.Store
	log   *slog.Logger

	tenant string // whose store it is; set before the session is used

	logical atomic.Int64 // bytes of stream taken from the source, or made of what came at the destination
	wire    atomic.Int64 // encoded bytes sent
	rounds  atomic.Int64
	limit   atomic.Int64 // of the backlog, in encoded bytes
	drain   atomic.Int64 // how long the backlog takes to drain, in nanoseconds

	delivered atomic.Int64 // bytes of stream that the destination has taken, or in a move that is given up its store

	cores              *cores    // that the sessions of this gateway share
	share              share     // of them that it has had; the turnstile's
	tally              tally     // what was done to batches
	lineWait, loadWait stopwatch // for the bounds of encoded bytes, and of bytes of stream

	spoil func([]byte)  // of tests: makes an error in a message
	held  *atomic.Int64 // bytes that this gateway holds back for the peer; nil at the source
	users int           // of a forwarded session: its connections; guarded by whoever shares the session out
	end   func()        // ends what serves all of them; nil for a move

	mainOpen chan struct{} // closed when the destination's main connection is open
	openOnce sync.Once

	mu      sync.Mutex // guards what follows
	legs    []*legState
	next    int           // index of the next leg that we open
	claimed bool          // the place of the main connection of a forwarded session is taken
	codec   dedup.Setting // of the batches of all legs
	bound   limit         // what holds it up
	facts   page.Facts    // of the main stream
	moved   chan struct{} // closed and replaced whenever a leg has come further
	flaw    error         // what was wrong with the stream of the peer; nil while it is sound
	gaveUp  error         // why the move was given up at the source; nil while it goes on

	local  context.Context // ends when the connections to the hypervisor here are to end, and no more than these
	hangUp func()          // ends it
}

// giveUp has the legs bring what is on its way, once the source ends them, and nothing of
// their end: the destination is not to take them for complete. With now they do not wait
// for the hypervisor here, and end their connections to it themselves.
func (s *session) giveUp(why error, now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gaveUp = why
	if now {
		s.hangUp()
	}
}

// givenUp is why the move was given up; nil while it goes on.
func (s *session) givenUp() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gaveUp
}

// legState is how far one leg has come.
type legState struct {
	index  int
	role   string
	ch     *tunnel.Channel // nil once the leg has ended
	enc    *dedup.Encoder  // nil at the destination
	win    *window         // of bytes of stream; at the source
	over   bool            // the source has closed it, but the leg may not have ended yet
	empty  bool            // nothing of it is on its way any more, and nothing follows
	bytes  int64           // of stream, encoded or delivered
	digest digester        // over these bytes; nil while there are none
}

// A digester makes the digest of a stream up to a place when it is asked to: at
// the source the bytes before it may not have been summed yet.
type digester func() dedup.Digest

// hex is the digest in hex; "" when nothing has come yet.
func (d digester) hex() string {
	if d == nil {
		return ""
	}
	return d().String()
}

func newSession(token string, link *tunnel.Link, store *dedup.Store, log *slog.Logger) *session {
	s := &session{
		token: token, link: link, store: store, log: log.With("session", token[:8]),
		mainOpen: make(chan struct{}), moved: make(chan struct{}), cores: new(cores),
	}
	s.local, s.hangUp = context.WithCancel(context.Background())
	return s
}

// newToken makes the token of a move, or the name of a session. It fences: a
// destination may be started only by who knows it.
func newToken() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// addLeg lists a leg. At the source index is -1, for the next; at the
// destination the peer has chosen it, and may use each once.
func (s *session) addLeg(index int, role string) (*legState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index < 0 {
		index = s.next
		s.next++
	}
	if index >= maxLegs || len(s.legs) >= maxLegs {
		return nil, fmt.Errorf("more than %d connections in one session", maxLegs)
	}
	if slices.ContainsFunc(s.legs, func(l *legState) bool { return l.index == index }) {
		return nil, fmt.Errorf("connection %d of the session is there already", index)
	}
	l := &legState{index: index, role: role, win: newWindow()}
	s.legs = append(s.legs, l)
	return l, nil
}

// attach gives a leg its channel, and at the source its encoder.
func (s *session) attach(l *legState, ch *tunnel.Channel, enc *dedup.Encoder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.ch, l.enc = ch, enc
	if enc != nil {
		enc.SetCodec(s.codec)
	}
}

// sourceClosed notes that the source has nothing more to say on a leg.
func (s *session) sourceClosed(l *legState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.over = true
}

// claimMain takes the place of the one main connection of a forwarded session;
// false if it is taken.
func (s *session) claimMain() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := !s.claimed
	s.claimed = true
	return free
}

// dropLeg notes that a leg has ended; how far it came stays known.
func (s *session) dropLeg(l *legState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.ch = nil
	s.signal()
}

// signal wakes those who wait for moved; mu is held.
func (s *session) signal() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// awaitFlushed waits until nothing is on its way on any leg of a move that was given up,
// of which l is through: to the destination the first that ends is the end of all.
func (s *session) awaitFlushed(ctx context.Context, l *legState) {
	s.mu.Lock()
	l.empty = true
	s.signal()
	for slices.ContainsFunc(s.legs, func(l *legState) bool { return l.ch != nil && !l.empty }) {
		moved := s.moved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
	}
	s.mu.Unlock()
}

// sums returns what was done to the batches of all legs so far.
func (s *session) sums() dedup.Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum dedup.Counts
	for _, l := range s.legs {
		if l.enc != nil {
			sum.Add(l.enc.Stats())
		}
	}
	return sum
}

// digest sums up the digests of all legs in a line for the report.
func (s *session) digest() string {
	h := sha256.New()
	for _, d := range s.streams() {
		fmt.Fprintln(h, d.Index, d.Bytes, d.Digest)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// behind tells whether the peer has not come as far as we on some leg.
func (s *session) behind(peer []streamDigest) bool {
	for _, o := range s.places() {
		i := slices.IndexFunc(peer, func(p streamDigest) bool { return p.Index == o.index })
		if i < 0 && o.bytes > 0 || i >= 0 && peer[i].Bytes < o.bytes {
			return true
		}
	}
	return false
}

// note keeps what the main stream has said of itself, and of the others that they
// are compressed in a way that nobody here expands.
func (s *session) note(f page.Facts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sealed := cmp.Or(s.facts.Sealed, f.Sealed)
	if f.Format == roleMain {
		s.facts = f
	}
	s.facts.Sealed = sealed
}

// told is what the main stream has said of itself.
func (s *session) told() page.Facts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.facts
}

// advance notes that a leg has come n bytes further.
func (s *session) advance(l *legState, n int, d digester) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.bytes += int64(n)
	l.digest = d
	s.signal()
}

// A place is how far a leg has come, with a digest that is still to be made.
type place struct {
	index  int
	bytes  int64
	digest digester
}

// places tells how far all legs have come, in the order of their indexes.
func (s *session) places() []place {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]place, 0, len(s.legs))
	for _, l := range s.legs {
		all = append(all, place{l.index, l.bytes, l.digest})
	}
	slices.SortFunc(all, func(a, b place) int { return a.index - b.index })
	return all
}

// digests makes the digests of places.
func digests(all []place) []streamDigest {
	made := make([]streamDigest, len(all))
	for i, p := range all {
		made[i] = streamDigest{p.index, p.bytes, p.digest.hex()}
	}
	return made
}

// streams tells how far all legs have come, with their digests.
func (s *session) streams() []streamDigest { return digests(s.places()) }

// errDigest says that the two ends do not agree on what crossed.
var errDigest = errors.New("digests disagree")

// await waits until every leg that want names has come as far as it says, and
// fails when one that stands exactly there has another digest. (Each batch was
// checked against the chained digest of its sender before; this is the proof
// across channels.)
func (s *session) await(ctx context.Context, want []streamDigest) error {
	for {
		s.mu.Lock()
		moved := s.moved
		missing, err := s.compare(want)
		s.mu.Unlock()
		if err != nil || !missing {
			return err
		}
		select {
		case <-moved:
		case <-s.local.Done():
			return s.givenUp()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *session) compare(want []streamDigest) (missing bool, err error) {
	for _, w := range want {
		i := slices.IndexFunc(s.legs, func(l *legState) bool { return l.index == w.Index })
		if i < 0 {
			missing = missing || w.Bytes > 0
			continue
		}
		l := s.legs[i]
		missing = missing || l.bytes < w.Bytes
		if ours := l.digest.hex(); l.bytes == w.Bytes && ours != w.Digest {
			return false, fmt.Errorf("connection %d at byte %d: %w: %s here, %s at the peer", w.Index, w.Bytes, errDigest, ours, w.Digest)
		}
	}
	return missing, nil
}

// same tells whether the peer has come exactly as far as we, with the same
// digests.
func (s *session) same(peer []streamDigest) error {
	ours := s.streams()
	if len(ours) != len(peer) {
		return fmt.Errorf("%w: %d connections here, %d at the peer", errDigest, len(ours), len(peer))
	}
	for i, o := range ours {
		if o != peer[i] {
			return fmt.Errorf("connection %d: %w: %d bytes %s here, %d bytes %s at the peer",
				o.Index, errDigest, o.Bytes, o.Digest, peer[i].Bytes, peer[i].Digest)
		}
	}
	return nil
}

// blame notes that the stream of the peer is at fault, and returns err. It is
// called before the leg is cut off: the hypervisor at its end complains at
// once, and not about the cause.
func (s *session) blame(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flaw == nil {
		s.flaw = err
	}
	return err
}

// fault is what was wrong with the stream, or nil.
func (s *session) fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flaw
}

// opened says that the destination's main connection is open; the others may
// follow it.
func (s *session) opened() { s.openOnce.Do(func() { close(s.mainOpen) }) }

// channels returns those of the legs that have not ended.
func (s *session) channels() []*tunnel.Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	var chs []*tunnel.Channel
	for _, l := range s.legs {
		if l.ch != nil {
			chs = append(chs, l.ch)
		}
	}
	return chs
}

// unacked is how many encoded bytes the destination has not taken, and why
// nothing moves, if nothing does.
func (s *session) unacked() (n int64, stalled string) {
	for _, ch := range s.channels() {
		_, b := ch.Unacked()
		n += int64(b)
		if why := ch.Stalled(); why != "" {
			stalled = why
		}
	}
	return n, stalled
}

// arrived grows with all that comes to the destination.
func (s *session) arrived() int64 { return s.delivered.Load() + s.wire.Load() - s.arriving() }

// arriving is how many of these have not come to the destination.
func (s *session) arriving() (n int64) {
	for _, ch := range s.channels() {
		n += ch.Arriving()
	}
	return n
}
