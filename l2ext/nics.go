package l2ext

import (
	"maps"
	"slices"
)

// jobsOf counts the jobs of which a peer has told; "" is those that this gateway has been told to look after and no
// peer has told of. None has a part in the bounds of another: peers may tell of as many as they like.
func (m *Manager) jobsOf(origin string) (n int) {
	for _, j := range m.jobs {
		if j.origin == origin {
			n++
		}
	}
	return n
}

// nicsOf counts those of a peer's jobs.
func (m *Manager) nicsOf(origin string) (n int) {
	for _, j := range m.jobs {
		if j.origin == origin {
			n += len(j.nics)
		}
	}
	return n
}

func (j *job) add(vni uint32, mac MAC) {
	nic := attachedNIC{vni: vni, mac: mac}
	if !j.has[nic] {
		if j.has == nil {
			j.has = make(map[attachedNIC]bool)
		}
		j.has[nic] = true
		j.nics = append(j.nics, nic)
	}
}

// segmentsOf finds the segments that a NIC shares with a site: those of its tap, those
// on which its MAC was seen, or the only one.
func (m *Manager) segmentsOf(nic NIC, site string) []*segment {
	shared := func(seg *segment) bool { return seg.endpoint[site] != 0 && seg.Policy.binds(nic.MAC) }
	if vnis := m.cfg.Host.PortSegments(nic.Tap); len(vnis) > 0 {
		return slices.DeleteFunc(m.withMAC(vnis, nic.MAC), func(seg *segment) bool { return !shared(seg) }) // none: it is on segments that end here
	}
	var all []*segment
	for _, seg := range m.segments() {
		if shared(seg) {
			all = append(all, seg)
		}
	}
	if seen := m.whereSeen(all, nic.MAC); len(seen) > 0 || len(all) != 1 {
		return seen
	}
	return all
}

// segmentsHere finds the segments of a NIC that has come to this site.
func (m *Manager) segmentsHere(nic NIC) []*segment {
	binds := func(seg *segment) bool { return seg.Policy.binds(nic.MAC) }
	if vnis := m.cfg.Host.PortSegments(nic.Tap); len(vnis) > 0 {
		return slices.DeleteFunc(m.withMAC(vnis, nic.MAC), func(seg *segment) bool { return !binds(seg) })
	}
	all := slices.DeleteFunc(slices.Collect(maps.Values(m.segments())), func(seg *segment) bool { return !binds(seg) })
	if len(m.segments()) == 1 {
		return all
	}
	return m.whereSeen(all, nic.MAC)
}

// withMAC picks the segments of a port on which its VM is: the only one, or, of the
// VLANs of a bridge, those in which its MAC is known.
func (m *Manager) withMAC(vnis []uint32, mac MAC) (some []*segment) {
	for _, vni := range vnis {
		seg := m.segments()[vni]
		if seg == nil {
			continue // just removed
		}
		if site, _ := seg.lookup(mac); site != "" || len(vnis) == 1 {
			some = append(some, seg)
		}
	}
	return some
}

// whereSeen picks one of the segments on which a MAC is known, and what else it is on
// of the same bridge. Another bridge is another network, in which the MAC may be that
// of another VM.
func (m *Manager) whereSeen(all []*segment, mac MAC) []*segment {
	known := func(seg *segment) bool {
		site, _ := seg.lookup(mac)
		return site != ""
	}
	first := slices.IndexFunc(all, known)
	if first < 0 {
		return nil
	}
	bridge := all[first].Bridge
	return slices.DeleteFunc(all, func(seg *segment) bool { return seg.Bridge != bridge || !known(seg) })
}

// giveParked gives a VM that has come to run here the frames that have waited since its
// flip: before all else, since the rest of a Settle asks the kernel several times.
func (m *Manager) giveParked(j *job) {
	for vni, macs := range j.macs() {
		seg := m.segments()[vni]
		if seg == nil {
			continue
		}
		seg.mu.RLock()
		macs = slices.DeleteFunc(macs, func(mac MAC) bool {
			b := seg.table.byMAC[mac]
			return b == nil || !b.parked || b.rec.Site != m.cfg.Site
		})
		seg.mu.RUnlock()
		j.release(m.runsHere(seg, macs))
	}
}

// wake gives a VM that has come to run here the frames that waited for it, and
// begins to wait for its own.
func (m *Manager) wake(j *job, again bool) {
	for vni, macs := range j.macs() {
		seg := m.segments()[vni]
		if seg == nil {
			continue
		}
		j.release(m.letGo(seg, macs))
		if again {
			continue
		}
		seg.mu.RLock()
		for _, mac := range macs {
			if b := seg.table.byMAC[mac]; b != nil && b.ear != nil {
				b.ear.await.Store(true)
			}
		}
		seg.mu.RUnlock()
	}
}

// macs are those of the job's NICs, by segment.
func (j *job) macs() map[uint32][]MAC {
	all := make(map[uint32][]MAC)
	for _, nic := range j.nics {
		all[nic.vni] = append(all[nic.vni], nic.mac)
	}
	return all
}

// isAway tells whether one of the job's MACs is bound to its destination: where
// the flip is missing, the RARP of a hypervisor that has loaded the VM may have
// done that.
func (m *Manager) isAway(j *job) bool {
	return slices.ContainsFunc(j.nics, func(nic attachedNIC) bool {
		seg := m.segments()[nic.vni]
		if seg == nil {
			return false
		}
		site, _ := seg.lookup(nic.mac)
		return site == j.to
	})
}

// finish ends the job here: whoever waited for its VM does so no longer.
func (m *Manager) finish(j *job) {
	m.unmute(j)
	if j.to == m.cfg.Site {
		for vni, macs := range j.macs() {
			if seg := m.segments()[vni]; seg != nil {
				j.release(m.runsHere(seg, macs))
			}
		}
	}
	m.unmark(j)
}

// unmark takes the job's mark from its bindings. One whose VM has not been heard
// yet is still listened to.
func (m *Manager) unmark(j *job) {
	for _, nic := range j.nics {
		seg := m.segments()[nic.vni]
		if seg == nil {
			continue
		}
		seg.mu.Lock()
		b := seg.table.byMAC[nic.mac]
		came := seg.coming(b)
		if b != nil {
			if b.job == j.id {
				b.job = ""
			}
			if b.ear != nil && b.ear.job == j.id && !b.ear.await.Load() {
				b.ear = nil
			}
		}
		if came && seg.Mode == Direct { // it stays where it is
			m.dirty = true
		}
		seg.mu.Unlock()
	}
}
