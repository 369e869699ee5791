package l2ext

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// NIC is a network interface of a VM that moves.
type NIC struct {
	MAC MAC
	Tap string // the port behind it at this site, if known
}

// Bounds of jobs.
const (
	maxNICs  = 1 << 17          // of all jobs of which one peer tells: twice what one segment holds
	maxJobs  = 4096             // of this gateway, or of one peer, known at one time; a site of 1000 VMs, several times over
	keepJob  = 10 * time.Minute // an ended job is known for so long, so that a late call has an answer
	staleJob = 24 * time.Hour   // a prepared job that nobody ended is forgotten
)

// phase is how far a job is.
type phase uint8

const (
	prepared phase = iota
	flipped
	settled
	confirmed
	revoked
)

// job is the move of a VM, as far as its network is concerned.
type job struct {
	id      string
	to      string
	nics    []attachedNIC
	has     map[attachedNIC]bool // of nics
	phase   phase
	changed time.Time

	origin    string    // the source, if that is another site and known
	flippedAt time.Time // when the flip was ordered, or arrived
	ports     []string  // of this site, behind which its VM will come to run
	muted     []string  // of these
	returned  bool      // revoked by its source, which may prepare it anew; see revive
	gap       Gap
	ended     chan struct{} // at the source, once flipped; closed when the gap has ended
}

func (j *job) over() bool { return j.phase == confirmed || j.phase == revoked }

type attachedNIC struct {
	vni uint32
	mac MAC
}

// moved is a host that the LAN has to be told about.
type moved struct {
	mac MAC
	ips []netip.Addr
}

// Prepare announces, at the source, that a job will take a VM's NICs to another
// site. NICs that are on no segment shared with that site are left alone.
// Preparing a job again is no error: after a restart of this gateway it makes
// the job known again, such that it can be revoked or confirmed. One that was revoked
// begins anew: its VM had only been paused for a while.
func (m *Manager) Prepare(ctx context.Context, id string, nics []NIC, to string) error {
	if !validJob(id) || to == m.cfg.Site || to == "" {
		return fmt.Errorf("l2ext: preparing job %q to site %q: not possible", id, to)
	}
	return m.call(ctx, func() error {
		switch j := m.jobs[id]; {
		case j == nil, j.to == to && j.phase == revoked:
			return m.prepare(time.Now(), &job{id: id, to: to}, nics)
		case j.to != to || j.over():
			return fmt.Errorf("preparing job %s to site %s: %w", id, to, ErrJobOver)
		}
		return nil
	})
}

// validJob tells whether a job can be announced. Bindings carry its name: one that does
// not fit would keep all that is announced together with them from the other sites.
func validJob(id string) bool { return id != "" && len(id) <= announce.MaxJob }

func (m *Manager) prepare(now time.Time, j *job, nics []NIC) error {
	if m.jobsOf("") >= maxJobs {
		return fmt.Errorf("l2ext: preparing job %s: %d jobs are known already", j.id, maxJobs)
	}
	j.changed = now
	byVNI := make(map[uint32][]announce.MAC)
	for _, nic := range nics {
		segs := m.segmentsOf(nic, j.to)
		if len(segs) == 0 {
			m.orders.Info("NIC is on no shared segment and stays behind", "mac", nic.MAC, "job", j.id)
		}
		for _, seg := range segs {
			j.add(seg.VNI, nic.MAC)
			byVNI[seg.VNI] = append(byVNI[seg.VNI], nic.MAC)
		}
	}
	m.jobs[j.id] = j
	for vni, macs := range byVNI {
		seg := m.segments()[vni]
		m.mark(now, seg, macs, j)
		for _, site := range seg.Sites {
			m.sendPrepare(seg, site, j, macs)
		}
	}
	return nil
}

// mark makes sure that the MACs are bound, and marks them.
func (m *Manager) mark(now time.Time, seg *segment, macs []announce.MAC, j *job) {
	var b batch
	seg.mu.Lock()
	for _, raw := range macs {
		mac := MAC(raw)
		known, before := seg.table.byMAC[mac], seg.table.site(mac)
		switch {
		case known != nil && known.rec.Job == j.id && known.rec.Site == j.to:
			j.phase = flipped // before this gateway was restarted
		case seg.table.see(now, mac, true) == changed:
			b.records = append(b.records, seg.table.byMAC[mac].rec)
			if before != "" {
				b.entries = append(b.entries, Entry{MAC: mac})
			} else {
				seg.table.byMAC[mac].unseen = seg.adopted > 0
			}
		}
		if known = seg.table.byMAC[mac]; known != nil {
			known.listen(j)
		}
	}
	seg.mu.Unlock()
	m.publish(seg, &b)
}

// takePrepare notes the job of another site.
func (m *Manager) takePrepare(now time.Time, seg *segment, from string, msg announce.Message) {
	j := m.jobs[msg.Job]
	if j == nil {
		if seg.isMoved(msg) {
			return
		}
		if m.jobsOf(from) >= maxJobs {
			seg.counts.add(Refused, 1)
			m.log.Warn("job not noted: too many are known", "job", msg.Job, "peer", from)
			return
		}
		j = &job{id: msg.Job, to: msg.Site, changed: now, origin: from}
		m.jobs[msg.Job] = j
	}
	if j.origin == "" && j.to == m.cfg.Site { // Expect was first
		j.origin = from
	}
	if j.to != msg.Site || j.origin != from {
		return // of another job, or not from its source
	}
	if m.revive(now, j); j.phase != prepared {
		return
	}
	if m.nicsOf(from)+len(msg.MACs) > maxNICs {
		seg.counts.add(Refused, 1)
		m.log.Warn("NICs of a job not noted: too many are known", "job", msg.Job, "peer", from)
		return
	}
	var coming []Entry
	seg.mu.Lock()
	for _, raw := range msg.MACs {
		if !seg.Policy.binds(MAC(raw)) {
			continue
		}
		j.add(seg.VNI, MAC(raw))
		if b := seg.table.byMAC[MAC(raw)]; b != nil && (b.rec.Site == from || b.rec.Job == j.id) { // a site moves only what it has
			b.listen(j)
			if e := seg.entryOf(MAC(raw), b.rec.Site); e.Coming && seg.Mode == Direct {
				coming = append(coming, e)
			}
		}
	}
	seg.mu.Unlock()
	m.point(seg, coming)
}

// isMoved tells whether a job has moved its MACs already: it is over and forgotten here, but its source, which was cut
// off, does not know.
func (s *segment) isMoved(msg announce.Message) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.ContainsFunc(msg.MACs, func(mac announce.MAC) bool {
		b := s.table.byMAC[MAC(mac)]
		return b != nil && b.rec.Job == msg.Job && b.rec.Site == msg.Site
	})
}

// Flip binds the job's MACs to the destination, here and everywhere. Call it at
// the source as soon as the VM has stopped: what then still arrives here for it
// is sent on. A second call does nothing.
func (m *Manager) Flip(ctx context.Context, id string) error {
	return m.call(ctx, func() error {
		j := m.jobs[id]
		switch {
		case j == nil:
			return fmt.Errorf("flipping job %s: %w", id, ErrNoJob)
		case j.phase == prepared:
			now := time.Now()
			quiet := m.silence(now, j)
			j.enter(now, flipped)
			m.moveAll(now, j, j.to, 1)
			j.measure(now, quiet)
		case j.phase == revoked:
			return fmt.Errorf("flipping job %s: %w", id, ErrJobOver)
		}
		return nil
	})
}

// Settle tells the LAN of the destination that the job's MACs are here. Call it
// when the VM runs, and let the hypervisor announce the NICs afterwards: where
// the VM is on another host than this gateway, only its own frames teach the
// switches. nics are those of the VM here; it may be nil, then they are those
// that the source has named. MACs that the source could not flip are claimed, also
// where the last that came of it is that it has taken the VM back: it may have begun anew,
// and if not it takes them back again. A second call announces again.
func (m *Manager) Settle(ctx context.Context, id string, nics []NIC) error {
	if !validJob(id) {
		return fmt.Errorf("l2ext: settling job %q: not possible", id)
	}
	return m.call(ctx, func() error {
		now := time.Now()
		j := m.jobs[id]
		if j == nil {
			j = &job{id: id, to: m.cfg.Site}
			m.jobs[id] = j
		}
		m.goOn(now, j)
		if j.phase == revoked || j.to != m.cfg.Site {
			return fmt.Errorf("settling job %s: %w", id, ErrJobOver)
		}
		m.giveParked(j)
		for _, nic := range nics {
			for _, seg := range m.segmentsHere(nic) {
				j.add(seg.VNI, nic.MAC)
			}
		}
		again := j.phase >= settled
		if !again {
			if j.phase == prepared { // the flip has yet to come
				j.flippedAt, j.gap.Before, j.gap.After = now, -1, -1
			}
			j.enter(now, settled)
		}
		m.moveAll(now, j, m.cfg.Site, 1)
		m.wake(j, again)
		m.unmute(j)
		return nil
	})
}

// Confirm ends a job for good: the VM runs at its destination. Call it at both
// sites. A job that was not flipped is flipped now. A job that is not known is no error, as it may have been forgotten.
func (m *Manager) Confirm(ctx context.Context, id string) error {
	return m.call(ctx, func() error {
		j := m.jobs[id]
		if j == nil {
			return nil
		}
		now := time.Now()
		m.goOn(now, j)
		switch {
		case j.phase == revoked:
			return fmt.Errorf("confirming job %s: %w", id, ErrJobOver)
		case j.phase == prepared && j.to != m.cfg.Site: // nobody has told of the STOP
			m.moveAll(now, j, j.to, 1)
		}
		j.enter(now, confirmed)
		m.finish(j)
		m.sendOver(j)
		return nil
	})
}

// Revoke ends a job without a move. At the source it takes the MACs back, if
// they were flipped, and tells the LAN; at the destination it only forgets what
// was prepared. A second call does nothing.
func (m *Manager) Revoke(ctx context.Context, id string) error {
	return m.call(ctx, func() error {
		j := m.jobs[id]
		switch {
		case j == nil:
			return fmt.Errorf("revoking job %s: %w", id, ErrNoJob)
		case j.phase == confirmed:
			return fmt.Errorf("revoking job %s: %w", id, ErrJobOver)
		case j.phase == revoked:
			j.returned = false // whatever its source says later
			return nil
		}
		now := time.Now()
		switch {
		case j.to == m.cfg.Site:
		case j.phase == flipped || m.isAway(j):
			// Two, as the destination may have raised the number by one.
			m.moveAll(now, j, m.cfg.Site, 2)
		default:
			m.takeOut(j)
		}
		j.enter(now, revoked)
		m.unmark(j)
		m.unmute(j)
		m.sendOver(j)
		return nil
	})
}

func (j *job) enter(now time.Time, p phase) { j.phase, j.changed = p, now }

// moveAll binds the job's MACs to a site, with numbers step above the last, and
// tells peers, kernel and LAN.
func (m *Manager) moveAll(now time.Time, j *job, site string, step uint64) {
	for vni, seg := range m.segments() {
		var b batch
		var told []*moved
		seg.mu.Lock()
		for _, nic := range j.nics {
			if nic.vni != vni {
				continue
			}
			known, before := seg.table.byMAC[nic.mac], seg.table.site(nic.mac)
			if known == nil || known.rec.Site != site || known.rec.Job != j.id {
				b.records = append(b.records, seg.table.move(now, nic.mac, site, j.id, step))
				e := seg.entryOf(nic.mac, site)
				e.Left = before == m.cfg.Site && e.Site != 0
				b.entries = append(b.entries, e)
				known = seg.table.byMAC[nic.mac]
			} else if known.parked {
				b.entries = append(b.entries, seg.entryOf(nic.mac, site))
			}
			known.listen(j)
			told = append(told, &moved{mac: nic.mac, ips: known.rec.IPs})
		}
		seg.mu.Unlock()
		m.publish(seg, &b)
		m.tellLAN(seg, told)
	}
	m.wishSoon(now)
}

// lanBurst is how many hosts are announced in the LAN in one step of the loop: some
// hundred microseconds. A VM's NICs are, an evacuation's thousands wait for what is
// more urgent.
const lanBurst = 64

// maxUntold hosts wait to be announced, a megabyte or two: as many as an evacuation has,
// and no more, since peers tell of many at a time, over and over.
const maxUntold = 1 << 14

// untold is a host that the LAN has to be told of.
type untold struct {
	vni uint32
	*moved
}

// tellLAN has hosts announced in the LAN, in their order behind those that wait already.
// A burst of them all is announced at once, and more as long as too many wait; the loop
// does the rest, in turn with all else but this gateway's own orders, which go first.
func (m *Manager) tellLAN(seg *segment, told []*moved) {
	for _, t := range told {
		m.untold = append(m.untold, untold{seg.VNI, t})
	}
	m.tellSome()
	for len(m.untold) > maxUntold {
		m.tellSome()
	}
}

// tellSome announces a burst of those that wait.
func (m *Manager) tellSome() {
	n, now := min(len(m.untold), lanBurst), time.Now()
	for _, u := range m.untold[:n] {
		if seg := m.segments()[u.vni]; seg != nil { // as it is now: it may have been changed, or removed
			m.announceInLAN(now, seg, u.moved)
		}
	}
	if m.untold = m.untold[n:]; len(m.untold) == 0 {
		m.untold = nil
	}
}

// always is a channel that does not block.
var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// moreToTell does not block while hosts wait to be announced.
func (m *Manager) moreToTell() <-chan struct{} {
	if len(m.untold) == 0 {
		return nil
	}
	return always
}

// announceInLAN sends into the bridge what the host would send to make itself
// known: bridges and switches of this LAN learn the way to it. Where the host
// has left, that way is through us.
func (m *Manager) announceInLAN(now time.Time, seg *segment, t *moved) {
	seg.mu.Lock()
	if b := seg.table.byMAC[t.mac]; b != nil {
		b.told = now
	}
	seg.mu.Unlock()
	for _, ip := range append([]netip.Addr{{}}, t.ips...) { // first without an address: a RARP
		frame := ether.AppendAnnounce(nil, t.mac, ip)
		if _, err := m.toLAN(seg, parcel{frame: frame}, nil); err != nil {
			m.log.Debug("host not announced in the LAN", "segment", seg.Name, "mac", t.mac, "err", err)
		}
	}
}

// undoStale refuses a record by which a job that this gateway has revoked still
// takes a MAC away: the binding is raised above it. It needs seg.mu.
func (m *Manager) undoStale(now time.Time, seg *segment, r announce.Record) (again announce.Record, ok bool) {
	j := m.jobs[r.Job]
	if r.Job == "" || j == nil || j.phase != revoked || j.to == m.cfg.Site || r.Site == m.cfg.Site {
		return again, false
	}
	b := seg.table.byMAC[MAC(r.MAC)]
	if b == nil || b.rec.Site != m.cfg.Site || compare(r, b.rec) <= 0 {
		return again, false
	}
	return seg.table.move(now, MAC(r.MAC), m.cfg.Site, j.id, r.Seq-b.rec.Seq+1), true
}
