package l2ext

import "slices"

// knownNICs counts those of all jobs.
func (m *Manager) knownNICs() (n int) {
	for _, j := range m.jobs {
		n += len(j.nics)
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
