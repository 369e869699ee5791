package l2ext

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/probe"
)

// Each site tells the others how it carries a segment. Two that do it in
// different ways exchange nothing of it but that: modes never mix. In mode
// Direct, sites that agree ask each other over the underlay, at first often and
// then for as long as the segment is there, whether frames arrive: small ones, and
// full ones. What comes back has gone both ways.

// Times of the underlay's probes.
const (
	askEvery     = time.Second            // facts/l2-extension.md, section A.5: a hold time of 3 s
	askFast      = 200 * time.Millisecond // likewise, while full frames do not come back
	wayHold      = 3 * time.Second        // so long after the last answer a way still works
	wayPause     = 5 * time.Second        // so long a site may take to say how it carries the segment
	maxQuestions = 64                     // questions to one site that wait: those of wayHold at askFast, twice
)

// ways are those to the other sites of a segment.
type ways struct {
	mode  Mode
	local netip.Addr // of this machine on the underlay; invalid for none
	full  int        // bytes of a full frame
	began time.Time  // when the segment was made in this run
	// strangers: until then what an earlier gateway has left stays also for sites that are not known yet.
	strangers time.Time

	// refused are the sites that carry the segment in another way. It is
	// looked at with every frame, and replaced as a whole.
	refused atomic.Pointer[map[string]bool]

	mu     sync.Mutex // guards what follows
	bySite map[string]*way
	terms  map[string][]announce.Term // likewise, what they have told
}

// way is what is known of one. Its zero value is that of a site which has said
// nothing.
type way struct {
	mode  Mode       // told by the site; "" until it has
	addr  netip.Addr // likewise, for Direct
	since time.Time  // when that, or the way before it, began
	heard time.Time  // when the site said something of the segment last
	sum   time.Time  // when it said how much it knows last, by a digest

	telling *telling  // nil: it has told all that it knows, since this gateway has started; or the mode is another than Direct
	settled time.Time // when it had told all; zero while it has not

	// In mode Direct, of probes.
	asked    map[uint64]asked
	last     time.Time // when it was asked
	small    time.Time // when a small frame came back last
	whole    time.Time // when a full frame came back last
	rtt      time.Duration
	reported bool // it was up when it was looked at last
}

// asked is a question that waits for its answer.
type asked struct {
	at   time.Time
	full bool
}

func newWays(now time.Time, s Segment, local netip.Addr) *ways {
	w := &ways{mode: s.Mode, local: local, full: ether.HeaderLen + s.MTU, began: now, bySite: make(map[string]*way), terms: make(map[string][]announce.Term)}
	for _, site := range s.Sites {
		w.bySite[site] = &way{since: now, telling: tellingFrom(now, s.Mode)}
	}
	w.refused.Store(&map[string]bool{})
	return w
}

// inherit takes over what sites have said.
func (w *ways) inherit(old *ways) {
	old.mu.Lock()
	defer old.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	for site, was := range old.bySite {
		if w.bySite[site] != nil {
			own := *was
			own.asked = maps.Clone(was.asked)
			if w.mode != Direct {
				own.telling = nil // nobody waits for it
			}
			w.bySite[site] = &own
			if t, ok := old.terms[site]; ok {
				w.terms[site] = t
			}
		}
	}
	w.began, w.strangers = old.began, old.strangers
	w.sort()
}

// sort finds out again whom to refuse. It needs w.mu.
func (w *ways) sort() {
	refused := make(map[string]bool)
	for site, y := range w.bySite {
		if y.mode != "" && y.mode != w.mode {
			refused[site] = true
		}
	}
	w.refused.Store(&refused)
}

// refuses tells whether a site carries the segment in another way.
func (w *ways) refuses(site string) bool { return (*w.refused.Load())[site] }

// told notes what a site says. It tells whether that is new, and whether the
// sites agree on it.
func (w *ways) told(now time.Time, site string, mode Mode, addr netip.Addr) (fresh, agree bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	y := w.bySite[site]
	if y == nil {
		return false, false
	}
	if fresh = y.mode != mode || y.addr != addr; fresh {
		w.bySite[site] = &way{mode: mode, addr: addr, since: now, heard: now, sum: y.sum, telling: y.telling, settled: y.settled}
		w.sort()
	}
	return fresh, mode == w.mode
}

// silent tells that a site has yet to say how it carries the segment.
func (w *ways) silent(site string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	y := w.bySite[site]
	return y != nil && y.mode == ""
}

// agreed are the sites to which the kernel can carry frames, with the addresses
// of their machines.
func (w *ways) agreed() map[string]netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	sites := make(map[string]netip.Addr)
	if w.mode != Direct {
		return sites
	}
	for site, y := range w.bySite {
		if w.usable(y) == "" {
			sites[site] = y.addr
		}
	}
	return sites
}

// usable tells why an address of a site cannot be used; "" if it can. It needs w.mu.
func (w *ways) usable(y *way) string {
	switch {
	case y.mode != Direct:
		return "it has not said where its underlay is"
	case !y.addr.IsValid():
		return "it has no underlay address: its gateway needs l2.underlay"
	case y.addr.Is4() != w.local.Is4():
		return fmt.Sprintf("its underlay address %v and %v of this site are not of one version of IP", y.addr, w.local)
	case y.addr == w.local || y.addr.IsLoopback() || y.addr.IsLinkLocalUnicast():
		return fmt.Sprintf("its underlay address %v cannot be reached from here", y.addr)
	}
	return ""
}

// due lists the sites that are to be asked now, each with the numbers of two
// questions: for a small frame and a full one. number must be hard to guess.
func (w *ways) due(now time.Time, number func() uint64) (questions []question) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for site, y := range w.bySite {
		every := askEvery
		if !y.isUp(now) {
			every = askFast
		}
		if w.usable(y) != "" || now.Sub(y.last) < every {
			continue
		}
		y.last = now
		maps.DeleteFunc(y.asked, func(_ uint64, a asked) bool { return now.Sub(a.at) > wayHold })
		for _, full := range []bool{false, true} {
			if y.asked == nil {
				y.asked = make(map[uint64]asked)
			}
			if len(y.asked) < maxQuestions {
				n := number()
				y.asked[n] = asked{at: now, full: full}
				questions = append(questions, question{site: site, number: n, full: full})
			}
		}
	}
	return questions
}

// question is one to be sent.
type question struct {
	site   string
	number uint64
	full   bool
}

// frame is the question as a frame of the segment with a VNI.
func (q question) frame(vni uint32, self string, full int) []byte {
	e := probe.Echo{Src: probe.GatewayOf(vni, self), Dst: probe.GatewayOf(vni, q.site), Number: q.number, Size: probe.MinEcho}
	if q.full {
		e.Size = full
	}
	return e.Append(nil)
}

// answered notes an answer of a site; ok is false if nobody has asked. A full
// frame must come back as long as it was.
func (w *ways) answered(now time.Time, e probe.Echo) (ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, y := range w.bySite {
		a, known := y.asked[e.Number]
		if !known {
			continue
		}
		delete(y.asked, e.Number)
		switch {
		case !a.full:
			y.small = now
		case e.Size >= w.full:
			y.whole, y.rtt = now, now.Sub(a.at)
		}
		return true
	}
	return false
}

// isSilent tells that a site has said nothing of the segment for long: what it said may
// not hold any more.
func (y *way) isSilent(now time.Time) bool { return now.Sub(y.heard) > absentAfter }

// isSilent is that of a site.
func (w *ways) isSilent(now time.Time, site string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	y := w.bySite[site]
	return y == nil || y.isSilent(now)
}

// isUp tells whether full frames come back.
func (y *way) isUp(now time.Time) bool { return !y.whole.IsZero() && now.Sub(y.whole) < wayHold }

// up tells whether frames reach a site.
func (w *ways) up(now time.Time, site string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	y := w.bySite[site]
	return y != nil && y.isUp(now)
}

// turned lists the sites to which the way has come up or gone down since the
// last call, with what is the matter.
func (w *ways) turned(now time.Time) map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	turned := make(map[string]string)
	for site, y := range w.bySite {
		if up := y.isUp(now); w.mode == Direct && up != y.reported {
			y.reported = up
			turned[site] = w.trouble(now, site, y)
		}
	}
	return turned
}

// trouble is what is wrong with a way; "" if nothing. It needs w.mu.
func (w *ways) trouble(now time.Time, site string, y *way) string {
	switch {
	case y.mode == "" && (w.mode != Direct || now.Sub(y.since) < wayPause):
		return "" // it may be of a version that says nothing, or is about to
	case y.mode == "":
		return fmt.Sprintf("site %s has not said how it carries the segment", site)
	case y.mode != w.mode && y.isSilent(now):
		return "" // it may have the segment no longer, see absence
	case y.mode != w.mode:
		return fmt.Sprintf("site %s carries the segment in mode %s and this site in mode %s: nothing passes between them", site, y.mode, w.mode)
	case w.mode != Direct:
		return ""
	}
	if why := w.usable(y); why != "" {
		return fmt.Sprintf("no underlay to site %s: %s", site, why)
	}
	switch begun := now.Sub(y.since) >= wayHold; {
	case y.isUp(now), !begun && y.whole.IsZero():
		return ""
	case !y.small.IsZero() && now.Sub(y.small) < wayHold:
		return fmt.Sprintf("underlay to site %s (%v): small frames come back, those of %d bytes do not", site, y.addr, w.full-ether.HeaderLen)
	}
	return fmt.Sprintf("underlay to site %s (%v): no frame comes back", site, y.addr)
}

// problem is what an operator is told of all ways; "" if nothing.
func (w *ways) problem(now time.Time) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, site := range slices.Sorted(maps.Keys(w.bySite)) {
		if t := w.trouble(now, site, w.bySite[site]); t != "" {
			return t
		}
	}
	return ""
}

// Way is the way to one site of a segment, as it is now.
type Way struct {
	Site    string
	Mode    Mode       // that the site has told; "" if it has not
	Addr    netip.Addr // of its machine on the underlay, in mode Direct
	Up      bool       // in mode Direct: full frames come back
	RTT     time.Duration
	Problem string // what is the matter; "" if nothing
}

// view shows all ways by site.
func (w *ways) view(now time.Time) (all []Way) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for site, y := range w.bySite {
		all = append(all, Way{Site: site, Mode: y.mode, Addr: y.addr, Up: y.isUp(now), RTT: y.rtt, Problem: w.trouble(now, site, y)})
	}
	slices.SortFunc(all, func(a, b Way) int { return cmp.Compare(a.Site, b.Site) })
	return all
}

// sendWay tells a site how this one carries a segment, and on which terms.
func (m *Manager) sendWay(seg *segment, site string) {
	msg := announce.Message{Kind: announce.Way, VNI: seg.VNI, Mode: string(seg.Mode)}
	if seg.Mode == Direct {
		msg.Addr = m.cfg.Underlay
	}
	m.enqueue(seg, site, msg)
	m.sendTerms(seg, site)
}

// followWays has the kernel send to sites that have just said for the first time where
// their underlay is: after a restart all that it sent there waits for that. What they say
// later waits for the next tick, as they may say it as often as they like.
func (m *Manager) followWays(ctx context.Context, now time.Time) {
	if !m.hasten {
		return
	}
	m.hasten = false
	if err := m.reconcile(ctx, now); err != nil && ctx.Err() == nil {
		m.log.Warn("segments not reconciled; will be tried again", "err", err)
	}
}

// takeWay notes how a site carries a segment. When both agree anew, they tell
// each other all that they know.
func (m *Manager) takeWay(now time.Time, seg *segment, from string, msg announce.Message) {
	before, first := seg.ways.refuses(from), seg.ways.silent(from)
	fresh, agree := seg.ways.told(now, from, Mode(msg.Mode), msg.Addr)
	if !fresh {
		return
	}
	seg.counts.add(WayChanges, 1)
	if seg.Mode == Direct { // the kernel has to know, or to forget
		m.dirty = true
		m.hasten = m.hasten || first
	}
	seg.saidAt = time.Time{} // it has not been told what listens here
	m.sendWay(seg, from)
	switch {
	case !agree:
		m.log.Error("segment is carried in another mode", "segment", seg.Name, "peer", from, "mode", msg.Mode, "own", seg.Mode)
	case before:
		m.exchange(now, seg, from)
		m.sendKey(now, seg, from)
	}
}
