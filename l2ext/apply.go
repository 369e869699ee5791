package l2ext

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// Apply makes the wished segments, and removes those that are not wished any
// more, and what an earlier gateway has left of others. Until it is called first,
// that stays. The error names what is wrong with the wish, or with the host as a
// whole; what is wrong with one segment is its Problem.
func (m *Manager) Apply(ctx context.Context, wished []Segment) error {
	if err := m.Check(wished); err != nil {
		return err
	}
	wished = slices.Clone(wished)
	return m.call(ctx, func() error { return m.apply(ctx, wished) })
}

// Check says what is wrong with a wish.
func (m *Manager) Check(wished []Segment) error {
	if err := checkAll(m.cfg.Site, wished); err != nil {
		return err
	}
	for _, s := range wished {
		if s.Mode == Direct && !m.cfg.Underlay.IsValid() {
			return fmt.Errorf("segment %s: mode direct needs l2.underlay, the address of this machine on the underlay", s.Name)
		}
	}
	return nil
}

func (m *Manager) apply(ctx context.Context, wished []Segment) error {
	m.wished = true
	old, next := m.segments(), make(map[uint32]*segment)
	for _, w := range wished {
		w.MTU, w.Mode = cmp.Or(w.MTU, DefaultMTU), w.Mode.orDefault()
		w.Policy = w.Policy.withDefaults(m.cfg.Limits, w.Mode)
		w.Sites = slices.Compact(slices.Sorted(slices.Values(w.Sites)))
		next[w.VNI] = m.keepOrMake(old[w.VNI], w)
	}
	vlansOf(next)
	m.state.Store(&next)
	first := firstExpress(next)
	m.first.Store(&first)
	maps.DeleteFunc(m.reading, func(vni uint32, _ Port) bool { return next[vni] == nil }) // the host closes it
	m.setPeers(next)
	endLots(old, next)
	err := m.reconcile(ctx, time.Now())
	m.letStrangersGo(time.Now(), elsewhere(old, next))
	m.lookAfterExpress(time.Now())
	for vni, seg := range next {
		if old[vni] == nil || old[vni].Mode != seg.Mode || !slices.Equal(old[vni].Sites, seg.Sites) {
			for _, site := range seg.Sites { // the link may be up for long
				m.sendWay(seg, site)
				m.exchange(time.Now(), seg, site)
				m.sendKey(time.Now(), seg, site)
				m.sendAble(seg, site)
			}
		}
	}
	return err
}

// endLots ends those of segments that are no more.
func endLots(old, next map[uint32]*segment) {
	for vni, seg := range old {
		if now := next[vni]; now == nil || now.Name != seg.Name {
			seg.lot.end()
		}
	}
}

// keepOrMake keeps what is known of a segment when only its sites change, but for
// MACs that the policy says are no hosts'.
func (m *Manager) keepOrMake(old *segment, w Segment) *segment {
	seg := &segment{Segment: w, out: newLimiter(w.Policy.Limits), in: make(map[string]*limiter), endpoint: make(map[string]vxlan.Endpoint), due: make(map[string]*due)}
	for _, site := range w.Sites {
		seg.in[site] = newLimiter(w.Policy.Limits)
		seg.due[site] = &due{ration: bucket{rate: snapshotsOften}}
		seg.endpoint[site] = m.endpointOf(site)
	}
	seg.table, seg.lot = newTable(m.cfg.Site), newLot(m.parking)
	seg.loop, seg.members = newLoop(), newMembers()
	seg.answers, seg.echoes, seg.objections = newAnswers(), newAnswers(), newObjections()
	seg.ways = newWays(time.Now(), w, m.cfg.Underlay)
	seg.taps, seg.machines, seg.trips, seg.froze, seg.digested = &taps{}, make(map[string]MAC), make(map[string]trip), make(map[string]froze), time.Now()
	if old == nil && w.Everywhere { // not made by this run: an earlier one may have
		seg.ways.strangers = time.Now().Add(strangersTime)
	}
	if old == nil || old.Name != w.Name {
		return seg
	}
	seg.loop, seg.members, seg.taps = old.loop, old.members, old.taps
	for site := range seg.due {
		seg.due[site] = cmp.Or(old.due[site], seg.due[site]) // what is owed stays so
	}
	seg.ways.inherit(old.ways)
	old.mu.Lock()
	defer old.mu.Unlock()
	if seg.lot = old.lot; (old.Mode == SecureFast) != (seg.Mode == SecureFast) { // a lot keeps another form of them
		var lost int
		seg.lot, lost = old.lot.emptied()
		old.counts.add(DropParked, lost)
	}
	for mac, b := range old.table.byMAC {
		if w.Policy.binds(mac) && (b.rec.Site == m.cfg.Site || slices.Contains(w.Sites, b.rec.Site)) {
			own := *b // frames on their way may still look at the old table
			own.parked = own.parked && seg.lot.holds(mac)
			if own.stayed != m.cfg.Site && !slices.Contains(w.Sites, own.stayed) {
				own.stayed = "" // it cannot go back there, see restore
			}
			if own.home != m.cfg.Site && !slices.Contains(w.Sites, own.home) {
				own.home, own.homeJob = "", "" // nor there, see bringHome
			}
			seg.table.byMAC[mac] = &own
			for _, ip := range own.rec.IPs {
				if old.table.byIP[ip] == mac && !own.withdrawn() {
					seg.table.byIP[ip] = mac
				}
			}
			seg.table.sum += b.hash
			if b.hash != 0 {
				seg.table.live++
			}
		}
	}
	maps.Copy(seg.machines, old.machines)
	maps.Copy(seg.trips, old.trips)
	for _, site := range w.Sites {
		if f, ok := old.froze[site]; ok {
			f.macs = maps.Clone(f.macs) // readers may still look at the old segment
			seg.froze[site] = f
		}
	}
	seg.table.flips, seg.given, seg.tcpOnly, seg.digested = old.table.flips, old.given, old.tcpOnly, old.digested
	seg.table.froze, seg.frozenSaid = old.table.froze, old.frozenSaid
	seg.attached, seg.problem, seg.odd, seg.oddUntil, seg.oddTwin = old.attached, old.problem, old.odd, old.oddUntil, old.oddTwin
	for i := range old.counts {
		seg.counts[i].Store(old.counts[i].Load())
	}
	return seg
}

// elsewhere are the segments whose hosts may be of another LAN now: those whose bridge
// or VLAN has changed, and those without a VLAN that had their bridge to themselves, and
// took the hosts of all VLANs for their own.
func elsewhere(old, next map[uint32]*segment) map[*segment]bool {
	changed := make(map[*segment]bool)
	for vni, seg := range next {
		was := old[vni]
		if was == nil || was.Name != seg.Name {
			continue
		}
		if was.Bridge != seg.Bridge || was.VLAN != seg.VLAN || !was.shares() && seg.shares() && seg.VLAN == 0 {
			changed[seg] = true
		}
	}
	return changed
}

// letStrangersGo forgets the hosts of this site of such segments, and what the host has
// reported of them until it had the new wish. Those that are its own are found again when
// they say something.
func (m *Manager) letStrangersGo(now time.Time, changed map[*segment]bool) {
	if len(changed) == 0 {
		return
	}
	batches := make(map[*segment]*batch)
	for range len(m.seen) {
		if s := <-m.seen; !changed[m.segments()[s.VNI]] {
			m.observeOne(now, s, batches)
		}
	}
	for seg, b := range batches {
		m.publish(seg, b)
	}
	for seg := range changed {
		var gone []announce.Record
		seg.mu.Lock()
		for mac, b := range seg.table.byMAC {
			if b.rec.Site == m.cfg.Site && !b.withdrawn() && (m.jobs[b.job] == nil || m.jobs[b.job].over()) && mac != seg.attached.Bridge {
				gone = append(gone, seg.table.withdraw(now, b))
			}
		}
		seg.mu.Unlock()
		m.announce(seg, gone)
	}
}

// endpointOf numbers the other sites as they are met. Numbers are not used
// again, so that a packet on its way cannot reach a wrong site.
func (m *Manager) endpointOf(site string) vxlan.Endpoint {
	e, ok := m.endpoints[site]
	if !ok {
		e = vxlan.FirstSite + vxlan.Endpoint(len(m.endpoints))
		m.endpoints[site] = e
	}
	return e
}

// reconcile makes the host look like the tables.
func (m *Manager) reconcile(ctx context.Context, now time.Time) error {
	segs := make([]*segment, 0, len(m.segments()))
	for _, seg := range m.segments() {
		segs = append(segs, seg)
	}
	slices.SortFunc(segs, func(a, b *segment) int { return cmp.Compare(a.VNI, b.VNI) })
	wishes := make([]Wish, len(segs))
	for i, seg := range segs {
		wishes[i] = Wish{Segment: seg.Segment, Shared: seg.shares(), Machine: machineOf(seg.VNI, m.cfg.Site), Entries: seg.entries(), Direct: m.underlay(now, seg)}
	}
	m.lastApply = now
	m.dirty = false
	attached, err := m.cfg.Host.Apply(ctx, wishes)
	if err != nil {
		m.dirty = true
		for _, seg := range segs {
			m.setProblem(seg, err.Error())
		}
		return fmt.Errorf("applying segments: %w", err)
	}
	for i, a := range attached {
		m.setAttached(now, segs[i], a)
	}
	return nil
}

// machineOf is the MAC of a bridge that is made for a segment. The next gateway makes it with the
// same one: the other sites bind a machine's MAC like that of any host, and would go on knowing
// one that is no more.
func machineOf(vni uint32, site string) MAC {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte("longhaul bridge "+site), vni))
	return MAC{0x0a, 0x42, sum[0], sum[1], sum[2], sum[3]} // not one of probes, nor of a gateway
}

func (m *Manager) setAttached(now time.Time, seg *segment, a Attached) {
	seg.mu.Lock()
	before := seg.attached
	seg.attached = a
	seg.mu.Unlock()
	for _, c := range []struct {
		what      Count
		now, then uint64
	}{
		{DropVLAN, a.OtherVLANs, before.OtherVLANs}, {DropForbidden, a.Forbidden, before.Forbidden}, {DropPolicy, a.Kept, before.Kept},
		{DropShut, a.Shut, before.Shut}, {DropNoListener, a.NoListener, before.NoListener},
	} {
		seg.counts.add(c.what, int(c.now-min(c.then, c.now)))
	}
	if a.Port != nil && a.Port != m.reading[seg.VNI] {
		m.reading[seg.VNI] = a.Port
		m.readers.Go(func() { m.readPort(seg.VNI, a.Port) })
	}
	if a.Err != nil {
		m.dirty = true
		m.setProblem(seg, a.Err.Error())
		return
	}
	m.setProblem(seg, "")
	if a.MTU > 0 && a.MTU < seg.MTU {
		m.setHampered(now, seg, fmt.Sprintf("bridge %s has MTU %d, the segment %d: full frames of other sites do not reach this LAN", seg.Bridge, a.MTU, seg.MTU))
	}
	seg.counts[DropKernel].Store(a.Limited)
	m.checkDelivery(now, seg, a.Delivered-before.Delivered)
	if before.Bridge != a.Bridge {
		for _, site := range seg.Sites {
			m.sendKey(now, seg, site) // tells the bridge
		}
	}
	if before.Device == "" {
		m.log.Info("segment attached", "segment", seg.Name, "device", a.Device, "bridge", seg.Bridge, "adopted", a.Adopted)
	}
	if seg.VLAN == 0 { // what the machine has in a VLAN is a device of its own, which may be there or not
		m.observe(now, Sighting{VNI: seg.VNI, MAC: a.Bridge})
	}
}

// checkDelivery compares what was given to the kernel since the last time with
// what came out of the overlay port.
func (m *Manager) checkDelivery(now time.Time, seg *segment, delivered uint64) {
	given := seg.counts[Received].Load() + seg.loop.probes
	if given-seg.given > undelivered && delivered == 0 {
		m.setHampered(now, seg, fmt.Sprintf("the kernel drops frames from other sites: a firewall must let UDP port %d in from the carrier", vxlan.Port))
	}
	seg.given = given
}
