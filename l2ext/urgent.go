package l2ext

import (
	"fmt"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// HandleUrgent takes a message that a site has sent by SendUrgent. It borrows
// b. Messages of one site must come in order; the call waits while the loop is
// busy, and so slows down a peer that says too much. What is wrong with the
// message is returned for a log; the message is then ignored.
func (m *Manager) HandleUrgent(site string, b []byte) error {
	msg, err := announce.Parse(b)
	if err != nil {
		return fmt.Errorf("announcement from %s: %w", site, err)
	}
	seg := m.segments()[msg.VNI]
	if seg == nil || !slices.Contains(seg.Sites, site) {
		return fmt.Errorf("announcement from %s, VNI %d: %w", site, msg.VNI, errStranger)
	}
	if err := m.checkRight(seg, msg); err != nil {
		return fmt.Errorf("announcement from %s: %w", site, err)
	}
	m.notify(func() { m.take(time.Now(), site, msg) })
	return nil
}

// checkRight refuses a message that names sites that are not on the segment.
func (m *Manager) checkRight(seg *segment, msg announce.Message) error {
	on := func(site string) bool { return site == m.cfg.Site || slices.Contains(seg.Sites, site) }
	for _, r := range msg.Records {
		if !on(r.Site) {
			return fmt.Errorf("MAC %v bound to site %s, segment %s: %w", MAC(r.MAC), r.Site, seg.Name, errStranger)
		}
		if r.Seq > maxSeq {
			return fmt.Errorf("MAC %v has number %d: %w", MAC(r.MAC), r.Seq, announce.ErrFormat)
		}
	}
	if msg.Kind == announce.Prepare && !on(msg.Site) {
		return fmt.Errorf("job %s to site %s, segment %s: %w", msg.Job, msg.Site, seg.Name, errStranger)
	}
	return nil
}

// take is the loop's part of HandleUrgent.
func (m *Manager) take(now time.Time, from string, msg announce.Message) {
	seg := m.segments()[msg.VNI]
	if seg == nil || !slices.Contains(seg.Sites, from) {
		return // changed in the meantime
	}
	switch msg.Kind {
	case announce.Update:
		m.takeRecords(now, seg, from, msg.Records)
	case announce.Digest:
		m.takeDigest(seg, from, msg)
	case announce.Request:
		m.sendSnapshot(seg, from)
	case announce.Prepare:
		m.takePrepare(now, seg, from, msg)
	}
}

func (m *Manager) takeRecords(now time.Time, seg *segment, from string, records []announce.Record) {
	var b batch                 // what changes here
	var newer []announce.Record // what the sender does not know
	var claimed []*moved        // MACs that left their LAN for another site
	refused := false
	seg.mu.Lock()
	for _, r := range records {
		mac := MAC(r.MAC)
		before := seg.table.site(mac)
		if again, ok := m.undoStale(now, seg, r); ok {
			b.records = append(b.records, again)
			continue
		}
		switch seg.table.accept(now, r) {
		case changed:
			after := seg.table.site(mac)
			if before != after {
				b.entries = append(b.entries, seg.entryOf(mac, after))
			}
			if r.Cause == announce.Moved && before != after && after != m.cfg.Site {
				claimed = append(claimed, &moved{mac: mac, ips: r.IPs})
			}
		case stale:
			newer = append(newer, seg.table.byMAC[mac].rec)
		case raised:
			seg.counts.add(Fenced, 1)
			b.records = append(b.records, seg.table.byMAC[mac].rec)
		case full:
			refused = true
		}
	}
	seg.mu.Unlock()
	m.publish(seg, &b)
	m.sendRecords(seg, from, newer)
	for _, c := range claimed {
		m.announceInLAN(seg, c) // the switches of this LAN find the MAC behind us now
	}
	for _, r := range records {
		m.jobMoved(r)
	}
	if refused {
		m.setOdd(now, seg, fmt.Sprintf("more than %d MACs", MaxMACs))
	}
}

// takeDigest compares, and exchanges all bindings if there is a difference.
func (m *Manager) takeDigest(seg *segment, from string, msg announce.Message) {
	seg.mu.RLock()
	same := seg.table.live == msg.Count && seg.table.sum == msg.Sum
	seg.mu.RUnlock()
	if same {
		return
	}
	m.log.Debug("bindings differ; exchanging all", "peer", from, "segment", seg.Name)
	m.exchange(seg, from)
}

// exchange tells a site all that is known here, and asks for what it knows.
func (m *Manager) exchange(seg *segment, site string) {
	m.sendSnapshot(seg, site)
	m.enqueue(seg, site, announce.Message{Kind: announce.Request, VNI: seg.VNI})
}
