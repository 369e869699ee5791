package tunnel

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/tunnel/congestion"
	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// Path is one of several ways over the WAN to a peer: from an address of ours
// to one of the peer's. Ways are used together, each by connections of its own.
type Path struct {
	// Name is the same at both ends, and what operators see. Empty if there is
	// but one way.
	Name string
	// Source is the IP address that we send from. Empty: the system chooses.
	Source string
	// Addrs of the peer, "host:port", tried in turn. Without any we do not dial
	// this way, but the peer may, and the rest holds for what we send.
	Addrs []string
	// Rate is what the way carries from here, or what we may use of it, in bytes
	// per second on the wire. 0 finds it out.
	Rate int64
	// Cost, 0 or more: bulk of a flow goes over the ways of the lowest cost
	// that are up, and over others only if the flow may use all (Flow.UseAll).
	Cost int
}

// maxPaths of a link: four uplinks, or two at each end.
const maxPaths = 4

const (
	// probeAfter without an answer a ping is sent on a path, and deadAfter that
	// without a packet from the peer the path is dead: with two ticks, and what a new
	// set takes over another path, less than 3 seconds. A packet that is lost has been
	// sent again three times by then. A peer that was heard on another path meanwhile
	// is there, and has lost no more than two of them after deadBeside. On a slow line
	// it is slowTrips smoothed round trips.
	probeAfter = 400 * time.Millisecond
	deadAfter  = 1500 * time.Millisecond
	deadBeside = 1000 * time.Millisecond
	slowTrips  = 3
	// leftAfter without a connection the peer has a path no more, if it is not silent: it
	// would have dialed several times (backoffMax).
	leftAfter = 10 * time.Second
	// lateTick: looks at the paths are missing (one comes each watchEvery), so we have
	// not been running ourselves and cannot tell who was silent. It is half of
	// deadBeside, lest the wait of a path pass while nobody could hear the answer.
	lateTick = 2*tickEvery + tickEvery/2
)

// errTooManyPaths: a peer names more than maxPaths.
var errTooManyPaths = errors.New("too many paths")

// errNoPath: what was dialed is no path any more.
var errNoPath = errors.New("the path has been removed")

// errSilent is the end of the connections of a path that is dead.
var errSilent = errors.New("timeout: no recent network activity")

// A path is what a link knows of one way. Link.mu guards it, but for what is
// atomic or constant.
type path struct {
	name  string           // constant
	model *congestion.Path // constant, with a lock of its own
	wire  traffic          // all classes
	life  life
	hole  hole

	rtt    time.Duration // smoothed, as of the last tick; 0 while unknown
	conf   Path
	dials  backoff
	extra  map[frame.Role]int // further connections being dialed
	byPeer bool               // the peer has dialed it
	left   time.Duration      // when the last connection over it has ended, or was to be made
	ended  bool               // the peer has ended that, so it was not silent
	looked int64              // bytes received as of the last look at what TCP hears
	last   lastLine
	loss   losses
	small  time.Time // until then large packets are not tried, after it they are: they did not pass; zero: they do
	why    string    // there are no connections over it; "" while there are
}

// A lastLine is where the peer answered on a path when the last set of connections
// ended; the zero value: it did not.
type lastLine struct {
	host string // without the port
	at   time.Duration
}

// stillWarm is how long a line is taken for what it was when its connections ended
// because another path died: 10 s, as long as a new set may take to be ready. It
// was one that answered within answersIn.
const (
	stillWarm = readyWithin
	answersIn = time.Second
)

// remember notes the line of a connection that ends with its set. The caller
// holds mu.
func (l *Link) remember(c *carrier) {
	now, life := time.Since(l.born), &c.path.life
	if heard := time.Duration(life.heard.Load()); !life.dead && heard > 0 && now-heard < answersIn {
		c.path.last = lastLine{hostOf(c.conn.RemoteAddr()), now}
	}
}

// stillKnown tells whether p, over which the peer at addr has been reached anew, is the
// line that it was a moment ago: then what its model knows of it holds. The caller
// holds mu.
func (l *Link) stillKnown(p *path, addr net.Addr) bool {
	return p.last.host != "" && p.last.host == hostOf(addr) && time.Since(l.born)-p.last.at < stillWarm
}

// hostOf is an address without its port.
func hostOf(addr net.Addr) string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return host
}

// used tells whether there are connections over p, or should be.
func (p *path) used() bool { return p.byPeer || len(p.conf.Addrs) > 0 }

// usedPaths are those that count. The caller holds mu.
func (l *Link) usedPaths() (used []*path) {
	for _, p := range l.paths {
		if p.used() {
			used = append(used, p)
		}
	}
	return used
}

// ways are the used paths; all while none is. The caller holds mu.
func (l *Link) ways() []*path {
	if used := l.usedPaths(); len(used) > 0 {
		return used
	}
	return l.paths
}

// life tells whether the peer answers on a path. Over TCP the kernel says so (tcp_heard.go),
// or where it does not, package mux. Times are since the link was made, in nanoseconds, 0
// for never.
type life struct {
	heard atomic.Int64 // the last packet that came
	asked atomic.Int64 // the first packet since then that left

	// Link.mu guards what follows.
	probed time.Duration // when a ping was sent because of silence; 0: not
	dead   bool          // it was silent for too long, and nothing has come since
	died   time.Duration
}

func (l *life) left(now time.Duration) {
	if l.asked.Load() == 0 {
		l.asked.CompareAndSwap(0, int64(now))
	}
}

func (l *life) came(now time.Duration) {
	l.heard.Store(int64(now))
	l.asked.Store(0)
}

// verdict on a silence.
type verdict int

const (
	alive verdict = iota
	ask           // send a ping
	dead
)

// judge looks at a path whose round trip is about rtt. It is told the time, and when
// the peer was heard last on another path.
func (l *life) judge(now, rtt, beside time.Duration) verdict {
	asked, heard := time.Duration(l.asked.Load()), time.Duration(l.heard.Load())
	if heard > l.probed { // since then; what was asked is another question
		l.probed = 0
	}
	l.dead = l.dead && heard <= l.died
	after := deadAfter
	if beside > l.probed+rtt {
		after = deadBeside
	}
	switch {
	case asked == 0:
	case l.probed == 0 && now-asked >= probeAfter:
		l.probed = now
		return ask
	case l.probed != 0 && now-l.probed >= max(after, slowTrips*rtt):
		l.probed, l.dead, l.died = 0, true, now
		l.asked.Store(0) // the next silence is another one
		return dead
	}
	return alive
}

// rest is for while TCP carries the path and no kernel tells of it: what has been asked was by QUIC, which is
// tried now and again, and no answer to it says nothing of the connections in use.
func (l *life) rest() {
	l.asked.Store(0)
	l.probed, l.dead = 0, false
}

// newPath makes what is known of a way that is new. The caller holds mu.
func (l *Link) newPath(conf Path) *path {
	p := &path{name: conf.Name, model: congestion.New(0), conf: conf, extra: make(map[frame.Role]int)}
	l.paths = append(l.paths, p)
	return p
}

// pathNamed finds a path, or makes it for a peer that dials this way. The caller
// holds mu.
func (l *Link) pathNamed(name string) (*path, error) {
	i := slices.IndexFunc(l.paths, func(p *path) bool { return p.name == name })
	if i < 0 && len(l.usedPaths()) >= maxPaths && !l.makeRoom() {
		return nil, fmt.Errorf("path %q: %w: %d are in use", name, errTooManyPaths, maxPaths)
	}
	if i < 0 {
		i = len(l.paths)
		l.newPath(Path{Name: name})
	}
	p := l.paths[i]
	p.left = time.Since(l.born)
	if !p.byPeer {
		p.byPeer = true
		l.shareRate()
	}
	return p, nil
}

// makeRoom forgets a path that the peer has named and over which there is no
// connection: it may have been removed there while it was down. The caller holds mu.
func (l *Link) makeRoom() bool {
	for _, p := range l.paths {
		if l.onlyNamed(p) {
			l.forgetPath(p)
			return true
		}
	}
	return false
}

// forgetLeft forgets the paths that the peer has left: it has ended its connections over
// them and has made no other since. One that was silent is kept, for operators to see, and
// because it is known no better than before what the line carries (shareRate).
// The caller holds mu.
func (l *Link) forgetLeft(now time.Duration) {
	if l.set == nil || !l.set.ready || time.Since(l.set.priority.began) < leftAfter {
		return
	}
	for _, p := range slices.Clone(l.paths) {
		if l.onlyNamed(p) && p.ended && now-p.left >= leftAfter {
			l.forgetPath(p)
		}
	}
}

// onlyNamed tells whether nothing but the peer's word says that p is a path: there is
// no connection over it, and the config says no more of it than its name. The caller
// holds mu.
func (l *Link) onlyNamed(p *path) bool {
	c := p.conf
	said := len(c.Addrs) > 0 || c.Source != "" || c.Rate != 0 || c.Cost != 0
	return p.byPeer && !said && (l.set == nil || l.set.first(p) == nil)
}

// forgetPath is for one that the peer does not have any more. The caller holds mu.
func (l *Link) forgetPath(p *path) {
	p.byPeer = false
	if len(l.paths) > 1 {
		l.paths = slices.DeleteFunc(l.paths, func(o *path) bool { return o == p })
	}
	l.shareRate()
}

// setPaths takes the ways that there are now. Connections over one that has gone
// or goes elsewhere now are given up; those over others stay.
func (l *Link) setPaths(confs []Path, via Carrier) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.choose.setting != via {
		l.choose = chooser{setting: via}
		l.leaveCarrier()
	}
	for _, c := range confs {
		i := slices.IndexFunc(l.paths, func(p *path) bool { return p.name == c.Name })
		if i < 0 {
			l.newPath(c)
			continue
		}
		p := l.paths[i]
		if p.conf.Source != c.Source || !slices.Equal(p.conf.Addrs, c.Addrs) {
			p.dials.reset()
			if len(p.conf.Addrs) > 0 {
				l.leavePath(p, errors.New("the path has changed"))
			}
			if p.last = (lastLine{}); l.set == nil || l.set.dialed || p.conf.Source != c.Source {
				p.model.Reset() // it is another line; one that the peer has dialed stays
			}
		}
		p.conf = c
	}
	l.paths = slices.DeleteFunc(l.paths, func(p *path) bool {
		if slices.ContainsFunc(confs, func(c Path) bool { return c.Name == p.name }) {
			return false
		}
		if len(p.conf.Addrs) > 0 {
			l.leavePath(p, errors.New("the path has been removed"))
		}
		p.conf = Path{Name: p.name}
		return !p.byPeer
	})
	l.removed = false
	l.shareRate()
	l.reckonCost()
	poke(l.wake)
}

// leavePath ends the connections over a path that we dialed. The caller holds mu.
func (l *Link) leavePath(p *path, why error) {
	s := l.set
	if s == nil || !s.dialed {
		return
	}
	if s.priority.path == p {
		l.blame(why, s.addr)
		l.drop(why, codeReplaced)
		return
	}
	for c := range s.others {
		if c.path == p {
			c.end(why, codeReplaced)
		}
	}
	l.reckonCost()
}

// shareRate tells each path's model what it may send. A cap of the link is
// shared in proportion to the rates that are known; where one is not, only the
// link's own cap keeps all of them within it. The caller holds mu.
func (l *Link) shareRate() {
	most, sum, known := l.bucket.Rate(), int64(0), true
	used := l.ways()
	for _, p := range used {
		sum += p.conf.Rate
		known = known && p.conf.Rate > 0
	}
	for _, p := range used {
		rate := p.conf.Rate
		switch {
		case len(used) == 1 && most > 0:
			rate = min(cmp.Or(rate, most), most)
		case known && most > 0 && sum > most:
			rate = int64(float64(rate) * float64(most) / float64(sum))
		}
		p.model.SetRate(rate)
	}
}

// reckonCost notes how many paths carry bulk, and their lowest cost. The caller
// holds mu.
func (l *Link) reckonCost() {
	s := l.set
	if s == nil {
		return
	}
	least, most := -1, -1
	with := make(map[*path]bool)
	for c := range s.others {
		if c.role == frame.Bulk && !c.ended {
			with[c.path] = true
			if least < 0 || c.path.conf.Cost < least {
				least = c.path.conf.Cost
			}
			most = max(most, c.path.conf.Cost)
		}
	}
	l.sched.cheapest, l.sched.mixed, l.sched.paths = least, least != most, len(with)
	l.sched.wakeAll()
}

// watchPaths finds the paths on which the peer is silent. The caller holds mu.
func (l *Link) watchPaths(now time.Time) {
	late := now.Sub(l.watched) > lateTick
	l.watched = now
	if l.set == nil {
		return
	}
	for _, p := range l.paths {
		if late {
			p.life.probed = 0
			continue
		}
		first := l.set.first(p)
		if first == nil {
			continue
		}
		p.rtt = first.conn.ConnectionStats().SmoothedRTT
		rtt := p.rtt
		if l.set.via == TCP {
			h, told := l.hearTCP(p, now.Sub(l.born))
			if !told {
				p.life.rest()
				continue
			}
			rtt = max(rtt, h.rtt)
		}
		switch p.life.judge(now.Sub(l.born), rtt, l.heardBeside(p)) {
		case ask:
			first.probe()
		case dead:
			l.pathDead(p)
		default:
			l.watchLarge(p, first, now)
		}
		if l.set == nil {
			return
		}
	}
}

// heardBeside is when the peer was heard last on a path other than p. The caller
// holds mu.
func (l *Link) heardBeside(p *path) (at time.Duration) {
	for _, o := range l.paths {
		if o != p {
			at = max(at, time.Duration(o.life.heard.Load()))
		}
	}
	return at
}

// pathDead ends the connections over a path on which the peer does not answer.
// The caller holds mu.
func (l *Link) pathDead(p *path) {
	s := l.set
	p.why, _ = describe(errSilent)
	l.node.log.Warn("path is dead", "site", l.site, "path", p.name, "peer", s.first(p).conn.RemoteAddr().String())
	if s.priority.path == p {
		l.state.heard = l.born.Add(time.Duration(p.life.heard.Load()))
		l.state.blame(errSilent, s.addr)
		l.drop(errSilent, codeDead)
		return
	}
	for c := range s.others {
		if c.path == p {
			c.end(errSilent, codeDead)
		}
	}
	l.reckonCost()
	p.dials.failed(time.Now())
}

// down notes why there is no connection over p. The caller holds mu.
func (l *Link) down(p *path, why error) {
	if l.set == nil || l.set.first(p) == nil {
		p.why, _ = describe(why)
	}
}

// first is a connection of the set over p, the most important one; nil if there
// is none.
func (s *set) first(p *path) *carrier {
	if s.priority.path == p {
		return s.priority
	}
	for c := range s.others {
		if c.path == p && !c.ended {
			return c
		}
	}
	return nil
}

// count is the number of connections over p with a role.
func (s *set) count(p *path, role frame.Role) (n int) {
	for c := range s.others {
		if c.path == p && c.role == role {
			n++
		}
	}
	return n
}
