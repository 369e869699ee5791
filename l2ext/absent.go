package l2ext

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A site that has a segment says something of it with every digest. One whose link is
// up and that says nothing has no such segment, or one that does not span this site:
// somebody has yet to add it there, or has taken it away. A segment may be given to all
// sites that a gateway knows, of which some do other things: one that never had it is only
// missed while no other is known to have had it.

// absentAfter is how long a site may say nothing of a segment: two of its digests may
// get lost with a connection, and its gateway takes some seconds to start.
const absentAfter = 3*digestEvery + 5*time.Second

// heardOf notes that a site has said something of the segment.
func (w *ways) heardOf(now time.Time, site string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if y := w.bySite[site]; y != nil {
		y.heard = now
	}
}

// absent lists the sites of a segment that have said nothing of it for absentAfter, while
// their links were up and the segment was here: those that had it, or, if no site had, all
// of which that can be told.
func (m *Manager) absent(now time.Time, seg *segment) (sites []string) {
	var never []string
	somebody := false // has it, had it, or has had no time to say so
	for _, site := range seg.Sites {
		p := m.peer(site)
		if p == nil {
			continue // they have just changed
		}
		up, since := p.upSince()
		began, heard := seg.ways.lastOf(site)
		last := slices.MaxFunc([]time.Time{since, began, heard}, time.Time.Compare)
		soon := up && now.Sub(last) < absentAfter
		somebody = somebody || soon || !heard.IsZero()
		switch {
		case !up || soon:
		case heard.IsZero():
			never = append(never, site)
		default:
			sites = append(sites, site)
		}
	}
	if !somebody {
		return never
	}
	return sites
}

// unheard lists the sites of a segment that may have hosts which are not known here: their links are down, or
// came up a moment ago and they have yet to say what they know. One that says nothing for long has no such segment.
func (m *Manager) unheard(now time.Time, seg *segment) (sites []string) {
	for _, site := range seg.Sites {
		p := m.peer(site)
		if p == nil || seg.ways.refuses(site) {
			continue // they have just changed, or nothing passes between the two
		}
		up, since := p.upSince()
		began, _ := seg.ways.lastOf(site)
		if began.After(since) {
			since = began
		}
		if !up || now.Sub(since) < absentAfter && !seg.ways.summedSince(site, since) {
			sites = append(sites, site)
		}
	}
	return sites
}

// summedSince tells whether a site has said since a time how much it knows.
func (w *ways) summedSince(site string, since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	y := w.bySite[site]
	return y != nil && !y.sum.Before(since)
}

// lastOf is when a site said something of the segment last, and since when it might have.
func (w *ways) lastOf(site string) (since, heard time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	y := w.bySite[site]
	if y == nil {
		return time.Time{}, time.Time{}
	}
	return y.since, y.heard
}

// upSince is when the link came up, if it is. The zero time: before it was looked at.
func (p *peer) upSince() (up bool, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up, p.changed
}

// absence is what an operator is told of such sites; "" if there are none.
func absence(sites []string, vni uint32) string {
	if len(sites) == 0 {
		return ""
	}
	return fmt.Sprintf("not at site %s: no segment with VNI %d spans this site there", strings.Join(sites, ", "), vni)
}
