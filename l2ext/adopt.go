package l2ext

import (
	"net/netip"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/probe"
)

// In mode Direct the kernel goes on carrying frames when a gateway dies, and the next one knows
// nothing of the hosts at first. So what the kernel sends to a site stays until that site has told
// all that it knows: how it carries the segment, and as many hosts as its digest counts. Entries of hosts
// that it does not name stay some minutes longer, if nobody else has the host. What goes
// to sites that are not on the segment any more ends with the first wish. A site's machine is known
// by the kernel's entry of its gateway, see Adopted.

// Times of what stays.
const (
	// strangersTime is how long it does for sites that are not known yet, on a segment that is
	// everywhere: they have found out by then that our end has died, and have dialled again
	// (tunnel.IdleTimeout, and a pause of 2 s).
	strangersTime = 15 * time.Second

	// answersTime is how long the kernel answers questions for hosts of a site that says nothing. Then
	// the hosts answer themselves, or nobody does: their site may be out of reach.
	answersTime = 10 * time.Second

	// tellingTime is how long it does for a site whose link is up and that says something of the segment,
	// but never all that it counts: some 30 digests, each of which has it tell all again.
	tellingTime = 5 * time.Minute

	// settlingTime is how long entries of hosts that a site does not name stay when it has told all: its gateway
	// may have started with ours, and know no more than what its bridge has heard since, or for
	// BR_DEFAULT_AGEING_TIME (include/linux/if_bridge.h) before. Whoever talks to such a host makes it known.
	settlingTime = 5 * time.Minute
)

// Adopted is what of a segment an earlier gateway may have left in the kernel, and is to stay as
// far as nothing contradicts it: entries of hosts, where frames for many go, and from which machines
// they may come.
type Adopted struct {
	Sites      []UnderlaySite // that have yet to tell all. Their machines are where the entries of their gateways lead; Addr is not used
	Strangers  bool           // likewise sites that are not known yet: all other machines but those of Underlay.Sites
	Neighbours bool           // and what the kernel answers for
	Settling   []UnderlaySite // that have told all: only entries of hosts stay, and only those that lead to Addr
}

// Any tells whether anything is to stay.
func (a Adopted) Any() bool { return len(a.Sites) > 0 || a.Strangers || len(a.Settling) > 0 }

// telling is what a site has told of its hosts since this gateway has started.
type telling struct {
	began   time.Time    // when this gateway has met it: other than of way, it cannot make it later
	hosts   map[MAC]bool // also of sites that are not on the segment here: its digest counts them
	count   uint32       // of its last digest
	counted bool         // there was one
	same    bool         // and it was that of our own table
}

// tellingFrom is nil in modes in which the kernel carries nothing by itself.
func tellingFrom(now time.Time, mode Mode) *telling {
	if mode != Direct {
		return nil
	}
	return &telling{began: now, hosts: make(map[MAC]bool)}
}

// note takes records of the site, of which its digest does not count those withdrawn. There are at most
// MaxMACs hosts on a segment.
func (t *telling) note(records []announce.Record) {
	for _, r := range records {
		switch {
		case r.Cause == announce.Withdrawn:
			delete(t.hosts, r.MAC)
		case len(t.hosts) < MaxMACs:
			t.hosts[r.MAC] = true
		}
	}
}

// isVain tells that a site whose link is up will never tell all: it has no such segment, which shows by its
// silence, or goes on and on. heard is when it said something of the segment last.
func (t *telling) isVain(now, linkSince, heard time.Time) bool {
	since := linkSince
	if since.Before(t.began) {
		since = t.began
	}
	talks := heard
	if talks.Before(since) {
		talks = since
	}
	return now.Sub(talks) >= absentAfter || now.Sub(since) >= tellingTime
}

func (t *telling) isAll() bool { return t.counted && (t.same || len(t.hosts) >= int(t.count)) }

// heardHosts notes that a site has told of hosts, if it is still of interest.
func (w *ways) heardHosts(site string, records []announce.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if y := w.bySite[site]; y != nil && y.telling != nil {
		y.telling.note(records)
	}
}

// heardDigest notes that it has told how many it knows.
func (w *ways) heardDigest(now time.Time, site string, count uint32, same bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	y := w.bySite[site]
	if y == nil {
		return
	}
	if y.sum = now; y.telling != nil {
		y.telling.count, y.telling.counted, y.telling.same = count, true, same
	}
}

// adopts lists the sites for which what an earlier gateway has left stays, and tells whether it does
// for strangers. linkSince is since when the link to a site is up; ok is false while it is not: then
// it cannot tell anything, and the kernel is all that its hosts have.
func (w *ways) adopts(now time.Time, linkSince func(site string) (since time.Time, ok bool)) (sites []string, strangers bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mode != Direct {
		return nil, false
	}
	for site, y := range w.bySite {
		if y.telling == nil {
			continue
		}
		since, up := linkSince(site)
		if up && y.telling.isVain(now, since, y.heard) || y.mode != "" && y.mode != Direct {
			y.telling = nil
			continue
		}
		if y.mode != "" && y.telling.isAll() {
			y.telling, y.settled = nil, now
			continue
		}
		sites = append(sites, site)
	}
	slices.Sort(sites)
	return sites, now.Before(w.strangers)
}

// settling are the sites of which entries stay though they do not name the hosts, and where they are.
func (w *ways) settling(now time.Time) map[string]netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	sites := make(map[string]netip.Addr)
	for site, y := range w.bySite {
		if w.mode == Direct && !y.settled.IsZero() && now.Sub(y.settled) < settlingTime && w.usable(y) == "" {
			sites[site] = y.addr
		}
	}
	return sites
}

// adopted is what of a segment stays now.
func (m *Manager) adopted(now time.Time, seg *segment) (a Adopted) {
	sites, strangers := seg.ways.adopts(now, m.linkSince)
	for _, site := range sites {
		a.Sites = append(a.Sites, UnderlaySite{Site: seg.endpoint[site], MAC: probe.GatewayOf(seg.VNI, site)})
	}
	a.Strangers = strangers
	a.Neighbours = (len(a.Sites) > 0 || a.Strangers) && now.Sub(seg.ways.began) < answersTime
	for site, addr := range seg.ways.settling(now) {
		a.Settling = append(a.Settling, UnderlaySite{Site: seg.endpoint[site], Addr: addr, MAC: probe.GatewayOf(seg.VNI, site)})
	}
	return a
}

func (m *Manager) linkSince(site string) (since time.Time, ok bool) {
	p := m.peer(site)
	if p == nil {
		return since, false
	}
	ok, since = p.upSince()
	return since, ok
}

// takeOut removes what the kernel may still have of a flip of an earlier gateway's, which had died before it could
// take it back: entries that lead away from here, for as long as the other site cannot tell of its hosts.
func (m *Manager) takeOut(j *job) {
	for vni, macs := range j.macs() {
		seg := m.segments()[vni]
		if seg == nil || seg.adopted == 0 {
			continue
		}
		var out []Entry
		for _, mac := range macs {
			if m.bindsHere(seg, mac) {
				out = append(out, Entry{MAC: mac})
			}
		}
		m.point(seg, out)
	}
}

// summary of it tells whether it has changed: it only becomes less, and a site goes from Sites to Settling.
func (a Adopted) summary() (n int) {
	n = 8*len(a.Sites) + 4*len(a.Settling)
	if a.Strangers {
		n += 2
	}
	if a.Neighbours {
		n++
	}
	return n
}

// lookAtAdopted has the kernel follow when less is to stay.
func (m *Manager) lookAtAdopted(now time.Time, seg *segment) {
	if seg.adopted > 0 && m.adopted(now, seg).summary() != seg.adopted {
		m.dirty = true
	}
}
