package l2ext

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// ear listens to the frames of one MAC while a job moves it. A frame on a busy
// path costs one store.
type ear struct {
	job   string
	to    string       // where it brings the MAC
	last  atomic.Int64 // of the source: when a frame was seen last, in Unix nanoseconds
	await atomic.Bool  // of the destination: the VM runs, and its first frame counts
}

// hear notes a frame of the MAC. It tells whether the loop has to know of it.
func (b *binding) hear(now time.Time, kind uint16) bool {
	if b.ear == nil {
		return false
	}
	b.ear.last.Store(now.UnixNano())
	return kind != ether.TypeRARP && (b.parked || b.ear.await.Load())
}

// Gap is what the network saw of a job's switchover: the VM's silence, in the times of each site's own clock.
type Gap struct {
	Before time.Duration // from the last frame of the VM at the source to the flip; -1 if none was seen
	After  time.Duration // from the flip's arrival at the destination to the VM's first frame there; -1 if none was seen yet
	Held   int           // frames that waited at the destination and reached the VM
	Lost   int           // frames that could not wait

	// SettledFirst: the VM ran at the destination before the flip was there. Before is up to the arrival of what
	// the destination says of that, After from the Settle on.
	SettledFirst bool
}

// Silence is how long the VM said nothing, where a word takes half of rtt from one site to the other: the flip on its way
// to the destination, or that of the destination on its way back. It is -1 if that is not known.
func (g Gap) Silence(rtt time.Duration) time.Duration {
	switch {
	case g.Before < 0 || g.After < 0:
		return -1
	case g.SettledFirst:
		return max(g.Before-rtt/2, 0) + g.After
	}
	return g.Before + rtt/2 + g.After
}

// Gap tells, at the source, how a job's switchover went. It waits for the VM's
// first frame at the destination, of which the destination tells, until ctx
// ends; then it tells what is known.
func (m *Manager) Gap(ctx context.Context, id string) (g Gap, err error) {
	var ended <-chan struct{}
	look := func() error {
		j := m.jobs[id]
		if j == nil || j.ended == nil {
			return fmt.Errorf("gap of job %s: %w", id, ErrNoJob)
		}
		g, ended = j.gap, j.ended
		return nil
	}
	if err := m.call(context.WithoutCancel(ctx), look); err != nil {
		return g, err
	}
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return g, m.call(context.WithoutCancel(ctx), look)
}

// measure begins the gap of a job of this site, whose VM has said nothing for quiet.
func (j *job) measure(now time.Time, quiet time.Duration) {
	j.flippedAt, j.gap, j.ended = now, Gap{Before: quiet, After: -1}, make(chan struct{})
}

// settledFirst notes at the source that the destination has said by itself that it has a MAC of the job: what it says
// because of the flip takes a round trip to come.
func (m *Manager) settledFirst(now time.Time, j *job) {
	if m.cfg.RTT == nil || j.phase != flipped || j.gap.SettledFirst || j.gap.After >= 0 {
		return
	}
	since := now.Sub(j.flippedAt)
	if rtt, ok := m.cfg.RTT(j.to); !ok || since >= rtt {
		return
	}
	j.gap.SettledFirst = true
	if j.gap.Before >= 0 {
		j.gap.Before += since
	}
}

// silences are those of the VMs that records bring to their destination before this site has flipped their jobs: its
// gateway is told of the STOP late, or not at all. Afterwards the kernel can no longer tell.
func (m *Manager) silences(now time.Time, records []announce.Record) map[string]time.Duration {
	var quiet map[string]time.Duration
	for _, r := range records {
		j := m.jobs[r.Job]
		if r.Job == "" || j == nil || !m.owns(j) || j.phase != prepared || j.to != r.Site {
			continue
		}
		if _, known := quiet[j.id]; !known {
			if quiet == nil {
				quiet = make(map[string]time.Duration)
			}
			quiet[j.id] = m.silence(now, j)
		}
	}
	return quiet
}

// maxAsked is for how many MACs of a job the kernel is asked at its flip, which
// waits for the answers: each takes some 50 µs.
const maxAsked = 8

// silence is how long a VM has said nothing, just before its flip. The kernel
// knows of all frames, to within 10 ms; we know those that crossed, exactly.
func (m *Manager) silence(now time.Time, j *job) time.Duration {
	quiet := time.Duration(-1)
	for i, nic := range j.nics {
		if i < maxAsked {
			if ago, ok := m.cfg.Host.Heard(nic.vni, nic.mac); ok && (quiet < 0 || ago < quiet) {
				quiet = ago
			}
		}
		seg := m.segments()[nic.vni]
		if seg == nil {
			continue
		}
		seg.mu.RLock()
		b := seg.table.byMAC[nic.mac]
		if b != nil && b.ear != nil {
			if at := b.ear.last.Load(); at != 0 {
				if d := max(now.Sub(time.Unix(0, at)), 0); quiet < 0 || d < quiet {
					quiet = d
				}
			}
		}
		seg.mu.RUnlock()
	}
	return quiet
}

// listen begins to hear a job's MAC. It needs seg.mu.
func (b *binding) listen(j *job) {
	if b.ear == nil || b.ear.job != j.id {
		b.ear = &ear{job: j.id, to: j.to}
	}
	b.job = j.id
}

// heard takes a sighting of a MAC whose job has brought it here: the first one
// after its Settle is the end of the gap, of which the source is told. One
// before it tells as well that the VM runs, unless it was a RARP, which the
// hypervisor sends when it has only loaded the VM.
func (m *Manager) heard(now time.Time, seg *segment, s Sighting) {
	seg.mu.RLock()
	b := seg.table.byMAC[s.MAC]
	var id string
	var waiting, first bool
	if b != nil && b.ear != nil && b.rec.Site == m.cfg.Site {
		id, waiting, first = b.ear.job, b.parked && s.speaks, b.ear.await.Load()
	}
	seg.mu.RUnlock()
	j := m.jobs[id]
	if j == nil || j.to != m.cfg.Site {
		return
	}
	if waiting {
		j.release(m.runsHere(seg, []MAC{s.MAC}))
	}
	if first {
		j.gap.After = max(now.Sub(j.flippedAt), 0)
		m.arrived(seg, j)
	}
}

// arrived tells the source how the switchover went, once.
func (m *Manager) arrived(seg *segment, j *job) {
	for _, nic := range j.nics {
		if s := m.segments()[nic.vni]; s != nil {
			s.mu.Lock()
			if b := s.table.byMAC[nic.mac]; b != nil && b.ear != nil && b.ear.job == j.id {
				b.ear = nil
			}
			s.mu.Unlock()
		}
	}
	if j.origin == "" || j.flippedAt.IsZero() {
		return
	}
	m.enqueue(seg, j.origin, announce.Message{
		Kind: announce.Arrived, VNI: seg.VNI, Job: j.id, After: j.gap.After, Held: uint32(j.gap.Held), Lost: uint32(j.gap.Lost),
	})
}

// release notes frames that have waited.
func (j *job) release(held, lost int) {
	j.gap.Held += held
	j.gap.Lost += lost
}

// takeArrived notes at the source what the destination has seen.
func (m *Manager) takeArrived(seg *segment, from string, msg announce.Message) {
	j := m.jobs[msg.Job]
	if j == nil || j.to != from || j.ended == nil || j.gap.After >= 0 {
		return
	}
	j.gap.After, j.gap.Held, j.gap.Lost = msg.After, int(msg.Held), int(msg.Lost)
	close(j.ended)
	if j.gap.Before >= 0 {
		seg.counts.add(Gaps, 1)
		seg.counts.add(GapMicros, int((j.gap.Before + min(msg.After, staleJob)).Microseconds())) // the peer may say anything
	}
}
