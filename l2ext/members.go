package l2ext

import (
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// Times and bounds of multicast membership.
const (
	memberTime  = 260 * time.Second // a report counts for so long (RFC 9776, section 8.4)
	querierTime = 255 * time.Second // a router that asks no more is gone (section 8.5)
	answerTime  = 11 * time.Second  // hosts answer the first question within 10 s (section 8.3), and the WAN is between
	leaveTime   = 5 * time.Second   // it asks again after a leave: twice in 2 s, and room for the WAN
	expireEvery = time.Second
	maxMembers  = 4096 // groups that are known; the sites with the most of them get all multicast when there are more
)

// members is which site listens to which multicast group, from the IGMP and MLD
// messages that pass. Frames for a group go to sites that listen, and to sites
// with a router that asks. While no router asks, reports come only once, so
// that nothing can be held back; nor before all have answered one that has just begun.
type members struct {
	mu       sync.Mutex                   // guards what follows
	byGroup  map[MAC]map[string]time.Time // site, and until when
	groups   map[string]int               // by site, how many of these it is in
	heard    map[string]time.Time         // in mode Direct, who has told what it listens to, and until when that counts
	queriers [2]map[string]time.Time      // likewise; IPv4, IPv6
	asking   [2]time.Time                 // since when there are any
	crowded  map[string]time.Time         // sites with groups that are not known, and until when
	since    time.Time                    // when own was called first
	expired  time.Time                    // when expire was called last
	vain     time.Time                    // when makeRoom found nothing last
}

func newMembers() *members {
	return &members{
		byGroup:  make(map[MAC]map[string]time.Time),
		groups:   make(map[string]int),
		heard:    make(map[string]time.Time),
		crowded:  make(map[string]time.Time),
		queriers: [2]map[string]time.Time{make(map[string]time.Time), make(map[string]time.Time)},
	}
}

// family of a group address: 0 for IPv4, 1 for IPv6.
func family(group MAC) int {
	if group[0] == 0x33 {
		return 1
	}
	return 0
}

// fromLAN notes what a frame of this site's LAN says.
func (m *members) fromLAN(now time.Time, self string, h ether.Header, frame []byte) {
	if msg, ok := ether.MembershipOf(h, frame); ok {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.note(now, self, h, msg)
	}
}

// fromTunnel notes what a frame of another site says, and tells whether the LAN
// needs it. A report is for routers: hosts that hear it stay silent themselves
// (RFC 4541, section 2.1.1), and then nobody would know that they listen.
func (m *members) fromTunnel(now time.Time, self, from string, h ether.Header, frame []byte) (deliver bool) {
	msg, ok := ether.MembershipOf(h, frame)
	if !ok {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note(now, from, h, msg)
	if msg.Query {
		return true
	}
	if !now.Before(m.queriers[familyOf(h)][self]) && m.isAsked(now, familyOf(h)) {
		return false // the router that asks is not here
	}
	for _, g := range msg.Join {
		if len(msg.Join) == 1 && now.Before(m.byGroup[g][self]) {
			return false // the router here knows that somebody listens
		}
	}
	return true
}

func familyOf(h ether.Header) int {
	if h.Type == ether.TypeIPv6 {
		return 1
	}
	return 0
}

// note needs m.mu.
func (m *members) note(now time.Time, site string, h ether.Header, msg ether.Membership) {
	if msg.All { // who asks for one group only gets no other answer
		m.asks(now, familyOf(h), site)
	}
	for _, g := range msg.Join {
		m.join(now, g, site)
	}
	for _, g := range msg.Leave {
		if until, ok := m.byGroup[g][site]; ok && until.After(now.Add(leaveTime)) {
			m.byGroup[g][site] = now.Add(leaveTime) // unless another host there answers the router
		}
	}
}

// join needs m.mu.
func (m *members) join(now time.Time, g MAC, site string) {
	if _, known := m.byGroup[g][site]; !known {
		if m.byGroup[g] == nil {
			if !m.hasRoom(now, site) {
				m.crowded[site] = now.Add(memberTime)
				return
			}
			m.byGroup[g] = make(map[string]time.Time)
		}
		m.groups[site]++
	}
	m.byGroup[g][site] = now.Add(memberTime)
}

// hasRoom tells whether one more group can be noted for a site. It needs m.mu.
func (m *members) hasRoom(now time.Time, site string) bool {
	if len(m.byGroup) < maxMembers {
		return true
	}
	if now.Sub(m.expired) >= expireEvery { // it looks at all
		m.expired = now
		m.expire(now)
	}
	return len(m.byGroup) < maxMembers || m.makeRoom(now, site)
}

// makeRoom drops a group of the site that is in most, for one that is in less: what one site says it listens to is not to
// have others get what they do not. It needs m.mu.
func (m *members) makeRoom(now time.Time, site string) bool {
	if now.Sub(m.vain) < expireEvery { // likewise
		return false
	}
	most := site
	for s, n := range m.groups {
		if n > m.groups[most] {
			most = s
		}
	}
	if m.groups[most] > m.groups[site]+1 {
		for g, sites := range m.byGroup {
			if _, in := sites[most]; in && len(sites) == 1 {
				m.part(g, most)
				m.crowded[most] = now.Add(memberTime)
				return true
			}
		}
		m.vain = now
	}
	return false
}

// expire needs m.mu.
func (m *members) expire(now time.Time) {
	for g, sites := range m.byGroup {
		for site, until := range sites {
			if !now.Before(until) {
				m.part(g, site)
			}
		}
	}
}

// part takes a site out of a group. It needs m.mu.
func (m *members) part(g MAC, site string) {
	if _, known := m.byGroup[g][site]; !known {
		return
	}
	m.groups[site]--
	if delete(m.byGroup[g], site); len(m.byGroup[g]) == 0 {
		delete(m.byGroup, g)
	}
}

// asks notes that a router asks at a site. It needs m.mu.
func (m *members) asks(now time.Time, family int, site string) {
	if !m.isAsked(now, family) {
		m.asking[family] = now
	}
	m.queriers[family][site] = now.Add(querierTime)
}

// isAnswered tells whether a router asks, and who listens has had the time to say so. It needs m.mu.
func (m *members) isAnswered(now time.Time, family int) bool {
	return m.isAsked(now, family) && now.Sub(m.asking[family]) >= answerTime
}

// isAsked tells whether any router asks for reports. It needs m.mu.
func (m *members) isAsked(now time.Time, family int) bool {
	for _, until := range m.queriers[family] {
		if now.Before(until) {
			return true
		}
	}
	return false
}

// listens picks those of the sites that need frames for a group.
func (m *members) listens(now time.Time, group MAC, sites []string) (some []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := family(group)
	if !m.isAnswered(now, f) {
		return sites
	}
	for _, site := range sites {
		if now.Before(m.byGroup[group][site]) || now.Before(m.queriers[f][site]) || now.Before(m.crowded[site]) {
			some = append(some, site)
		}
	}
	return some
}

// audience is the sites that a frame for many goes to.
func (s *segment) audience(now time.Time, class ether.Class, h ether.Header, frame []byte) []string {
	if class != ether.Multicast || s.Policy.Multicast == MulticastFlood || h.Dst.LinkLocalGroup() {
		return s.Sites
	}
	if _, ok := ether.MembershipOf(h, frame); ok {
		return s.Sites
	}
	if s.Policy.Multicast == MulticastListeners {
		if some := s.members.listens(now, h.Dst, s.Sites); len(some) > 0 {
			return some
		}
	}
	s.counts.add(DropNoListener, 1)
	return nil
}
