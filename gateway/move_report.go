package gateway

import (
	"context"
	"math"
	"time"
)

// note computes what operators see of the move.
func (m *sourceMove) note(p Progress) {
	st := m.link.State()
	backlog, stalled := m.s.unacked()
	if !st.Up {
		stalled = "the WAN is away: " + st.Why
	}
	logical, wire := m.s.logical.Load(), m.s.wire.Load()
	var given, dear int64
	if m.s.flow != nil { // else the move was taken up after all had crossed
		given, dear = m.s.flow.Spread()
	}
	m.rates.add(meterSample{time.Now(), logical, wire, given, dear})
	codec, limited := m.s.effort()
	now := sample{
		Remaining: p.Remaining, DirtyRate: p.DirtyRate, Rate: m.rates.logical(), Limit: m.downtimeLimit(),
		RTT: st.RTT, Drain: time.Duration(m.s.drain.Load()),
	}
	f := now.forecast()
	m.hurry(now)
	m.job.update(func(v *Job) {
		v.Progress = JobProgress{
			Rounds: max(p.Rounds, int(m.s.rounds.Load())), TotalBytes: p.Total, Remaining: p.Remaining, DirtyRate: 8 * p.DirtyRate,
			LogicalBytes: logical, WireBytes: wire, Rate: 8 * m.rates.wire(), RateCap: v.Progress.RateCap,
			Backlog: backlog, BacklogMax: m.s.limit.Load(), Reduction: ratio(logical, wire), ETALow: whole(f.low), ETAHigh: whole(f.high),
			Downtime: wholeMillis(f.downtime), Throttle: p.Throttle, Codec: codec, LimitedBy: limited, Stalled: stalled, Sealed: m.s.told().Sealed,
		}
	})
}

// whole is d in seconds, to a tenth.
func whole(d time.Duration) float64 { return math.Round(10*d.Seconds()) / 10 }

// wholeMillis is d in milliseconds, or -1 for what cannot be told.
func wholeMillis(d time.Duration) int64 { return max(d.Milliseconds(), -1) }

func ratio(logical, wire int64) float64 {
	if wire == 0 {
		return 0
	}
	return math.Round(100*float64(logical)/float64(wire)) / 100
}

// noteCrossed notes how much has crossed, and how, between two looks at the hypervisor.
func (m *sourceMove) noteCrossed() {
	codec, limited := m.s.effort()
	m.job.update(func(v *Job) {
		v.Progress.LogicalBytes, v.Progress.WireBytes = m.s.logical.Load(), m.s.wire.Load()
		if codec != "" {
			v.Progress.Codec, v.Progress.LimitedBy = codec, limited
		}
	})
}

// noteLost notes how much has crossed and how it was compressed, of a move that does not
// come to a report.
func (m *sourceMove) noteLost() {
	if m.s == nil { // a restart has lost it
		return
	}
	m.noteCrossed()
	if parts := m.s.tally.report(); len(parts) > 0 {
		m.job.update(func(v *Job) { v.Progress.Codecs = parts })
	}
}

// noteRunning computes the report once the destination has said that it runs.
func (m *sourceMove) noteRunning(ctx context.Context, a control) {
	if p, err := m.src.Progress(ctx); err == nil {
		m.note(p)
	}
	t := m.s.sums()
	m.job.update(func(v *Job) {
		v.Report = &JobReport{
			Total: m.took().Milliseconds(), Downtime: m.downtime(a), StoppedAt: m.stopAt, ResumedAt: a.ResumeAt,
			Rounds: max(v.Progress.Rounds, int(m.s.rounds.Load())), LogicalBytes: m.s.logical.Load(), WireBytes: m.s.wire.Load(),
			Reduction: ratio(m.s.logical.Load(), m.s.wire.Load()),
			Pages:     t.Pages, ZeroPages: t.Zero, Refs: t.Refs, Deltas: t.Deltas, Digest: m.s.digest(),
			Codecs: m.s.tally.report(),
		}
	})
}

// took is how long the move has taken. Over a restart it is by the wall clock, which
// may have been set back meanwhile: then it is not known, and 0, since the totals of
// all moves do not decrease.
func (m *sourceMove) took() time.Duration { return max(time.Since(m.begun), 0) }

// downtime is how long the VM stood still, in milliseconds, or -1 when a restart
// of the gateway has lost the moment.
func (m *sourceMove) downtime(running control) int64 {
	switch {
	case !m.entry.Ran:
		return 0
	case m.stopAt.IsZero():
		return -1
	}
	return (m.commitSent.Sub(m.stopAt) + m.link.State().RTT/2 + running.Took).Milliseconds()
}

// noteSilence puts into the report how the network has seen the switchover.
func (m *sourceMove) noteSilence() {
	s := m.g.l2.Silence(m.job.id, m.entry.Peer)
	if s == nil {
		return
	}
	m.job.update(func(v *Job) {
		if v.Report != nil { // a new one: the old has been shown
			r := *v.Report
			r.Network, v.Report = s, &r
		}
	})
}
