package l2ext

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// In mode Direct the gateway does not see what other sites' hosts say of multicast
// groups, and could not tell of which site a frame is. So each gateway hears its own
// LAN, tells the others what that listens to, and has the kernel send each group
// to the sites that listen. A site that has told nothing gets all; so does one whose
// gateway has just started, as it does not know yet who listens.

// membersEvery is how often a site is told again. What it was told counts for
// memberTime.
const membersEvery = time.Minute

// Listeners is where the kernel sends multicast in mode Direct; the zero value is: all
// of it to all sites.
type Listeners struct {
	Groups []Group // whose frames go to some sites only
	// Of IPv4 and IPv6: groups to which nobody listens go nowhere. Groups that are
	// local to the link, and what IGMP and MLD say, go to all.
	OnlyGroups [2]bool
	// Of IPv4 and IPv6: reports of other sites stay away from this LAN, where no
	// router asks for them: hosts that hear one are silent themselves (RFC 4541,
	// section 2.1.1), and nobody would know that they listen.
	NoReports [2]bool
}

// Group is a multicast group, and the sites to which its frames go.
type Group struct {
	MAC   MAC
	Sites []vxlan.Endpoint // sorted
}

// told replaces what a site says of itself.
func (m *members) told(now time.Time, site string, msg announce.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard[site] = now.Add(memberTime)
	delete(m.crowded, site)
	for g := range m.byGroup {
		m.part(g, site)
	}
	for f, asks := range []bool{msg.IGMP, msg.MLD} {
		if asks {
			m.asks(now, f, site)
		} else {
			delete(m.queriers[f], site)
		}
	}
	for _, g := range msg.Groups {
		if !MAC(g).LinkLocalGroup() { // all hear these, whatever it says
			m.join(now, MAC(g), site)
		}
	}
	if msg.More {
		m.crowded[site] = now.Add(memberTime)
	}
}

// getsAll tells whether a site has to get all groups of a family: a router is there, or
// it has not told what it listens to. It needs m.mu.
func (m *members) getsAll(now time.Time, family int, site string) bool {
	return now.Before(m.queriers[family][site]) || now.Before(m.crowded[site]) || !now.Before(m.heard[site])
}

// own is what a site is to tell of itself.
func (m *members) own(now time.Time, self string) (msg announce.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for g, sites := range m.byGroup {
		if now.Before(sites[self]) {
			msg.Groups = append(msg.Groups, announce.MAC(g))
		}
	}
	slices.SortFunc(msg.Groups, func(a, b announce.MAC) int { return bytes.Compare(a[:], b[:]) })
	msg.IGMP, msg.MLD = now.Before(m.queriers[0][self]), now.Before(m.queriers[1][self])
	if m.since.IsZero() {
		m.since = now
	}
	msg.More = now.Before(m.crowded[self]) || now.Sub(m.since) < memberTime // until all have been asked
	return msg
}

// split is where multicast from one site goes, of several that it shares the
// segment with.
func (m *members) split(now time.Time, self string, sites map[string]vxlan.Endpoint) (l Listeners) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var on [2]bool
	for f := range on {
		on[f] = m.isAnswered(now, f)
		here := now.Before(m.queriers[f][self])
		l.NoReports[f] = m.isAsked(now, f) && !here
		l.OnlyGroups[f] = on[f]
		for site := range sites {
			l.OnlyGroups[f] = l.OnlyGroups[f] && !m.getsAll(now, f, site)
		}
	}
	for g, members := range m.byGroup {
		f := family(g)
		if !on[f] {
			continue
		}
		var to []vxlan.Endpoint
		for site, e := range sites {
			if now.Before(members[site]) || m.getsAll(now, f, site) {
				to = append(to, e)
			}
		}
		if len(to) > 0 {
			slices.Sort(to)
			l.Groups = append(l.Groups, Group{MAC: g, Sites: to})
		}
	}
	slices.SortFunc(l.Groups, func(a, b Group) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	return l
}

// splits tells whether the kernel is to send each group to its listeners only.
func (s *segment) splits() bool {
	return s.Mode == Direct && s.Policy.Multicast == MulticastListeners
}

// listeners are the wish for a segment.
func (s *segment) listeners(now time.Time, self string) Listeners {
	if !s.splits() {
		return Listeners{}
	}
	sites := maps.Clone(s.endpoint)
	agreed := s.ways.agreed()
	maps.DeleteFunc(sites, func(site string, _ vxlan.Endpoint) bool { return !agreed[site].IsValid() })
	return s.members.split(now, self, sites)
}

// takeReport takes an IGMP or MLD message of this site's LAN, in mode Direct.
func (m *Manager) takeReport(now time.Time, seg *segment, frame []byte) {
	if h, err := ether.Parse(frame); err == nil && h.Src.Host() {
		seg.members.fromLAN(now, m.cfg.Site, h, frame)
	}
}

// takeMembers notes what a site listens to.
func (m *Manager) takeMembers(now time.Time, seg *segment, from string, msg announce.Message) {
	seg.members.told(now, from, msg)
}

// lookAtMembers tells other sites what this one listens to, when that has changed,
// and has the kernel follow what all listen to. It is the loop's.
func (m *Manager) lookAtMembers(now time.Time) {
	for _, seg := range m.segments() {
		if !seg.splits() {
			continue
		}
		own := seg.members.own(now, m.cfg.Site)
		if b, err := m.membersMessage(seg, own).Append(nil); err == nil && (!bytes.Equal(b, seg.said) || now.Sub(seg.saidAt) >= membersEvery) {
			seg.said, seg.saidAt = b, now
			for _, site := range seg.Sites {
				m.enqueue(seg, site, m.membersMessage(seg, own))
			}
		}
		if l := seg.listeners(now, m.cfg.Site); !l.equal(seg.sends) {
			m.dirty = true // noted by reconcile
		}
	}
}

func (m *Manager) membersMessage(seg *segment, own announce.Message) announce.Message {
	own.Kind, own.VNI = announce.Members, seg.VNI
	return own
}

// equal tells whether two wishes are the same.
func (l Listeners) equal(o Listeners) bool {
	return l.OnlyGroups == o.OnlyGroups && l.NoReports == o.NoReports && slices.EqualFunc(l.Groups, o.Groups, func(a, b Group) bool {
		return a.MAC == b.MAC && slices.Equal(a.Sites, b.Sites)
	})
}
