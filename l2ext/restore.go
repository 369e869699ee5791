package l2ext

import (
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// A cable between two LANs is there for up to a second before a probe has passed it.
// Until then each site takes the other's hosts, and those of third sites, for its own, as
// soon as it hears them, and perhaps takes its own back; from then on nothing in the data
// path moves them, so that they would stay for a minute after the cable is gone. So who
// finds out that its LAN is joined restores what it has taken shortly before.

// takenWithin is how long before a joint is found a MAC has come by it: a period of the
// probes, of which some may get lost.
const takenWithin = 5 * time.Second

// noteStay notes where a MAC is, which is about to change to next, if that was not for a
// moment. One that was new here a moment ago may have come by a cable, and then next is
// where it stays. Of one that was new elsewhere we have only just been told.
func (b *binding) noteStay(now time.Time, self, next string) {
	switch {
	case b.withdrawn():
		b.stayed = ""
	case now.Sub(b.since) > takenWithin:
		b.stayed = b.rec.Site
	case b.stayed == "" && b.rec.Site == self:
		b.stayed = next
	case b.stayed == "":
		b.stayed = b.rec.Site
	}
}

// isRestored tells whether a record that binds a MAC to site is the restore of one that was
// taken, which is no move: another site says so than that, which does not claim it. Of two
// hosts with one MAC each site claims its own. The record and that before it may take
// different times.
func (b *binding) isRestored(now time.Time, from, site string) bool {
	return from != site && site == b.stayed && now.Sub(b.since) <= takenWithin+settleTime
}

// restore binds MACs that have come in the last moments without a job to the sites where
// they were before these, and MACs that have gone so to the site at the other end of the
// cable to this one: that site need not know where they were. It returns what to announce.
func (t *table) restore(now time.Time, other string) (records []announce.Record) {
	for _, b := range t.byMAC {
		if b.rec.Cause != announce.Learned || b.job != "" || now.Sub(b.since) > takenWithin {
			continue
		}
		came := b.rec.Site == t.self && b.stayed != t.self && b.stayed != ""
		went := b.rec.Site == other && b.stayed == t.self && other != t.self
		if !came && !went {
			continue
		}
		r := b.rec
		r.Site, r.Seq = b.stayed, b.rec.Seq+1
		t.set(now, b, r)
		b.moves = b.moves[:max(0, len(b.moves)-1)] // that it came or went was no move
		records = append(records, r)
	}
	return records
}

// restoreTaken is restore for the segments whose LAN has just been found to be joined. The
// LAN is not told, as it has the hosts by the cable.
func (m *Manager) restoreTaken(now time.Time) {
	for _, seg := range m.segments() {
		if !seg.loop.found.Swap(false) {
			continue
		}
		var b batch
		other := ""
		if j := seg.loop.joined.Load(); j != nil {
			other = j.site
		}
		seg.mu.Lock()
		b.records = seg.table.restore(now, other)
		for _, r := range b.records {
			b.entries = append(b.entries, seg.entryOf(MAC(r.MAC), r.Site))
		}
		seg.mu.Unlock()
		m.publish(seg, &b)
	}
}
