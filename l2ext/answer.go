package l2ext

import (
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// Who asks for the MAC of an address on this LAN gets the answer from here, when
// the host that has the address is at another site: neither question nor answer
// crosses. What only repeats what all sites know does not cross either.

// answerFor is how long hosts of a site that cannot be reached are still
// answered for: longer than a link takes to change its path, and short enough
// for hosts to notice that their packets go nowhere.
const answerFor = 3 * time.Second

// local deals with a frame of this site's LAN that goes no further: it is not
// from the owner of its source, or it is a question that has its answer here.
func (o *outward) local(now time.Time, seg *segment, x parcel) bool {
	frame := x.frame
	h, err := ether.Parse(frame)
	if err != nil || !h.Src.Host() || h.Forbidden() {
		return false // judge counts it
	}
	claim, ok := o.m.admit(now, seg, h, frame)
	if !ok {
		return true
	}
	if q, ok := ether.Asked(h, frame); ok {
		return o.answer(now, seg, h, q, x)
	}
	if !claim.Announced || !h.Dst.Group() {
		return false
	}
	if site, ok := seg.objections.take(now, claim.IP); ok {
		o.send(seg, site, h, x)
		return true
	}
	seg.mu.RLock()
	known := seg.table.knows(h.Src, claim) || h.Type == ether.TypeRARP // the binding tells the same
	seg.mu.RUnlock()
	if known {
		seg.counts.add(Spared, 1)
	}
	return known
}

// answer deals with a question if it knows the answer.
func (o *outward) answer(now time.Time, seg *segment, h ether.Header, q ether.Question, x parcel) bool {
	mac, site, reply := o.m.answerTo(now, seg, h, q)
	switch {
	case site == "" || !h.Dst.Group() && h.Dst != mac:
		return false
	case mac == h.Src, site == o.m.cfg.Site && reply == nil && h.Dst.Group():
		seg.counts.add(Spared, 1) // it asks for itself, or has its answer from the LAN
		return true
	case site == o.m.cfg.Site && reply == nil:
		return false
	case q.Probe: // it wants the address for itself: the one that has it must object
		o.send(seg, site, h, x)
		return true
	}
	var err error
	if o.back, err = o.m.toLAN(seg, parcel{frame: reply}, o.back); err != nil {
		seg.counts.add(DropCarrier, 1)
		return true
	}
	seg.counts.add(Answered, 1)
	return true
}

// answerTo finds who has the address that is asked for; site is "" when that is
// not known, or when that site cannot be reached, or for a gateway that is at each
// site: for that one no other site speaks. The reply is nil if the host answers
// itself.
func (m *Manager) answerTo(now time.Time, seg *segment, h ether.Header, q ether.Question) (mac MAC, site string, reply []byte) {
	if seg.Policy.isGatewayIP(q.Target) {
		return mac, "", nil
	}
	seg.mu.RLock()
	mac, b := seg.table.holder(q.Target)
	var router, parked bool
	if b != nil {
		site, router, parked = b.rec.Site, b.rec.Router, b.parked
	}
	seg.mu.RUnlock()
	switch {
	case site == "" || site != m.cfg.Site && !m.reachable(now, seg, site):
		return mac, "", nil
	case q.Probe || mac == h.Src || site == m.cfg.Site && !parked:
		return mac, site, nil
	}
	return mac, site, q.AppendReply(nil, ether.Replier{MAC: mac, Asker: h.Src, Router: router})
}

// reachable tells whether a site has the segment and is up, or was a moment ago.
func (m *Manager) reachable(now time.Time, seg *segment, site string) bool {
	p := m.peer(site)
	if p == nil || seg.ways.refuses(site) || seg.ways.isSilent(now, site) {
		return false // of the last, the link may be up, but the segment is not there
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up || now.Sub(p.changed) < answerFor
}

// Times and bounds of objections.
const (
	objectFor     = 2 * time.Second // a host that probes waits for a second (RFC 4862, section 5.1), and the WAN is between
	maxObjections = 1024            // addresses of which hosts of other sites have just asked whether they are free
)

// objections are the addresses of hosts here that hosts of other sites want for themselves. IPv6 has their owner object to
// all (RFC 4861, section 7.2.4), by what otherwise tells what all sites know, and would not cross.
type objections struct {
	mu   sync.Mutex // guards what follows
	byIP map[netip.Addr]objection
}

// objection is where one is waited for, and until when.
type objection struct {
	site  string
	until time.Time
}

func newObjections() *objections { return &objections{byIP: make(map[netip.Addr]objection)} }

// expect waits for one to the question of another site, if that is whether an IPv6 address is free.
func (o *objections) expect(now time.Time, from string, h ether.Header, frame []byte) {
	q, ok := ether.Asked(h, frame)
	if !ok || !q.Probe || !q.Target.Is6() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.byIP) >= maxObjections {
		maps.DeleteFunc(o.byIP, func(_ netip.Addr, w objection) bool { return !now.Before(w.until) })
	}
	if len(o.byIP) < maxObjections {
		o.byIP[q.Target] = objection{site: from, until: now.Add(objectFor)}
	}
}

// take tells which site waits for an address' owner to object, once.
func (o *objections) take(now time.Time, ip netip.Addr) (site string, ok bool) {
	if !ip.Is6() {
		return "", false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	w, ok := o.byIP[ip]
	delete(o.byIP, ip)
	return w.site, ok && now.Before(w.until)
}
