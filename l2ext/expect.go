package l2ext

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Expect tells, at the destination, behind which ports a job's VM will come to
// run: broadcasts of the LAN are kept from them until Settle, Confirm or
// Revoke. The port of a paused VM keeps what it gets, and the VM would answer
// requests of minutes ago. NICs without a known port are left alone.
func (m *Manager) Expect(ctx context.Context, id string, nics []NIC) error {
	if !validJob(id) {
		return fmt.Errorf("l2ext: expecting job %q: not possible", id)
	}
	return m.call(ctx, func() error {
		j := m.jobs[id]
		if j == nil {
			if m.jobsOf("") >= maxJobs {
				return fmt.Errorf("l2ext: expecting job %s: %d jobs are known already", id, maxJobs)
			}
			j = &job{id: id, to: m.cfg.Site, changed: time.Now()}
			m.jobs[id] = j
		}
		if j.to != m.cfg.Site || j.phase >= settled {
			return fmt.Errorf("expecting job %s: %w", id, ErrJobOver)
		}
		for _, nic := range nics {
			if len(m.cfg.Host.PortSegments(nic.Tap)) > 0 && !slices.Contains(j.ports, nic.Tap) {
				j.ports = append(j.ports, nic.Tap)
			}
		}
		m.mute(j)
		return nil
	})
}

// mute keeps broadcasts from the ports of a job's VM.
func (m *Manager) mute(j *job) {
	for _, port := range j.ports {
		if slices.Contains(j.muted, port) {
			continue
		}
		if err := m.cfg.Host.Mute(port); err != nil {
			m.orders.Warn("VM will read broadcasts of the time before it runs", "job", j.id, "port", port, "err", err)
			continue
		}
		j.muted = append(j.muted, port)
	}
}

// unmute opens the ports of a job's VM.
func (m *Manager) unmute(j *job) {
	for _, port := range j.muted {
		if err := m.cfg.Host.Unmute(port); err != nil {
			m.orders.Error("port of a VM gets no broadcasts", "job", j.id, "port", port, "err", err)
		}
	}
	j.muted = nil
}
