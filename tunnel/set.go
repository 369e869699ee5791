package tunnel

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// Application error codes with which we close a connection.
const (
	codeRefused  quic.ApplicationErrorCode = 1 + iota
	codeReplaced                           // another set of connections is in use
	codeProtocol                           // the peer broke the protocol
	codeShutdown                           // the gateway ends
	codeRemoved                            // the site is no peer any more
	codeDead                               // no answers on this connection
	codeCarrier                            // the config wants another carrier than this
	codeNoPong                             // no answer to full-sized packets
)

// A set is the connections of a link that are in use together: one for
// priority, which the set lives and dies with, one for datagrams, and those
// for bulk. All are dialed by the same end.
type set struct {
	id       frame.ID
	serial   uint64
	dialed   bool // by us
	via      Carrier
	gateway  string
	addr     string
	priority *carrier
	others   map[*carrier]struct{}
	// ready: the peer has told where all channels stand; data may flow.
	ready bool
	// told is what the peer knows of our fallbacks, and theirs what it has told of its own.
	told, theirs frame.Fallback
	// advance is what the peer lets channels that we open send before it knows them.
	advance int64
}

func (s *set) all() []*carrier {
	cs := []*carrier{s.priority}
	for c := range s.others {
		cs = append(cs, c)
	}
	return cs
}

// errBusy: the link has connections already.
var errBusy = errors.New("another connection is in use")

// errTail: the set in use is well, and is not to change while a VM waits for the last of
// its memory.
var errTail = fmt.Errorf("%w, and a VM waits for what it carries", errBusy)

// adopt puts a priority connection, and with it a new set, into use, in place
// of the one there is. Of the two ends only the one that decides numbers sets;
// it passes serial 0 here, and the other end passes what it was told.
func (l *Link) adopt(c *candidate, id frame.ID, serial uint64) (*carrier, uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.admit(c, serial); err != nil {
		return nil, 0, err
	}
	if serial == 0 {
		serial = l.serial + 1
	}
	if l.set != nil {
		replaced := errors.New("replaced by a newer connection")
		l.blame(replaced, l.set.addr)
		l.drop(replaced, codeReplaced)
	}
	if l.epoch != c.theirs.Epoch && l.epoch != (frame.ID{}) {
		l.restarted()
	}
	l.serial, l.epoch = serial, c.theirs.Epoch
	l.peer = peerInfo{gateway: c.theirs.Gateway, version: c.theirs.Version}
	l.set = &set{
		id: id, serial: serial, dialed: c.dialed, via: c.via, gateway: c.theirs.Gateway,
		addr: c.conn.RemoteAddr().String(), others: make(map[*carrier]struct{}),
	}
	l.unseated = nil
	for _, p := range l.paths {
		if p.life.dead || p == c.path && !l.stillKnown(p, c.conn.RemoteAddr()) {
			p.model.Reset() // another address, or the line as it is after an outage
		}
		p.last = lastLine{}
	}
	c.path.dials.reset() // for the set that is no more some may have failed
	l.set.priority = l.newCarrier(c, frame.Priority)
	l.state.addr = l.set.addr
	for _, ch := range l.channels {
		ch.openSent = ch.known // what the last set carried may be lost
	}
	return l.set.priority, serial, nil
}

// admit decides whether a new set may take the place of what there is.
func (l *Link) admit(c *candidate, serial uint64) error {
	switch {
	case l.closed:
		return ErrClosed
	case l.removed && c.dialed:
		return ErrPeerGone
	case !l.choose.setting.permits(c.via):
		return errCarrier
	case !slices.Contains(l.paths, c.path):
		return errNoPath // nobody would watch it
	case l.set == nil:
		return nil
	case l.decides && c.moves() && l.hasTail():
		return errTail
	case l.set.gateway != c.theirs.Gateway:
		return fmt.Errorf("%w: with gateway %q of the site", errBusy, l.set.gateway)
	case !l.decides:
		if l.epoch == c.theirs.Epoch && serial <= l.serial {
			return errBusy // the peer's later word has overtaken this one
		}
		return nil
	case l.set.via == TCP && c.via == QUIC:
		return nil // the dialer has found that QUIC gets through
	case c.move:
		return nil
	case c.dialed, !l.set.ready, c.theirs.Held == l.set.id:
		return errBusy
	}
	return nil // the peer had our set in use and has lost it
}

// restarted forgets all that the peer's former process knew.
func (l *Link) restarted() {
	l.node.log.Info("peer restarted", "site", l.site)
	l.failAll(ErrPeerRestarted)
	l.closedID = idSet{}
	l.replies = nil
}

// join puts a further connection into the set in use.
func (l *Link) join(c *candidate, role frame.Role) (*carrier, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.set
	// The bound is for a peer that dials for ever; one more than we would dial.
	if s == nil || s.id != c.theirSet() || s.dialed != c.dialed || s.via != c.via || len(s.others) > maxConns+1 {
		return nil, errors.New("its set of connections is not in use")
	}
	if !slices.Contains(l.paths, c.path) {
		return nil, errNoPath
	}
	if c.path.why != "" && c.path != s.priority.path {
		l.node.log.Info("path is up", "site", l.site, "path", c.path.name, "peer", c.conn.RemoteAddr().String())
	}
	x := l.newCarrier(c, role)
	s.others[x] = struct{}{}
	l.reckonCost()
	return x, nil
}

// drop ends the set in use. The caller holds mu.
func (l *Link) drop(why error, code quic.ApplicationErrorCode) {
	s := l.set
	if s == nil {
		return
	}
	l.set = nil
	if code != codeReplaced {
		l.dials.setDied(time.Now())
	}
	l.express.lane.Store(nil)
	l.state.set(false)
	for _, c := range s.all() {
		l.remember(c)
		c.end(why, code)
		l.requeue(c)
	}
	l.wakeAll()
}

// lost is called when a connection has ended, for whatever reason.
func (l *Link) lost(c *carrier, why error) {
	if c.member != nil {
		c.member.Leave()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c.end(why, codeDead)
	c.path.left, c.path.ended = time.Since(l.born), closedBy(why, codeReplaced) || closedBy(why, codeShutdown)
	if c.code == codeNoPong || closedBy(why, codeNoPong) {
		c.path.small = time.Now().Add(smallFor)
	}
	s := l.set
	if s == nil || c.set != s {
		return
	}
	log := l.node.log.With("site", l.site, "peer", s.addr, "role", roleName(c.role))
	if c != s.priority {
		delete(s.others, c)
		l.down(c.path, why)
		l.requeue(c)
		l.reckonCost()
		l.wakeAll()
		if why != errShutdown {
			log.Info("connection lost", "err", why)
		}
		return
	}
	l.blame(why, s.addr)
	l.drop(why, codeDead)
	l.down(c.path, why)
	if why != errShutdown {
		log.Warn("link down", "err", why)
	}
}

// violated is the end of all connections to a peer that broke the protocol.
func (l *Link) violated(c *carrier, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set == nil || c.set != l.set {
		return
	}
	l.blame(err, l.set.addr)
	l.node.log.Warn("link closed", "site", l.site, "err", err)
	// A pause, lest a confused peer makes us handshake without end.
	l.dials.after = time.Now().Add(protocolPause)
	l.drop(err, codeProtocol)
}

// blame notes why the link is down, and since when the peer was silent.
func (l *Link) blame(err error, addr string) {
	l.state.heard = nowMinusSilence(err)
	l.state.blame(err, addr)
}

// ready is called when the peer has told where all channels stand.
func (l *Link) ready(c *carrier) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set == nil || c.set != l.set || l.set.ready {
		return
	}
	l.set.ready = true
	l.grow.told = 0
	l.fit()
	l.state.set(true)
	l.dials.backoff.reset()
	l.wakeAll()
	l.node.log.Info("link up", "site", l.site, "peer", l.set.addr)
}

// idSet is a set of channel numbers, each end's apart, as ascending ranges of
// ids that follow each other by 2. Numbers are given out in order, so it has no
// more ranges than there are open channels, plus one for each end.
type idSet struct{ ranges []frame.Range }

func (s *idSet) has(id uint64) bool {
	for _, r := range s.ranges {
		if r.First <= id && id <= r.Last && (id-r.First)%2 == 0 {
			return true
		}
	}
	return false
}

func (s *idSet) add(id uint64) {
	if s.has(id) {
		return
	}
	r := frame.Range{First: id, Last: id}
	rest := s.ranges[:0]
	for _, x := range s.ranges {
		switch {
		case x.Last+2 == r.First:
			r.First = x.First
		case r.Last+2 == x.First:
			r.Last = x.Last
		default:
			rest = append(rest, x)
		}
	}
	s.ranges = append(rest, r)
	if len(s.ranges) > maxIDRanges {
		s.forget()
	}
}

// maxIDRanges is some more than the number of open channels. Numbers that the
// peer left out make more ranges; the lowest are then taken for ended.
const maxIDRanges = 2*maxChannels + 2

// forget joins the two lowest ranges of the end that has more of them.
func (s *idSet) forget() {
	var low [2][]int // by parity, indices of ranges
	for i, r := range s.ranges {
		low[r.First%2] = append(low[r.First%2], i)
	}
	is := low[0]
	if len(low[1]) > len(is) {
		is = low[1]
	}
	slices.SortFunc(is, func(a, b int) int { return cmp.Compare(s.ranges[a].First, s.ranges[b].First) })
	s.ranges[is[0]].Last = s.ranges[is[1]].Last
	s.ranges = slices.Delete(s.ranges, is[1], is[1]+1)
}

func roleName(r frame.Role) string {
	switch r {
	case frame.Priority:
		return "priority"
	case frame.Datagrams:
		return "datagrams"
	}
	return "bulk"
}
