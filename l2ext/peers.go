package l2ext

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/frag"
)

// maxQueued bounds the messages that wait for a peer: a snapshot of three full
// segments and what changes meanwhile. What does not fit is dropped, and the
// next digest mends it.
const maxQueued = 512

// peer is another site with which this one shares a segment.
type peer struct {
	site   string
	queue  chan []byte   // maxQueued; urgent messages
	end    func()        // ends its sender: the site is no longer a peer
	frames atomic.Uint32 // numbers the frames sent

	behind      atomic.Bool // something that it was to be told was lost here
	takesTrips  atomic.Bool // it has said that it takes announce.Trip
	takesCables atomic.Bool // likewise, announce.Cable
	takesFrozen atomic.Bool // likewise, announce.Frozen

	lanes   *lanes       // its streams, with a lock of their own; nil without Config.Streams
	readers atomic.Int32 // streams that it has to us
	express express

	mu      sync.Mutex // guards what follows
	up      bool
	changed time.Time // when it came up or went down
	line    lossMeter

	// rx makes calls of HandleDatagram for one site follow each other, as they
	// do but for the moment in which a link changes its connection. It guards
	// what follows, and is held while a frame is written to the TUN, which
	// never waits.
	rx      sync.Mutex
	rejoin  frag.Reassembler
	packet  []byte // built for the kernel
	scratch []byte // built for another site
}

// peer finds a site, or nil.
func (m *Manager) peer(site string) *peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[site]
}

// setPeers makes the peers those sites that share a segment with this one.
func (m *Manager) setPeers(segments map[uint32]*segment) {
	wished := make(map[string]bool)
	for _, seg := range segments {
		for _, site := range seg.Sites {
			wished[site] = true
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for site, p := range m.peers {
		if !wished[site] {
			p.end()
			m.leaveExpress(p)
			delete(m.peers, site)
		}
	}
	for site := range wished {
		if m.peers[site] == nil {
			ctx, cancel := context.WithCancel(context.Background()) // ended by setPeers
			p := &peer{site: site, queue: make(chan []byte, maxQueued), end: cancel}
			p.express.hello, p.express.aside, p.express.agreed = make(chan struct{}, 1), newAside(), m.agreementWith(site)
			p.up = m.cfg.Carrier.MaxDatagram(site) > 0 // it may have come up before it was a peer
			m.peers[site] = p
			m.senders.Go(func() { m.sendQueued(ctx, p) })
			if s := m.cfg.Streams; s != nil {
				p.lanes = newLanes(func(ctx context.Context) (Stream, error) { return s.OpenStream(ctx, site) })
				m.senders.Go(func() { p.lanes.run(ctx) })
			}
			if m.cfg.Express != nil {
				m.senders.Go(func() { m.sendHellos(ctx, p) })
				m.senders.Go(func() { m.sendAside(ctx, p) })
			}
		}
	}
}

// sendQueued sends what waits for a peer, in order, until ctx ends.
func (m *Manager) sendQueued(ctx context.Context, p *peer) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-p.queue:
			if err := m.cfg.Carrier.SendUrgent(ctx, p.site, b); err != nil && ctx.Err() == nil {
				p.behind.Store(true)
				m.log.Debug("announcement not sent; the next digest mends it", "peer", p.site, "err", err)
			}
		}
	}
}

// PeerUp tells that the link to a site works from now on. All that is known of
// the shared segments is sent.
func (m *Manager) PeerUp(site string) {
	m.notify(func() {
		if !m.setUp(site, true) {
			return
		}
		for _, seg := range m.segments() {
			if slices.Contains(seg.Sites, site) {
				m.sendWay(seg, site)
				m.sendSnapshot(time.Now(), seg, site)
				m.sendDigest(seg, site)
				m.sendKey(time.Now(), seg, site)
				m.sendAble(seg, site)
				seg.saidAt = time.Time{} // see lookAtMembers
				seg.forgetFrozen(site)
			}
		}
		m.lookAfterExpress(time.Now())
	})
}

// PeerDown tells that the link to a site does not work. Its bindings stay:
// frames to them are dropped and counted until the link is back.
func (m *Manager) PeerDown(site string) {
	m.notify(func() { m.setUp(site, false) })
}

// notify has the loop do f, after all that came before.
func (m *Manager) notify(f func()) {
	select {
	case m.news <- f:
	case <-m.done:
	}
}

func (m *Manager) setUp(site string, up bool) bool {
	p := m.peer(site)
	if p == nil {
		return false
	}
	p.mu.Lock()
	p.up, p.changed = up, time.Now()
	p.mu.Unlock()
	if !up { // the next gateway there may be an older one
		p.takesTrips.Store(false)
		p.takesCables.Store(false)
		p.takesFrozen.Store(false)
		if p.lanes != nil {
			p.lanes.setAble(false)
		}
	}
	for !up { // what waits would be old when the link is back
		select {
		case <-p.queue:
		default:
			return true
		}
	}
	return true
}

func (p *peer) isUp() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up
}

// announce tells all sites of a segment about bindings.
func (m *Manager) announce(seg *segment, records []announce.Record) {
	if len(records) == 0 {
		return
	}
	for _, site := range seg.Sites {
		m.sendRecords(seg, site, records)
	}
}

func (m *Manager) sendRecords(seg *segment, site string, records []announce.Record) {
	for chunk := range slices.Chunk(records, announce.MaxRecords) {
		if !m.enqueue(seg, site, announce.Message{Kind: announce.Update, VNI: seg.VNI, Records: chunk}) {
			return // nor would the rest
		}
	}
}

// snapshotsOften is how many snapshots of a segment a site gets in a second. It can ask for
// one by a message of a few bytes, and each keeps the loop for some milliseconds, in which
// the flips of others wait. What is due beyond that is sent with the next tick.
const snapshotsOften = 2

// due are the snapshots that a site gets.
type due struct {
	ration bucket
	owed   bool
}

// sendSnapshot sends all bindings that are not withdrawn, soon.
func (m *Manager) sendSnapshot(now time.Time, seg *segment, site string) {
	d := seg.due[site]
	if d == nil {
		return // it is not on the segment
	}
	if d.owed = !d.ration.take(now, 1); !d.owed {
		m.sendAll(seg, site)
	}
}

// sendOwed sends the snapshots that were due too often.
func (m *Manager) sendOwed(now time.Time) {
	for _, seg := range m.segments() {
		for site, d := range seg.due {
			if d.owed {
				m.sendSnapshot(now, seg, site)
			}
		}
	}
}

// sendAll is sendSnapshot, now, and then tells of what jobs do with these bindings.
func (m *Manager) sendAll(seg *segment, site string) {
	seg.mu.RLock()
	records := make([]announce.Record, 0, len(seg.table.byMAC))
	for b := range maps.Values(seg.table.byMAC) {
		if !b.withdrawn() {
			records = append(records, b.rec)
		}
	}
	seg.mu.RUnlock()
	m.sendRecords(seg, site, records)
	m.sendPrepares(seg, site)
}

// digestsAtOnce is of how many segments sites are told in one tick, so that the messages of
// many, three of each, find room in a peer's queue beside others; more only where all could
// not be told in digestEvery.
const digestsAtOnce = 64

// hastenDigests has those segments told of first of which something was lost here, once nothing waits any more for the site
// that was to be told: it may have been the flip of a VM that runs.
func (m *Manager) hastenDigests() {
	var behind []string
	m.mu.Lock()
	for site, p := range m.peers {
		if len(p.queue) == 0 && p.isUp() && p.behind.Swap(false) {
			behind = append(behind, site)
		}
	}
	m.mu.Unlock()
	if len(behind) == 0 {
		return
	}
	for _, seg := range m.segments() {
		if slices.ContainsFunc(seg.Sites, func(site string) bool { return slices.Contains(behind, site) }) {
			seg.digested = seg.digested.Add(-digestEvery) // due, and still in its turn
		}
	}
}

// sendDigests tells sites again what they have to know, so that whatever was lost, or
// came before they had the segment, is mended: each digestEvery, or a tick later.
func (m *Manager) sendDigests(now time.Time) {
	all := m.segments()
	var due []*segment
	for _, seg := range all {
		if now.Sub(seg.digested) >= digestEvery {
			due = append(due, seg)
		}
	}
	slices.SortFunc(due, func(a, b *segment) int { return cmp.Or(a.digested.Compare(b.digested), cmp.Compare(a.VNI, b.VNI)) })
	atOnce := max(digestsAtOnce, len(all)*int(tickEvery)/int(digestEvery)+1)
	for _, seg := range due[:min(len(due), atOnce)] {
		seg.digested = now
		for _, site := range seg.Sites {
			m.sendWay(seg, site)
			m.sendDigest(seg, site)
			m.sendTrip(seg, site)
			m.repeatFrozen(seg, site)
		}
		m.repeatAble(seg)
	}
}

func (m *Manager) sendDigest(seg *segment, site string) {
	seg.mu.RLock()
	msg := announce.Message{Kind: announce.Digest, VNI: seg.VNI, Count: seg.table.live, Sum: seg.table.sum}
	seg.mu.RUnlock()
	m.enqueue(seg, site, msg)
}

// enqueue never waits. It tells whether the message will be sent, if the link lives.
func (m *Manager) enqueue(seg *segment, site string, msg announce.Message) (queued bool) {
	p := m.peer(site)
	if p == nil || !p.isUp() {
		return false // PeerUp sends all
	}
	if seg.ways.refuses(site) && msg.Kind != announce.Way {
		return false // it carries the segment in another mode
	}
	b, err := msg.Append(nil)
	if err != nil {
		m.log.Error("announcement not written", "segment", seg.Name, "err", err)
		return false
	}
	select {
	case p.queue <- b:
		return true
	default:
		p.behind.Store(true)
		seg.counts.add(Unsent, 1)
		m.log.Warn("announcement dropped; the next digest mends it", "peer", site, "segment", seg.Name)
		return false
	}
}
