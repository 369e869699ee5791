package l2ext

import (
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// A gateway that starts while its LAN is joined with that of another site knows neither
// the joint nor the hosts, and claims all that it hears. As two claims that are new have
// the same number, it may even win. The other site has known its hosts from before the
// cable, and keeps them. Of hosts that both have found only since then nobody can tell
// where they are.

// maxKept bounds how often in moveWindow a host is kept: after an outage of the link two
// sites may both be sure of it.
const maxKept = 3

// vouch is how long a site has said, with the probes that it signs, that its LAN is joined
// with ours.
type vouch struct{ since, last time.Time }

// vouched notes that a site says so now, and tells whether it had said so already.
func (l *loop) vouched(now time.Time, site string) (again bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.vouches[site]
	again = ok && now.Sub(v.last) < loopRetry
	if !again {
		v.since = now
	}
	v.last = now
	l.vouches[site] = v
	return again
}

// joinedSince tells since when a site has said so; ok is false when it does not.
func (l *loop) joinedSince(now time.Time, site string) (since time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.vouches[site]
	return v.since, ok && now.Sub(v.last) < loopRetry
}

// noteKey notes that a site has sent a key for the segment: from now on its probes can
// be believed here.
func (l *loop) noteKey(now time.Time, site string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.keyed[site]; !ok {
		l.keyed[site] = now
	}
}

// sawBefore tells whether a cable to the LAN of a site that was found at a time would have
// been found much earlier, had it been there: the segment was here, and that site's probes
// of it could be believed. Run's loop calls it.
func (l *loop) sawBefore(found time.Time, site string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	keyed, ok := l.keyed[site]
	return ok && l.attached && found.Sub(keyed) > takenWithin && found.Sub(l.began) > takenWithin
}

// keep refuses a record by which a site with whose LAN ours is joined takes a host of ours,
// and returns what to announce. It needs seg.mu.
func (m *Manager) keep(now time.Time, seg *segment, r announce.Record) (again announce.Record, ok bool) {
	found, joined := seg.loop.joinedSince(now, r.Site)
	if !joined || !seg.loop.sawBefore(found, r.Site) {
		return again, false
	}
	return seg.table.keep(now, found, r)
}

// keep raises the binding of a host that was here before a cable was found above the record
// of the site at its other end.
func (t *table) keep(now, found time.Time, r announce.Record) (again announce.Record, ok bool) {
	b := t.byMAC[r.MAC]
	if b == nil || b.withdrawn() || b.rec.Site != t.self || b.job != "" || r.Cause != announce.Learned || compare(r, b.rec) <= 0 {
		return again, false
	}
	if b.stayed != t.self && found.Sub(b.since) <= takenWithin {
		return again, false // it may have come by the cable
	}
	if b.kept = within(moveWindow, now, b.kept); len(b.kept) >= maxKept {
		return again, false
	}
	b.kept = append(b.kept, now)
	again = b.rec
	again.Seq = r.Seq + 1
	t.set(now, b, again)
	return again, true
}
