package l2ext

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// A MAC that moves too often is frozen at the site that claims it: who owns it has counted one move
// less, for the claim that is refused is told to nobody. That site tells all others what is frozen
// there, so that an operator at any of them sees it, and can clear it. It changes nothing else there:
// each site decides by what it has counted itself.

// froze is what a site has said last of the MACs that are frozen there.
type froze struct {
	at   time.Time
	macs map[MAC]bool
}

// frozen lists the MACs that are frozen here, in order: at most as many as one message has. Who has that
// many twins does not look for them one by one.
func (s *segment) frozen(now time.Time) (macs []announce.MAC) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !now.Before(s.table.froze) {
		return nil // without a look at all
	}
	for mac, b := range s.table.byMAC {
		if now.Before(b.frozen) && !b.withdrawn() {
			macs = append(macs, announce.MAC(mac))
		}
	}
	slices.SortFunc(macs, func(a, b announce.MAC) int { return bytes.Compare(a[:], b[:]) })
	return macs[:min(len(macs), announce.MaxMACs)]
}

// tellFrozen tells sites what is frozen here when that has changed; to one whose queue is full, and so to
// all, again with the next tick.
func (m *Manager) tellFrozen(now time.Time) {
	for _, seg := range m.segments() {
		macs, said := seg.frozen(now), true
		if slices.Equal(macs, seg.frozenSaid) {
			continue
		}
		for _, site := range seg.Sites {
			said = m.sendFrozen(seg, site, macs) && said
		}
		if said {
			seg.frozenSaid = append([]announce.MAC{}, macs...) // not nil, even of none
		}
	}
}

// repeatFrozen tells a site again, which may have started since, or which the message before has not
// reached. Where nothing has been frozen yet there is nothing to tell.
func (m *Manager) repeatFrozen(seg *segment, site string) {
	if seg.frozenSaid != nil {
		m.sendFrozen(seg, site, seg.frozenSaid) // nor is there room for what comes next, if there is none
	}
}

// sendFrozen tells it; ok is false if there was no room. One that cannot be told now forgets what it knows
// when the link comes up.
func (m *Manager) sendFrozen(seg *segment, site string, macs []announce.MAC) (ok bool) {
	p := m.peer(site)
	if p == nil || !p.isUp() || !p.takesFrozen.Load() || seg.ways.refuses(site) {
		return true
	}
	return m.enqueue(seg, site, announce.Message{Kind: announce.Frozen, VNI: seg.VNI, MACs: macs})
}

// takeFrozen notes what a site has said.
func (m *Manager) takeFrozen(now time.Time, seg *segment, from string, msg announce.Message) {
	f := froze{at: now, macs: make(map[MAC]bool, len(msg.MACs))}
	for _, mac := range msg.MACs {
		f.macs[MAC(mac)] = true
	}
	seg.mu.Lock()
	defer seg.mu.Unlock()
	seg.froze[from] = f
}

// forgetFrozen forgets what a site has said: it may have started anew, and says it again.
func (s *segment) forgetFrozen(site string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.froze, site)
}

// frozenAt lists the sites at which a MAC is frozen, as far as is known: what a site has said lasts no
// longer than a freeze. It needs s.mu.
func (s *segment) frozenAt(now time.Time, mac MAC, b *binding) (sites []string) {
	if now.Before(b.frozen) {
		sites = append(sites, s.table.self)
	}
	for site, f := range s.froze {
		if f.macs[mac] && now.Sub(f.at) < freezeTime {
			sites = append(sites, site)
		}
	}
	slices.Sort(sites)
	return sites
}

// frozenProblem is what an operator is told of the MACs that are frozen at other sites; "" if there are
// none. It needs s.mu.
func (s *segment) frozenProblem(now time.Time) string {
	for _, site := range slices.Sorted(maps.Keys(s.froze)) {
		for mac := range s.froze[site].macs {
			b := s.table.byMAC[mac]
			if b == nil || b.withdrawn() || !slices.Contains(s.frozenAt(now, mac, b), site) {
				continue
			}
			if n := len(s.froze[site].macs); n > 1 {
				return fmt.Sprintf("%d MACs are frozen at site %s: they were claimed by two sites in turn", n, site)
			}
			return fmt.Sprintf("MAC %v is frozen at site %s, and stays at %s: it was claimed by two sites in turn", mac, site, b.rec.Site)
		}
	}
	return ""
}

// tellCleared tells all sites of a segment that an operator has cleared a MAC. It fails if one at which it is frozen
// cannot be told.
func (m *Manager) tellCleared(seg *segment, mac MAC) error {
	var untold []string
	for _, site := range seg.Sites {
		told := m.enqueue(seg, site, announce.Message{Kind: announce.Clear, VNI: seg.VNI, MACs: []announce.MAC{announce.MAC(mac)}})
		seg.mu.Lock()
		if f := seg.froze[site]; told {
			delete(f.macs, mac) // it says so itself if it is not so
		} else if f.macs[mac] && time.Since(f.at) < freezeTime {
			untold = append(untold, site)
		}
		seg.mu.Unlock()
	}
	if untold != nil {
		return fmt.Errorf("clearing %v on segment %s: it is frozen at site %s, which cannot be told now; clear it there, or again later: %w", mac, seg.Name, strings.Join(untold, ", "), ErrUntold)
	}
	return nil
}
