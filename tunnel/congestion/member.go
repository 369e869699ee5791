package congestion

import (
	"sync/atomic"
	"time"
)

// Class says how a member's packets are paced. The zero value is Bulk.
type Class uint8

// The classes.
const (
	// Bulk waits for the pacing budget.
	Bulk Class = iota
	// Priority is charged to the budget and does not wait for what others have
	// used of it, as long as it stays within the path's rate by itself.
	Priority
)

// Until a member has a path it may have looseWindow bytes in flight, and is not
// paced: its handshake.
const looseWindow = 32 * 1280

// A Member is one connection of a path. It is a ccslot.Controller: those
// methods are called on the connection's run loop. A new one has no path; until
// Join it only lets a handshake pass. All methods are safe for concurrent use.
type Member struct {
	path atomic.Pointer[Path]
	seen atomic.Uint64 // packets sent or acknowledged, with and without a path

	// Counts for Counters.
	sent, lost, spurious atomic.Uint64

	// What follows is guarded by the path's mutex.
	class    Class
	overhead int64 // bytes on the wire around each packet
	inFlight int64 // bytes of packets
	packet   int64 // largest packet that is not one to look for the MTU
	packets  packets
}

// NewMember makes a member without a path.
func NewMember() *Member { return &Member{packet: 1280} }

// Counters are totals of a member since it was made, in packets.
type Counters struct{ Sent, Lost, Spurious uint64 }

// Counters of the member. A packet that was found lost and arrived later counts
// in Lost and in Spurious.
func (m *Member) Counters() Counters {
	return Counters{m.sent.Load(), m.lost.Load(), m.spurious.Load()}
}

// Seen tells whether the connection has asked this controller at all.
func (m *Member) Seen() bool { return m.seen.Load() > 0 }

// Join makes the member one of a path, for good. Its packets have up to packet bytes, and
// each has overhead around it on the wire.
func (m *Member) Join(p *Path, class Class, packet, overhead int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.path.Load() != nil {
		return
	}
	m.class, m.packet, m.overhead = class, int64(packet), int64(overhead)
	p.members[m] = struct{}{}
	p.count()
	m.path.Store(p)
}

// Leave takes the member out: its connection has ended.
func (m *Member) Leave() {
	p := m.path.Load()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, in := p.members[m]; !in {
		return
	}
	delete(p.members, m)
	p.count()
	p.inFlight -= m.inFlight
	m.inFlight = 0
	m.packets.clear()
	p.large.forget()
}

// CanSend implements ccslot.Controller. A connection with nothing in flight may
// always send, whatever the others have: no acknowledgement would wake it.
func (m *Member) CanSend(inFlight int64) bool {
	p := m.path.Load()
	if p == nil {
		return inFlight < looseWindow
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m.setInFlight(p, inFlight)
	if inFlight < 2*m.packet {
		return true
	}
	used := p.inFlight
	if m.class == Priority {
		used = inFlight
	}
	room := used < p.model.window()
	if !room {
		p.model.round.held, p.model.round.full = true, true
		p.fullAt = p.now
	}
	return room
}

// HasBudget implements ccslot.Controller.
func (m *Member) HasBudget(now time.Duration) bool {
	p := m.path.Load()
	if p == nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	passes := p.budget.wait(p.time(now), m.class) == 0
	p.model.round.held = p.model.round.held || !passes
	return passes
}

// NextSend implements ccslot.Controller.
func (m *Member) NextSend() time.Duration {
	p := m.path.Load()
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.external(p.now + max(p.budget.wait(p.now, m.class), leastWait))
}

// Sent implements ccslot.Controller.
func (m *Member) Sent(now time.Duration, packet int64, size, inFlight int64, elicits bool) {
	m.seen.Add(1)
	m.sent.Add(1)
	p := m.path.Load()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.time(now)
	wire := size + m.overhead
	if !elicits {
		p.chargeAcks(t, m.class, wire)
		return
	}
	p.charge(t, m.class, wire)
	if size <= m.packet { // what is larger looks for the MTU, and may well vanish
		p.large.sent(size)
	}
	before := p.inFlight
	m.setInFlight(p, inFlight)
	s := m.packets.add(packet)
	s.size = wire
	p.model.sent(t, s, before)
}

// Acked implements ccslot.Controller.
func (m *Member) Acked(now time.Duration, packet int64, size int64) {
	m.seen.Add(1)
	p := m.path.Load()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.time(now)
	p.large.acked(size)
	m.setInFlight(p, max(m.inFlight-size, 0))
	if s, ok := m.packets.take(packet); ok {
		p.model.acked(t, s, p.inFlight)
		p.setPace(t)
	}
}

// Lost implements ccslot.Controller.
func (m *Member) Lost(packet int64, size int64) {
	if size > 0 {
		m.lost.Add(1)
	}
	p := m.path.Load()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if size == 0 {
		p.model.marked()
		return
	}
	p.large.lost(size)
	m.setInFlight(p, max(m.inFlight-size, 0))
	if s, ok := m.packets.take(packet); ok {
		p.model.lost(s)
	}
}

// Spurious implements ccslot.Controller.
func (m *Member) Spurious(int64) {
	m.spurious.Add(1)
	p := m.path.Load()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.model.spurious(m.packet + m.overhead)
}

// SetPacketSize implements ccslot.Controller.
func (m *Member) SetPacketSize(bytes int64) {
	p := m.path.Load()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m.packet = bytes
}

// Migrated implements ccslot.Controller. The path's model stays: it is the same
// two sites, and the model soon sees what is different.
func (m *Member) Migrated() {
	p := m.path.Load()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m.setInFlight(p, 0)
	m.packets.clear()
	p.large.forget()
}

// Window implements ccslot.Controller.
func (m *Member) Window() int64 {
	p := m.path.Load()
	if p == nil {
		return looseWindow
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.model.window()
}

// setInFlight keeps the path's sum right. The caller holds the path's mutex.
func (m *Member) setInFlight(p *Path, n int64) {
	if _, in := p.members[m]; in {
		p.inFlight += n - m.inFlight
		m.inFlight = n
	}
}
