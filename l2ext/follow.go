package l2ext

import (
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// What one site does to a job the others follow by its messages and its records. Any of these may be missing, as the
// link may be cut for a while: each later one makes up for those before it.

// sendPrepare tells a site of a job's NICs.
func (m *Manager) sendPrepare(seg *segment, site string, j *job, macs []announce.MAC) (queued bool) {
	queued = true
	for some := range slices.Chunk(macs, announce.MaxMACs) {
		queued = queued && m.enqueue(seg, site, announce.Message{Kind: announce.Prepare, VNI: seg.VNI, Job: j.id, Site: j.to, MACs: some})
	}
	return queued
}

// sendPrepares tells it of those of all jobs of this site that are under way, in case it has not heard.
func (m *Manager) sendPrepares(seg *segment, site string) {
	for _, j := range m.jobs {
		if !m.owns(j) || j.over() {
			continue
		}
		var macs []announce.MAC
		for _, nic := range j.nics {
			if nic.vni == seg.VNI {
				macs = append(macs, announce.MAC(nic.mac))
			}
		}
		if !m.sendPrepare(seg, site, j, macs) {
			return // nor would the rest
		}
	}
}

// owns tells that a job is one of this gateway's, which takes a VM away from here.
func (m *Manager) owns(j *job) bool { return j.origin == "" && j.to != m.cfg.Site }

// jobMoved follows a job by records that a site has sent, of which old ones, which no longer hold, may come late by a third
// site, and tell nothing. Those of hosts that the job does not move, and of a site that is neither of its two, are a third
// one's, which has no part in it. quiet has the silence of the VMs of jobs of this site, see silences.
func (m *Manager) jobMoved(now time.Time, seg *segment, from string, r announce.Record, quiet map[string]time.Duration) {
	j := m.jobs[r.Job]
	if r.Job == "" || j == nil || j.phase > flipped && !j.returned || len(j.nics) > 0 && !j.has[attachedNIC{seg.VNI, r.MAC}] {
		return
	}
	if b := seg.table.byMAC[r.MAC]; b == nil || compare(r, b.rec) != 0 {
		return
	}
	switch {
	case r.Site == j.to && m.owns(j):
		if ago, known := quiet[j.id]; known {
			j.enter(now, flipped)
			j.measure(now, ago)
			j.gap.SettledFirst = true
		} else if from == j.to {
			m.settledFirst(now, j)
		}
	case r.Site == j.to:
		if m.revive(now, j); j.phase == prepared {
			j.flippedAt, j.gap = now, Gap{Before: -1, After: -1}
			j.enter(now, flipped)
		}
	case m.owns(j): // only this gateway takes its own back
	case j.phase == flipped && (j.origin == "" || j.origin == r.Site):
		j.phase, j.returned = revoked, true // its source has taken the MACs back
		m.unmark(j)
		m.unmute(j)
	}
}

// revive begins a job anew, at its destination, that its source has revoked and prepares, or flips, once more: its
// VM was paused for a while, by who may do that, and will stop again, or has.
func (m *Manager) revive(now time.Time, j *job) {
	if !j.returned {
		return
	}
	m.goOn(now, j)
	m.mute(j)
}

// goOn is revive for who knows that the VM runs at its destination, where all that came of its source since it took the
// VM back may have been lost: the port of a VM that runs is not muted.
func (m *Manager) goOn(now time.Time, j *job) {
	if !j.returned {
		return
	}
	j.returned = false
	j.enter(now, prepared)
	for vni, macs := range j.macs() {
		seg := m.segments()[vni]
		if seg == nil {
			continue
		}
		seg.mu.Lock()
		for _, mac := range macs {
			if b := seg.table.byMAC[mac]; b != nil && b.rec.Job == j.id {
				b.listen(j)
			}
		}
		seg.mu.Unlock()
	}
}

// sendOver tells, at the source, the sites that only watch a job that it has ended.
func (m *Manager) sendOver(j *job) {
	if j.to == m.cfg.Site {
		return
	}
	for vni := range j.macs() {
		seg := m.segments()[vni]
		if seg == nil {
			continue
		}
		for _, site := range seg.Sites {
			if site != j.to { // its gateway ends the job itself
				m.enqueue(seg, site, announce.Message{Kind: announce.Over, VNI: vni, Job: j.id})
			}
		}
	}
}

// takeOver forgets a job between other sites. Only its source can say so.
func (m *Manager) takeOver(from string, msg announce.Message) {
	if j := m.jobs[msg.Job]; j != nil && j.origin == from && m.watches(j) {
		m.unmark(j)
		delete(m.jobs, j.id)
	}
}

// watches tells that a job is one between other sites.
func (m *Manager) watches(j *job) bool { return j.origin != "" && j.to != m.cfg.Site }

// expireJobs forgets jobs that have ended, or that nobody will end. Of one between other
// sites the end may have been missed.
func (m *Manager) expireJobs(now time.Time) {
	for id, j := range m.jobs {
		over := j.over() || m.watches(j) && j.phase == flipped
		if age := now.Sub(j.changed); over && age > keepJob || age > staleJob {
			m.unmark(j)
			m.unmute(j)
			delete(m.jobs, id)
		}
	}
}
