package dedup

import (
	"sync"
)

// A tier is the slabs that the segments of a store live in, within a budget. A
// store without a disk never evicts: the windows of its shelves are the bound.
type tier struct {
	max int // slabs that may be in use; 0: the shelves are the bound

	mu       sync.Mutex // guards what follows
	free     []*slab
	live     int        // slabs in use
	resident []*segment // that may be evicted once they are idle; only with max
	hand     int        // where in resident evict goes on
}

// maxFreeSlabs is what an idle store may keep beyond its pages: 16 MiB, what
// an eviction of the oldest segments frees at once.
const maxFreeSlabs = 16

// take is a slab for g, which is new: beyond the budget if all that is in
// memory is in use. That is a segment for each open channel at most.
func (m *tier) take(g *segment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.room() {
		m.live++
	}
	m.give(g)
}

// try is a slab for g, or nil when the budget is in use.
func (m *tier) try() *slab {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.room() {
		return nil
	}
	return m.slab()
}

// room counts one more slab as live, if the budget has it or can be made to.
func (m *tier) room() bool {
	m.shrink(m.max - 1)
	if m.max > 0 && m.live >= m.max {
		return false
	}
	m.live++
	return true
}

// trim gives back what is over the budget and need not be in memory any more.
func (m *tier) trim() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shrink(m.max)
}

func (m *tier) shrink(to int) {
	for m.max > 0 && m.live > to && m.evict() {
	}
}

func (m *tier) slab() *slab {
	if n := len(m.free); n > 0 {
		s := m.free[n-1]
		m.free = m.free[:n-1]
		return s
	}
	s := new(slab)
	huge(s[:])
	return s
}

func (m *tier) give(g *segment) {
	g.mem.Store(m.slab())
	if m.max > 0 {
		m.resident = append(m.resident, g)
	}
}

// put gives back a slab that try has made.
func (m *tier) put(s *slab) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.putLocked(s)
}

func (m *tier) putLocked(s *slab) {
	m.live--
	if len(m.free) < maxFreeSlabs {
		m.free = append(m.free, s)
	}
}

// loaded is told that g is in memory, in s.
func (m *tier) loaded(g *segment, s *slab) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g.mem.Store(s)
	m.resident = append(m.resident, g)
}

// drop frees the memory of a segment that nobody has pinned any more.
func (m *tier) drop(g *segment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := g.mem.Swap(nil); s != nil {
		m.putLocked(s)
	}
}

// evict frees the memory of one segment that is saved and was not used since
// the hand last passed it: the clock algorithm, two turns at most.
func (m *tier) evict() bool {
	for range 2 * len(m.resident) {
		if len(m.resident) == 0 {
			return false
		}
		m.hand %= len(m.resident)
		g := m.resident[m.hand]
		if g.mem.Load() != nil && (!g.idle.Load() || g.used.Swap(false)) {
			m.hand++
			continue
		}
		s := g.evict()
		if s == nil && g.mem.Load() != nil {
			m.hand++
			continue
		}
		last := len(m.resident) - 1
		m.resident[m.hand] = m.resident[last]
		m.resident[last] = nil
		m.resident = m.resident[:last]
		if s != nil {
			m.putLocked(s)
			return true
		}
	}
	return false
}
