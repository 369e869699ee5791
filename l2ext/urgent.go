package l2ext

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// HandleUrgent takes a message that a site has sent by SendUrgent. It borrows
// b. Messages of one site must come in order; the call waits while the loop is
// busy, and so slows down a peer that says too much. What is wrong with the
// message is returned for a log; the message is then ignored, but for bindings to
// sites that are not on the segment here: these alone are.
func (m *Manager) HandleUrgent(site string, b []byte) error {
	msg, err := m.parseUrgent(site, b)
	if err != nil {
		m.countRefused(site, msg.VNI)
		return fmt.Errorf("announcement from %s: %w", site, err)
	}
	err = m.foreignIn(msg) // before the loop has them
	m.notify(func() { m.take(time.Now(), site, msg) })
	if err != nil {
		return fmt.Errorf("announcement from %s: %w", site, err)
	}
	return nil
}

// parseUrgent reads a message that a site has a right to send.
func (m *Manager) parseUrgent(site string, b []byte) (msg announce.Message, err error) {
	if msg, err = announce.Parse(b); err != nil {
		return msg, err
	}
	seg := m.segments()[msg.VNI]
	if seg == nil || !slices.Contains(seg.Sites, site) {
		return msg, fmt.Errorf("VNI %d: %w", msg.VNI, errStranger)
	}
	if err = m.checkRight(seg, site, msg); err != nil {
		seg.ways.heardOf(time.Now(), site) // it has the segment, whatever it says of it
	}
	return msg, err
}

// countRefused counts a message of a site about a segment: where it is not on that one, at
// the first that it shares, or at the first of all.
func (m *Manager) countRefused(site string, vni uint32) {
	var at *segment
	rank := func(s *segment) int {
		switch shares := slices.Contains(s.Sites, site); {
		case shares && s.VNI == vni:
			return 0
		case shares:
			return 1
		}
		return 2
	}
	for _, s := range m.segments() {
		if at == nil || cmp.Or(cmp.Compare(rank(s), rank(at)), cmp.Compare(s.VNI, at.VNI)) < 0 {
			at = s
		}
	}
	if at != nil {
		at.counts.add(Refused, 1)
	}
}

// checkRight refuses a message that a site has no right to send: with a number that nobody
// could raise, or of a job or a round trip to a site that is not on the segment.
func (m *Manager) checkRight(seg *segment, site string, msg announce.Message) error {
	for _, r := range msg.Records {
		if r.Seq > maxSeq {
			return fmt.Errorf("MAC %v has number %d: %w", MAC(r.MAC), r.Seq, announce.ErrFormat)
		}
	}
	if msg.Kind == announce.Prepare && !m.spans(seg, msg.Site) {
		return fmt.Errorf("job %s to site %s, segment %s: %w", msg.Job, msg.Site, seg.Name, errStranger)
	}
	if msg.Kind == announce.Trip && (!m.spans(seg, msg.Site) || msg.Site == site) {
		return fmt.Errorf("round trip to site %s, segment %s: %w", msg.Site, seg.Name, errStranger)
	}
	return nil
}

// spans tells whether a segment is stretched to a site: to this one, or to another.
func (m *Manager) spans(seg *segment, site string) bool {
	return site == m.cfg.Site || slices.Contains(seg.Sites, site)
}

// foreignIn tells of the records that name sites that are not on the segment; nil if there are none.
// A site knows others before this one does, while a site is being added or its gateway has yet to dial
// this one: all else that it says holds.
func (m *Manager) foreignIn(msg announce.Message) error {
	seg := m.segments()[msg.VNI]
	if seg == nil {
		return nil // changed in the meantime
	}
	var first announce.Record
	n := 0
	for _, r := range msg.Records {
		if m.spans(seg, r.Site) {
			continue
		}
		if n++; n == 1 {
			first = r
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d MACs left out, such as %v bound to site %s, segment %s: %w", n, MAC(first.MAC), first.Site, seg.Name, errStranger)
}

// take is the loop's part of HandleUrgent.
func (m *Manager) take(now time.Time, from string, msg announce.Message) {
	seg := m.segments()[msg.VNI]
	if seg == nil || !slices.Contains(seg.Sites, from) {
		return // changed in the meantime
	}
	seg.ways.heardOf(now, from)
	if seg.ways.refuses(from) && msg.Kind != announce.Way {
		return // nothing of the one mode is for the other
	}
	switch msg.Kind {
	case announce.Update:
		m.takeRecords(now, seg, from, msg.Records)
	case announce.Digest:
		m.takeDigest(now, seg, from, msg)
	case announce.Request: // perhaps it has just got the segment, and has refused what was said of it before
		m.sendWay(seg, from)
		m.sendKey(now, seg, from)
		m.sendSnapshot(now, seg, from)
	case announce.Key:
		m.takeKey(now, seg, from, msg)
	case announce.Loop, announce.Cable:
		m.takeLoop(now, seg, from, msg)
	case announce.Prepare:
		m.takePrepare(now, seg, from, msg)
	case announce.Clear:
		m.clear(seg, msg.MACs)
	case announce.Terms:
		seg.ways.agreeOn(from, msg.Terms)
	case announce.Trip:
		m.takeTrip(now, seg, from, msg)
	case announce.Frozen:
		m.takeFrozen(now, seg, from, msg)
	case announce.Over:
		m.takeOver(from, msg)
	case announce.Able:
		m.takeAble(seg, from, msg)
	case announce.Arrived:
		m.takeArrived(seg, from, msg)
	case announce.Way:
		m.takeWay(now, seg, from, msg)
	case announce.Members:
		m.takeMembers(now, seg, from, msg)
	case announce.Express:
		m.takeExpress(now, from, msg)
	}
}

// taken is what records of a peer change here.
type taken struct {
	batch
	from    string            // the peer
	newer   []announce.Record // what the sender does not know
	told    []*moved          // what the LAN has to be told: MACs that left it, and addresses that went to another MAC
	back    map[string][]MAC  // parked MACs that went back, by site
	refused bool              // there were too many
}

func (m *Manager) takeRecords(now time.Time, seg *segment, from string, records []announce.Record) {
	t := taken{from: from, back: make(map[string][]MAC)}
	seg.ways.heardHosts(from, records)
	n := len(records)
	records = slices.DeleteFunc(records, func(r announce.Record) bool { return !m.spans(seg, r.Site) })
	seg.counts.add(Refused, n-len(records))
	quiet := m.silences(now, records)
	seg.mu.Lock()
	for _, r := range records {
		if !seg.Policy.binds(MAC(r.MAC)) {
			continue // each site has its own, or nobody has it
		}
		m.takeRecord(now, seg, r, &t)
	}
	seg.mu.Unlock()
	m.publish(seg, &t.batch)
	m.sendRecords(seg, from, t.newer)
	for site, macs := range t.back {
		m.sendBack(seg, macs, site)
	}
	m.tellLAN(seg, t.told) // the switches of this LAN find the MACs behind us now
	for _, r := range records {
		m.jobMoved(now, seg, from, r, quiet)
	}
	if t.refused {
		m.setOdd(now, seg, fmt.Sprintf("more than %d MACs", MaxMACs))
	}
}

// takeRecord needs seg.mu.
func (m *Manager) takeRecord(now time.Time, seg *segment, r announce.Record, t *taken) {
	mac := MAC(r.MAC)
	before := seg.table.site(mac)
	if again, ok := m.undoStale(now, seg, r); ok {
		t.records = append(t.records, again)
		return
	}
	if again, ok := m.keep(now, seg, r); ok {
		seg.counts.add(Fenced, 1)
		t.records = append(t.records, again)
		return
	}
	takings := seg.table.takings(r)
	var known []netip.Addr
	if b := seg.table.byMAC[mac]; b != nil {
		known = b.rec.IPs
	}
	switch seg.table.accept(now, t.from, r) {
	case changed:
		after := seg.table.site(mac)
		m.addressed(seg, known, r.IPs)
		if before != after {
			m.follow(now, seg, r, before, t)
		}
		for _, k := range takings {
			if lost, ok := seg.table.strip(now, k); ok {
				t.records = append(t.records, lost)
			}
			if after != m.cfg.Site { // hosts here know the other MAC
				t.told = append(t.told, &moved{mac: mac, ips: []netip.Addr{k.ip}})
			}
		}
	case stale:
		t.newer = append(t.newer, seg.table.byMAC[mac].rec)
	case raised:
		seg.counts.add(Fenced, 1)
		t.records = append(t.records, seg.table.byMAC[mac].rec)
	case full:
		seg.counts.add(Refused, 1)
		t.refused = true
	}
}

// addressed has the kernel answer for other addresses than before, in mode
// Direct: with the next tick, as until then questions cross.
func (m *Manager) addressed(seg *segment, before, after []netip.Addr) {
	if seg.Mode == Direct && !slices.Equal(before, after) {
		m.dirty = true
	}
}

// follow is what has to be done for a MAC that has gone from before to where a
// record binds it. It needs seg.mu.
func (m *Manager) follow(now time.Time, seg *segment, r announce.Record, before string, t *taken) {
	mac := MAC(r.MAC)
	b, after := seg.table.byMAC[mac], seg.table.site(mac)
	switch {
	case after == m.cfg.Site && m.comes(r):
		seg.holdFor(now, mac, b)
		if before == "" || seg.Mode == Direct { // else the kernel's entry points to us already
			t.entries = append(t.entries, Entry{MAC: mac, Site: seg.aside(b)})
		}
		return
	case b.parked:
		t.back[after] = append(t.back[after], mac)
	}
	e := seg.entryOf(mac, after)
	e.Moves = seg.endpoint[before] != 0 && e.Site != 0 && !b.parked
	e.Left = before == m.cfg.Site && e.Site != 0
	t.entries = append(t.entries, e)
	if before == m.cfg.Site && after != "" { // elsewhere it was behind us before
		t.told = append(t.told, &moved{mac: mac, ips: r.IPs})
	}
}

// comes tells whether a record is the flip of a job whose VM has yet to run here.
func (m *Manager) comes(r announce.Record) bool {
	j := m.jobs[r.Job]
	return r.Cause == announce.Moved && j != nil && j.to == m.cfg.Site && (j.phase < settled || j.returned)
}

// takeDigest compares, and exchanges all bindings if there is a difference.
func (m *Manager) takeDigest(now time.Time, seg *segment, from string, msg announce.Message) {
	seg.mu.RLock()
	same := seg.table.live == msg.Count && seg.table.sum == msg.Sum
	seg.mu.RUnlock()
	seg.ways.heardDigest(now, from, msg.Count, same)
	if same {
		return
	}
	m.log.Debug("bindings differ; exchanging all", "peer", from, "segment", seg.Name)
	m.exchange(now, seg, from)
}

// exchange tells a site all that is known here, and asks for what it knows.
func (m *Manager) exchange(now time.Time, seg *segment, site string) {
	m.sendSnapshot(now, seg, site)
	m.enqueue(seg, site, announce.Message{Kind: announce.Request, VNI: seg.VNI})
}
