package l2ext

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// Times and bounds of bindings, from facts/l2-extension.md, section A.5.
const (
	jobFence     = 30 * time.Second  // a job's word beats the data path for so long
	MoveGrace    = 5 * time.Second   // the old site sends frames on for so long after a move
	settleTime   = time.Second       // frames in flight tell where a host was; a move is not undone by them
	comesRound   = time.Second / 2   // see isOurs
	moveWindow   = 180 * time.Second // this many moves in that time, without a job,
	maxMoves     = 5                 // are two hosts with one MAC, not one that moves
	freezeTime   = 10 * time.Minute  // the MAC then stays where it is for so long
	forgetAfter  = 30 * time.Minute  // a host of this site that is silent for so long is withdrawn
	keepWithdraw = 10 * time.Minute  // so long the number of a withdrawn binding is remembered
	maxSeq       = 1 << 62           // beyond it nobody could raise a number any more
)

// MaxMACs bounds the bindings of one segment.
const MaxMACs = 1 << 16

// binding is what is known of one MAC.
type binding struct {
	rec    announce.Record
	hash   uint64      // of rec, 0 while withdrawn
	since  time.Time   // when it came to its site
	from   string      // the site before; "" if none is known
	seen   time.Time   // when it was seen here last
	fence  time.Time   // until then only jobs move it
	frozen time.Time   // until then nothing in the data path moves it
	left   bool        // its site before was this one
	stayed string      // the last site before at which it was for long, see restore; "" for none
	moves  []time.Time // without a job, the last few
	kept   []time.Time // from a site with whose LAN ours is joined, likewise
	told   time.Time   // when this gateway announced it in its LAN last
	job    string      // that is about to move it
	ear    *ear        // listens to its frames while a job moves it; nil otherwise
	parked bool        // it is paused here: frames for it wait
	coming bool        // in what lookup returns: a job is about to bring it here
	unseen bool        // it is said to be here, and the kernel may still have it elsewhere, since an earlier run

	home, homeJob string // where a job has moved it last, and which
}

func (b *binding) withdrawn() bool { return b.rec.Cause == announce.Withdrawn }

// table is who owns which MAC on one segment. It is pure: it is told the time
// and does nothing but answer.
type table struct {
	self  string
	byMAC map[MAC]*binding
	byIP  map[netip.Addr]MAC // who claimed it last
	freed map[netip.Addr]freed
	live  uint32    // bindings that are not withdrawn
	sum   uint64    // of their hashes
	flips uint64    // how often a MAC has changed its site
	froze time.Time // from then on no MAC is frozen
}

func newTable(self string) *table {
	return &table{self: self, byMAC: make(map[MAC]*binding), byIP: make(map[netip.Addr]MAC), freed: make(map[netip.Addr]freed)}
}

// verdict is what a table made of a sighting or a record.
type verdict uint8

const (
	nothing     verdict = iota // it was known
	changed                    // the binding is new or different
	stale                      // what we know is newer
	raised                     // refused: the number of our binding was raised above the claim
	fenced                     // refused: a job has just moved the MAC, or it moves too often
	broughtHome                // refused: it moves too often, and is now where a job has left it
	full                       // refused: there are too many MACs
)

// site of a MAC, or "" if it has none.
func (t *table) site(m MAC) string {
	if b := t.byMAC[m]; b != nil && !b.withdrawn() {
		return b.rec.Site
	}
	return ""
}

// see notes that a host was seen at this site. announced tells that the host
// said so itself, with a RARP or gratuitous ARP: then it has surely just come.
func (t *table) see(now time.Time, m MAC, announced bool) verdict {
	b := t.byMAC[m]
	switch {
	case b == nil:
		return t.insert(now, announce.Record{MAC: m, Cause: announce.Learned, Seq: 1, Site: t.self})
	case b.rec.Site == t.self && !b.withdrawn():
		b.seen = now
		return nothing
	case b.withdrawn():
		b.moves = nil
	case now.Before(b.fence), now.Before(b.frozen):
		return fenced
	case !announced && now.Sub(b.since) < settleTime:
		return nothing
	default:
		if t.moved(now, b); now.Before(b.frozen) {
			return t.bringHome(now, b)
		}
	}
	t.set(now, b, announce.Record{MAC: m, Cause: announce.Learned, Router: b.rec.Router, Seq: b.rec.Seq + 1, Site: t.self, IPs: b.rec.IPs})
	return changed
}

// found tells whether a host that was said to be here has been seen here for the first time.
func (t *table) found(m MAC) bool {
	b := t.byMAC[m]
	if b == nil || !b.unseen {
		return false
	}
	b.unseen = false
	return b.rec.Site == t.self && !b.withdrawn()
}

// move binds a MAC to a site by order of a job, step numbers above the last.
func (t *table) move(now time.Time, m MAC, site, job string, step uint64) announce.Record {
	r := announce.Record{MAC: m, Cause: announce.Moved, Seq: step, Site: site, Job: job}
	b := t.byMAC[m]
	if b == nil {
		b = t.add(now, r)
	} else {
		r.Seq, r.IPs, r.Router = b.rec.Seq+step, b.rec.IPs, b.rec.Router
		t.set(now, b, r)
	}
	b.moves, b.frozen = nil, time.Time{} // the job knows
	return r
}

// accept takes a record that the peer from has sent.
func (t *table) accept(now time.Time, from string, r announce.Record) verdict {
	b := t.byMAC[r.MAC]
	if b == nil {
		if r.Cause == announce.Withdrawn {
			return nothing
		}
		return t.insert(now, r)
	}
	switch c := compare(r, b.rec); {
	case c == 0:
		return nothing
	case c < 0:
		return stale
	case r.Cause != announce.Moved && r.Site != b.rec.Site && now.Before(b.fence):
		raise := b.rec
		raise.Seq = r.Seq + 1
		t.set(now, b, raise)
		return raised
	}
	if r.Cause == announce.Learned && r.Site != b.rec.Site && !b.isRestored(now, from, r.Site) {
		t.moved(now, b)
	}
	if r.Cause == announce.Moved && r.Job != b.homeJob { // not one that is kept where the last job has left it
		b.moves, b.frozen = nil, time.Time{} // the job knows, see move
	}
	t.set(now, b, r)
	return changed
}

// compare orders the records of one MAC: the greater one holds. It must be a
// total order that knows no time, so that all sites end with the same record.
func compare(a, b announce.Record) int {
	c := cmp.Or(
		cmp.Compare(a.Seq, b.Seq),
		cmp.Compare(rank(a.Cause), rank(b.Cause)),
		-cmp.Compare(a.Site, b.Site),
	)
	if c == 0 { // only then: an evacuation brings thousands of records at once
		c = cmp.Compare(a.Hash(), b.Hash())
	}
	return c
}

// rank puts what a job has moved before all else.
func rank(c announce.Cause) int {
	switch c {
	case announce.Moved:
		return 2
	case announce.Learned:
		return 1
	}
	return 0
}

// isOurs tells whether an announcement that is heard here, of a host of another site, may be
// the one that this gateway has sent into the LAN a moment ago: a LAN that runs in a circle
// gives it back, and a second gateway of this site sends the same. A host that has come back
// so soon says so again: of the five RARPs of a hypervisor the last is sent 800 ms after the first
// (net/announce.c of QEMU).
func (b *binding) isOurs(now time.Time, self string) bool {
	return b != nil && b.rec.Site != self && !b.withdrawn() && now.Sub(b.told) < comesRound
}

// withdraw forgets a binding of this site; others are told to.
func (t *table) withdraw(now time.Time, b *binding) announce.Record {
	r := announce.Record{MAC: b.rec.MAC, Cause: announce.Withdrawn, Seq: b.rec.Seq + 1, Site: b.rec.Site}
	t.set(now, b, r)
	return r
}

// expire withdraws the hosts of this site that were silent for long, and drops
// what has been withdrawn long ago. It returns what to announce.
func (t *table) expire(now time.Time) (gone []announce.Record) {
	maps.DeleteFunc(t.freed, func(_ netip.Addr, f freed) bool { return now.Sub(f.at) > freedFor })
	for m, b := range t.byMAC {
		switch {
		case b.withdrawn() && now.Sub(b.since) > keepWithdraw:
			delete(t.byMAC, m) // its addresses left the index when it was withdrawn
		case !b.withdrawn() && b.rec.Site == t.self && b.job == "" && now.Sub(b.seen) > forgetAfter:
			gone = append(gone, t.withdraw(now, b))
		}
	}
	return gone
}

func (t *table) insert(now time.Time, r announce.Record) verdict {
	if len(t.byMAC) >= MaxMACs {
		return full
	}
	t.add(now, r)
	return changed
}

func (t *table) add(now time.Time, r announce.Record) *binding {
	b := &binding{}
	t.byMAC[r.MAC] = b
	t.set(now, b, r)
	b.left = false
	return b
}

// set replaces a binding's record and keeps the digest in step.
func (t *table) set(now time.Time, b *binding, r announce.Record) {
	t.sum -= b.hash
	if b.hash != 0 {
		t.live--
	}
	if r.Site != b.rec.Site && b.rec.Site != "" {
		t.flips++
	}
	if r.Site != b.rec.Site || r.Cause == announce.Withdrawn {
		b.left = b.rec.Site == t.self && !b.withdrawn()
		b.noteStay(now, t.self, r.Site)
		b.since, b.from = now, b.rec.Site
	}
	if r.Site == t.self {
		b.seen = now
	}
	if r.Cause == announce.Moved {
		b.fence = now.Add(jobFence)
		b.home, b.homeJob = r.Site, r.Job
	}
	t.index(now, b.rec, r)
	b.rec, b.hash = r, 0
	if r.Cause != announce.Withdrawn {
		b.hash = max(r.Hash(), 1) // 0 means: not counted
		t.sum += b.hash
		t.live++
	}
}

// moved counts a move that no job ordered, and freezes the MAC when there have
// been too many.
func (t *table) moved(now time.Time, b *binding) {
	b.moves = append(within(moveWindow, now, b.moves), now)
	if len(b.moves) >= maxMoves {
		b.frozen = now.Add(freezeTime)
		t.froze = b.frozen
		b.moves = nil
	}
}

// within drops the times that are longer ago than a window.
func within(window time.Duration, now time.Time, times []time.Time) []time.Time {
	return slices.DeleteFunc(times, func(at time.Time) bool { return now.Sub(at) > window })
}
