package l2ext

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/probe"
)

// Times and bounds of loop detection, from facts/l2-extension.md, section A.5.
const (
	probeFast  = 100 * time.Millisecond // a probe into each LAN, so that a cable is found in under 200 ms. With many segments
	probeShare = 10 * time.Millisecond  // this for each of them, so that all together are at most 100 a second,
	probeEvery = time.Second            // but no longer; and probeFast all the same
	fastFor    = 10 * time.Second       // so long after a segment was attached or opened again
	loopRetry  = 60 * time.Second       // so long after the last sign of a loop broadcast stays shut
	keyEvery   = time.Minute            // a probe that somebody has recorded is worthless after two of these
	maxFlaps   = 10                     // times a second a source may come from LAN and tunnel in turn
	maxFlapped = 1024                   // sources that are watched for it
	keepSent   = 64                     // probes that another site may name: those of 6 s, which may be long on their way

	// A site's word that its LAN is joined with ours counts for believeFor while nothing of it shows here, and it names none
	// of our probes that have come there, and then again in doubtFor: it may lie.
	believeFor = 5 * time.Minute
	doubtFor   = time.Hour
)

// loop is what is known of ways that join a LAN with that of another site, or
// with itself, behind the gateways' backs.
type loop struct {
	joined atomic.Pointer[joint] // nil if there is none; looked at with every frame
	found  atomic.Bool           // one has just been found, and restoreTaken has yet to be called

	// Owned by Run's loop.
	attached  bool
	fastUntil time.Time
	lastProbe time.Time
	probes    uint64           // sent
	sent      [keepSent]uint64 // nonces of the last of them
	began     time.Time        // when the first was due

	mu      sync.Mutex // guards what follows
	seen    map[string]uint64
	keyed   map[string]time.Time // by site, when it sent its first key for the segment; see sawBefore
	vouches map[string]vouch     // by site; see keep
	flaps   map[MAC]*flap
	since   time.Time            // the second that flaps are of
	shown   map[string]time.Time // by site, when our LAN showed last that it is joined with that one's
	claimed map[string]time.Time // by site, since when it says so and nothing shows it
}

// joint is a LAN that is joined with ours.
type joint struct {
	site  string // "" for none: our own LAN runs in a circle
	why   string
	until time.Time
	shut  bool // it is we who shut our broadcast
	news  bool // the site vouches for it, and had not done so
	again bool // it had
}

// flap is how often a source has changed sides.
type flap struct {
	tunnel bool
	times  int
}

func newLoop() *loop {
	return &loop{seen: make(map[string]uint64), keyed: make(map[string]time.Time), vouches: make(map[string]vouch), flaps: make(map[MAC]*flap), shown: make(map[string]time.Time), claimed: make(map[string]time.Time)}
}

// isShut tells whether broadcast, multicast and unknown unicast are shut.
func (l *loop) isShut(now time.Time) bool {
	j := l.joined.Load()
	return j != nil && j.shut && now.Before(j.until)
}

// mayEcho tells whether what hosts of other sites say may come round to our LAN: not
// only those of the site with whose LAN it is joined, as that one's gateway also gives its
// LAN what comes from third sites.
func (l *loop) mayEcho(now time.Time) bool {
	j := l.joined.Load()
	return j != nil && now.Before(j.until)
}

// isJoined tells whether another site vouches for that. Of other signs, which any guest
// can give by sending a probe back, a host that announces itself here is the stronger one.
func (l *loop) isJoined(now time.Time) bool {
	j := l.joined.Load()
	return j != nil && j.site != "" && now.Before(j.until)
}

// problem is what an operator is told.
func (l *loop) problem(now time.Time) string {
	j := l.joined.Load()
	switch {
	case j == nil || !now.Before(j.until):
		return ""
	case j.shut:
		return j.why + "; broadcast is shut at this site"
	case j.site != "":
		return j.why + "; broadcast is shut at site " + j.site
	}
	return j.why
}

// flapped notes by which side a source has come, and tells whether it comes by
// both in turn too often.
func (l *loop) flapped(now time.Time, src MAC, tunnel bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= time.Second {
		clear(l.flaps)
		l.since = now
	}
	f := l.flaps[src]
	if f == nil {
		if len(l.flaps) < maxFlapped {
			l.flaps[src] = &flap{tunnel: tunnel}
		}
		return false
	}
	if f.tunnel != tunnel {
		f.tunnel = tunnel
		f.times++
	}
	return f.times > maxFlaps
}

// fresh tells whether a nonce of a site is new.
func (l *loop) fresh(site string, nonce uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if nonce <= l.seen[site] {
		return false
	}
	l.seen[site] = nonce
	return true
}

// forget makes any nonce of a site new: it has a new key. What was recorded
// under the one before is believed once more, for a minute at most.
func (l *loop) forget(site string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seen, site)
}

// shows notes that our LAN has shown that it is joined with that of a site.
func (l *loop) shows(now time.Time, site string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shown[site] = now
}

// believes tells whether a site's word that its LAN is joined with ours counts.
func (l *loop) believes(now time.Time, site string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.shown[site]; ok && now.Sub(at) < loopRetry {
		delete(l.claimed, site)
		return true
	}
	since, ok := l.claimed[site]
	if !ok || now.Sub(since) >= doubtFor {
		l.claimed[site] = now
		return true
	}
	return now.Sub(since) < believeFor
}

// A signer has the keys of probes: ours, and those of the other sites.
type signer struct {
	src MAC // of our probes

	// Owned by Run's loop.
	made  time.Time
	nonce uint64 // of the last probe, in whatever segment: one that is made anew does not begin again

	mu    sync.Mutex // guards what follows
	own   probe.Key
	keys  map[string][2]probe.Key // by site: the present one, and that before
	clock map[string]time.Duration
}

func newSigner() *signer {
	s := &signer{keys: make(map[string][2]probe.Key), clock: make(map[string]time.Duration)}
	var b [3]byte
	rand.Read(b[:]) // never fails
	s.src = probe.SourceOf(b)
	rand.Read(s.own[:])
	return s
}

// verify tells whether a probe is of the site that it names.
func (s *signer) verify(self string, p probe.Probe, frame []byte) bool {
	s.mu.Lock()
	own, others := s.own, s.keys[p.Site]
	s.mu.Unlock()
	if p.Site == self {
		return probe.Verify(frame, own)
	}
	for _, k := range others {
		if k != (probe.Key{}) && probe.Verify(frame, k) {
			return true
		}
	}
	return false
}

// sendProbes sends what is due into all LANs, and to other sites a new key when
// the old one has served its time.
func (m *Manager) sendProbes(ctx context.Context, now time.Time) {
	if now.Sub(m.signer.made) >= keyEvery {
		m.newKey(now)
	}
	for _, seg := range m.segments() {
		l := seg.loop
		if j := l.joined.Load(); j != nil && !now.Before(j.until) {
			l.joined.Store(nil)
			l.fastUntil = now.Add(fastFor)
			m.log.Info("no sign of a loop any more; broadcast is open", "segment", seg.Name)
			m.shutInKernel(ctx, now, seg)
		}
		if !seg.isAttached() {
			continue
		}
		if !l.attached {
			l.attached, l.began = true, now
			l.fastUntil = now.Add(fastFor)
		}
		if gap := probeGap(len(m.segments())); gap <= probeFast || now.Sub(l.lastProbe) >= gap || now.Before(l.fastUntil) {
			l.lastProbe = now
			m.sendProbe(seg)
		}
	}
}

// probeGap is how often a probe is due on each of some segments.
func probeGap(segments int) time.Duration {
	return min(max(time.Duration(segments)*probeShare, probeFast), probeEvery)
}

// shutInKernel has the kernel shut or open the broadcast of a segment that it
// carries, at once.
func (m *Manager) shutInKernel(ctx context.Context, now time.Time, seg *segment) {
	if seg.Mode != Direct {
		return
	}
	if err := m.reconcile(ctx, now); err != nil {
		m.log.Warn("segments not reconciled; will be tried again", "err", err)
	}
}

func (m *Manager) sendProbe(seg *segment) {
	m.signer.nonce += nonceStep()
	seg.loop.sent[seg.loop.probes%keepSent] = m.signer.nonce
	seg.loop.probes++
	m.signer.mu.Lock()
	key := m.signer.own
	m.signer.mu.Unlock()
	frame := probe.Probe{Src: m.signer.src, VNI: seg.VNI, Nonce: m.signer.nonce, Site: m.cfg.Site}.Append(nil, key)
	if _, err := m.toLAN(seg, parcel{frame: frame}, nil); err != nil {
		m.log.Debug("loop probe not sent", "segment", seg.Name, "err", err)
		return
	}
}

// nonceStep is how much a nonce grows: at a hundred a second they last for a decade, and hardly one of 2^29 is used.
func nonceStep() uint64 {
	var b [8]byte
	rand.Read(b[4:]) // never fails
	return binary.BigEndian.Uint64(b[:])>>2 + 1
}

// newKey replaces our key. Peers are told before it signs anything; a probe
// that overtakes the key is not believed, and the next one is.
func (m *Manager) newKey(now time.Time) {
	m.signer.made = now
	m.signer.mu.Lock()
	rand.Read(m.signer.own[:]) // never fails
	m.signer.mu.Unlock()
	for _, seg := range m.segments() {
		for _, site := range seg.Sites {
			m.sendKey(now, seg, site)
		}
	}
}

func (m *Manager) sendKey(now time.Time, seg *segment, site string) {
	m.signer.mu.Lock()
	key := m.signer.own
	m.signer.mu.Unlock()
	seg.mu.RLock()
	bridge := seg.attached.Bridge
	seg.mu.RUnlock()
	m.enqueue(seg, site, announce.Message{Kind: announce.Key, VNI: seg.VNI, Key: key, Time: now.UnixNano(), Bridge: bridge})
}

// takeKey notes the key of a site. It comes once for each shared segment.
func (m *Manager) takeKey(now time.Time, seg *segment, from string, msg announce.Message) {
	seg.mu.Lock()
	seg.machines[from] = msg.Bridge
	seg.mu.Unlock()
	seg.loop.noteKey(now, from)
	s := m.signer
	s.mu.Lock()
	known := s.keys[from]
	fresh := known[0] != probe.Key(msg.Key)
	if fresh {
		s.keys[from] = [2]probe.Key{msg.Key, known[0]}
	}
	s.clock[from] = time.Unix(0, msg.Time).Sub(now)
	s.mu.Unlock()
	if fresh { // perhaps its gateway has just started, and counts anew
		for _, seg := range m.segments() {
			seg.loop.forget(from)
		}
	}
}

// takeProbe takes a frame of a LAN that is a probe.
func (m *Manager) takeProbe(now time.Time, seg *segment, frame []byte) bool {
	if !probe.Is(frame) {
		return false
	}
	p, err := probe.Parse(frame)
	if err == nil && p.VNI == seg.VNI && p.Site == m.cfg.Site && p.Src != m.signer.src {
		m.secondGateway(now, seg)
		return true
	}
	if err != nil || !m.signer.verify(m.cfg.Site, p, frame) {
		seg.counts.add(DropMalformed, 1)
		return true
	}
	switch {
	case p.VNI != seg.VNI:
		m.setOdd(now, seg, fmt.Sprintf("the LAN is joined with that of the segment with VNI %d at site %s", p.VNI, p.Site))
	case !seg.loop.fresh(p.Site, p.Nonce):
	case p.Site == m.cfg.Site:
		m.join(now, seg, joint{why: "the LAN of this site runs in a circle: what is sent into it comes back"})
	default:
		m.loopFound(now, seg, p)
	}
	return true
}

// loopFound acts on a probe of another site. That one is told with each: it may hear none
// of ours, or believe none yet, and takes our hosts for its own until it knows.
func (m *Manager) loopFound(now time.Time, seg *segment, p probe.Probe) {
	seg.loop.shows(now, p.Site)
	msg := announce.Message{Kind: announce.Loop, VNI: seg.VNI, Site: m.cfg.Site}
	if to := m.peer(p.Site); to != nil && to.takesCables.Load() {
		msg.Kind, msg.Nonce = announce.Cable, p.Nonce
	}
	m.enqueue(seg, p.Site, msg)
	m.join(now, seg, m.joinedWith(now, seg, p.Site))
}

// joinedWith is the joint of our LAN with that of a site, for which the site vouches: of
// the two the one with the higher name shuts its broadcast.
func (m *Manager) joinedWith(now time.Time, seg *segment, site string) joint {
	why := "the LANs of this site and of site " + site + " are joined by another way than this segment"
	again := seg.loop.vouched(now, site)
	return joint{site: site, why: why, shut: m.cfg.Site > site, news: !again, again: again}
}

// secondGateway acts on a probe of our own site that is not ours. Nobody can vouch for
// it, as gateways of one site have no link; so it shuts nothing, and makes no other
// worry less.
func (m *Manager) secondGateway(now time.Time, seg *segment) {
	const why = "another gateway of this site is on its LAN: guests get two copies of what comes from other sites"
	if j := seg.loop.joined.Load(); j == nil || !now.Before(j.until) || j.why == why {
		m.join(now, seg, joint{why: why})
	}
}

// loopWith acts on a sign that our LAN is joined with that of a site, which is no proof as
// a probe is: hosts can give it. The other site is told only if it is to shut its broadcast.
func (m *Manager) loopWith(now time.Time, seg *segment, site, why string) {
	seg.loop.shows(now, site)
	if m.cfg.Site < site {
		m.enqueue(seg, site, announce.Message{Kind: announce.Loop, VNI: seg.VNI, Site: m.cfg.Site})
	}
	m.join(now, seg, joint{site: site, why: why, shut: m.cfg.Site > site})
}

// takeLoop is told by a site that its LAN is joined with ours.
func (m *Manager) takeLoop(now time.Time, seg *segment, from string, msg announce.Message) {
	if msg.Site != from {
		return // nobody speaks for another's LAN
	}
	if msg.Kind == announce.Cable && slices.Contains(seg.loop.sent[:], msg.Nonce) && msg.Nonce != 0 {
		seg.loop.shows(now, from) // as our probe has come there
	}
	if !seg.loop.believes(now, from) {
		seg.counts.add(Refused, 1)
		m.setOdd(now, seg, "site "+from+" says that its LAN is joined with that of this site, of which nothing shows here; that no longer shuts broadcast")
		return
	}
	m.join(now, seg, m.joinedWith(now, seg, from))
}

// join notes a joint, from now on for loopRetry.
func (m *Manager) join(now time.Time, seg *segment, j joint) {
	j.until = now.Add(loopRetry)
	was := seg.loop.joined.Load()
	if was != nil && now.Before(was.until) && (was.shut && !j.shut || was.site != "" && j.site == "") {
		return // an old worry that is greater
	}
	seg.loop.joined.Store(&j)
	first := was == nil || !now.Before(was.until)
	if j.site != "" && (first || j.news) {
		seg.loop.found.Store(true) // of three LANs that are joined, two tell in turn
	}
	if first || was.site != j.site && !j.again {
		seg.counts.add(LoopTrips, 1)
		m.log.Error("loop", "segment", seg.Name, "problem", seg.loop.problem(now))
	}
	if first || was.site != j.site && !j.again || was.shut != j.shut {
		m.shutInKernel(context.Background(), now, seg) // the loop's own step, as in this mode all signs come there
	}
}

// isEcho looks at each frame of the LAN first. One of a host of another site, while
// our LAN is joined with another, is an echo: it is dropped.
func (s *segment) isEcho(m *Manager, now time.Time, frame []byte) bool {
	h, err := ether.Parse(frame)
	if err != nil || !h.Dst.Group() && s.loop.joined.Load() == nil {
		return false
	}
	site, _ := s.lookup(h.Src)
	away := site != "" && site != m.cfg.Site
	if away && s.loop.mayEcho(now) {
		s.counts.add(DropShut, 1)
		return true
	}
	if h.Dst.Group() && s.loop.flapped(now, h.Src, false) && away {
		m.loopWith(now, s, site, fmt.Sprintf("frames of %v come from this LAN and from site %s in turn", h.Src, site))
	}
	return false
}

// fromTunnel looks at a frame for many that judge has passed, and tells whether
// the LAN gets it.
func (s *segment) fromTunnel(m *Manager, now time.Time, from string, h ether.Header, frame []byte) (deliver bool) {
	if s.loop.flapped(now, h.Src, true) {
		m.loopWith(now, s, from, fmt.Sprintf("frames of %v come from this LAN and from site %s in turn", h.Src, from))
	}
	return s.members.fromTunnel(now, m.cfg.Site, from, h, frame)
}
