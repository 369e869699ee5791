package l2ext

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// Between the flip and the RESUME the VM is bound to a site where it does not
// run yet. Frames for it wait there, in the gateway: in the lot. From the LAN
// they come because the kernel's entry still points to the overlay port. At the
// RESUME the entry goes, and the frames enter the bridge in the order in which
// they came; should the move be revoked they follow the VM back.

// Bounds of a lot. What does not fit is dropped: the newest, so that what a TCP
// connection has got remains without a hole.
const (
	maxParkedMAC = 1 << 20          // bytes for one MAC, with frameCost for each frame: 670 full ones; a TAP has room for 1000
	maxParked    = 64 << 20         // likewise on one segment
	maxParkedAll = 256 << 20        // likewise on all: a peer can have frames parked on each that it shares
	parkTime     = 10 * time.Second // then they are given to the LAN: if the VM ran we would have been told
)

// A lot holds the frames of a segment that wait for paused VMs.
type lot struct {
	// mu guards what follows. It is held while frames are written to the TUN,
	// which never waits, so that none overtakes those that waited.
	mu    sync.Mutex
	byMAC map[MAC]*parked
	bytes int
	all   *budget // that it shares with the lots of other segments
	ended bool    // its segment has another one now, or is no more: nothing waits here
}

// budget bounds the bytes of all lots. It is safe for concurrent use.
type budget struct {
	most int64
	used atomic.Int64
}

// take tells whether there is room for n bytes more.
func (b *budget) take(n int) bool {
	if b.used.Add(int64(n)) > b.most {
		b.give(n)
		return false
	}
	return true
}

func (b *budget) give(n int) { b.used.Add(-int64(n)) }

// parked is what waits for one MAC. What went by the old site was sent before
// what came straight here, even if it arrives later: it goes first.
type parked struct {
	since    time.Time
	detoured [][]byte
	straight [][]byte
	bytes    int
	lost     int
}

// route says how a frame has come.
type route bool

const (
	straight route = false
	detoured route = true // by the site that its MAC has left
)

// emptied is a lot for the same MACs, whose VMs are still paused. What has waited in l
// is lost.
func (l *lot) emptied() (next *lot, lost int) {
	next = newLot(l.all)
	for mac, p := range l.end() {
		n := len(p.detoured) + len(p.straight)
		next.byMAC[mac] = &parked{since: p.since, lost: p.lost + n}
		lost += n
	}
	return next, lost
}

// end lets nothing wait any more, and returns what has.
func (l *lot) end() (had map[MAC]*parked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.give(l.bytes)
	had, l.byMAC, l.bytes, l.ended = l.byMAC, make(map[MAC]*parked), 0, true
	return had
}

// holds tells whether frames for a MAC wait here.
func (l *lot) holds(mac MAC) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byMAC[mac] != nil
}

func newLot(all *budget) *lot { return &lot{byMAC: make(map[MAC]*parked), all: all} }

// park keeps a copy of a frame for a paused VM. It returns false if the VM has
// been let go in the meantime: the frame may go on.
func (s *segment) park(mac MAC, x parcel, by route) bool {
	frame := x.whole()
	l := s.lot
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.byMAC[mac]
	if p == nil {
		return false
	}
	cost := len(frame) + frameCost
	if p.bytes+cost > maxParkedMAC || l.bytes+cost > maxParked || !l.all.take(cost) {
		p.lost++
		s.counts.add(DropParked, 1)
		return true
	}
	if by == detoured {
		p.detoured = append(p.detoured, slices.Clone(frame))
	} else {
		p.straight = append(p.straight, slices.Clone(frame))
	}
	p.bytes += cost
	l.bytes += cost
	s.counts.add(Parked, 1)
	return true
}

// holdFor begins to park frames for a MAC. It needs seg.mu.
func (s *segment) holdFor(now time.Time, mac MAC, b *binding) {
	b.parked = true
	s.lot.open(now, mac)
}

func (l *lot) open(now time.Time, mac MAC) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byMAC[mac] == nil && !l.ended {
		l.byMAC[mac] = &parked{since: now}
	}
}

// parkEarly parks a frame that the owner of a MAC has sent to us, where its job
// is about to bring it: the flip is at its heels. Should it not come, the frame
// goes to the LAN when it has waited too long.
func (s *segment) parkEarly(now time.Time, mac MAC, x parcel) bool {
	s.lot.open(now, mac)
	return s.park(mac, x, straight)
}

// aside is where the kernel sends frames for a parked MAC: to us, by the name of
// any other site where all frames come to us.
func (s *segment) aside(b *binding) vxlan.Endpoint {
	if s.Mode == Direct {
		return vxlan.Self
	}
	if e := s.endpoint[b.from]; e != 0 {
		return e
	}
	for _, site := range s.Sites {
		return s.endpoint[site]
	}
	return 0
}

// letGo ends the parking of MACs that are here. The kernel's entry has to be
// removed before: with it, the bridge would send the frames back to us. It
// tells how many frames were released, and how many had not fitted.
func (m *Manager) letGo(seg *segment, macs []MAC) (held, lost int) {
	var packet []byte
	held, lost = seg.empty(macs, func(x parcel) {
		var err error
		if packet, err = m.toLAN(seg, x, packet); err != nil {
			seg.counts.add(DropCarrier, 1)
			return
		}
		seg.counts.add(Released, 1)
	})
	return held, lost
}

// sendBack ends the parking of MACs that went back to a site; their frames
// follow them.
func (m *Manager) sendBack(seg *segment, macs []MAC, site string) {
	var scratch []byte
	seg.empty(macs, func(x parcel) {
		h, err := ether.Parse(x.frame)
		if err != nil {
			return
		}
		if seg.Mode == Direct { // the kernel's entry leads them there
			m.inject(seg, x.frame)
			seg.counts.add(Released, 1)
			return
		}
		scratch = m.send(seg, site, x, sending{header: h, redirected: true, released: true, scratch: scratch})
		seg.counts.add(Released, 1)
	})
}

// empty takes the frames of MACs out of the lot, in order, and ends their
// parking.
func (s *segment) empty(macs []MAC, take func(x parcel)) (held, lost int) {
	s.lot.mu.Lock()
	for _, mac := range macs {
		p := s.lot.byMAC[mac]
		if p == nil {
			continue
		}
		for _, f := range append(p.detoured, p.straight...) {
			take(s.unwhole(f))
			held++
		}
		s.lot.bytes -= p.bytes
		s.lot.all.give(p.bytes)
		lost += p.lost
		delete(s.lot.byMAC, mac)
	}
	s.lot.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, mac := range macs {
		if b := s.table.byMAC[mac]; b != nil {
			b.parked = false
		}
	}
	return held, lost
}

// expireParked lets go of what has waited too long: its job may have been
// forgotten on either side, and a paused VM's TAP can wait as well.
func (m *Manager) expireParked(now time.Time) {
	for _, seg := range m.segments() {
		var late []MAC
		seg.lot.mu.Lock()
		for mac, p := range seg.lot.byMAC {
			if now.Sub(p.since) > parkTime {
				late = append(late, mac)
			}
		}
		seg.lot.mu.Unlock()
		if len(late) > 0 {
			m.log.Warn("VM is paused for long; frames for it wait no longer", "segment", seg.Name, "macs", len(late))
			m.runsHere(seg, late)
		}
	}
}

// runsHere ends the parking of MACs whose VM runs at this site.
func (m *Manager) runsHere(seg *segment, macs []MAC) (held, lost int) {
	var away []Entry
	seg.mu.RLock()
	for _, mac := range macs {
		if b := seg.table.byMAC[mac]; b != nil && b.parked {
			away = append(away, Entry{MAC: mac})
		}
	}
	seg.mu.RUnlock()
	m.point(seg, away)
	return m.letGo(seg, macs)
}
