package gateway

import "time"

// marginShare of the time that is left is kept: a forecast is a forecast.
const marginShare = 0.2

// late tells whether a move that has time until its deadline will miss it by
// its forecast f. While nothing crosses, as at its beginning, there is none.
func (f forecast) late(left time.Duration) bool {
	if f.low < 0 {
		return left <= 0
	}
	return f.high < 0 || f.high.Seconds() > (1-marginShare)*left.Seconds()
}

// hurry lets a move that would miss its deadline use the paths that cost more.
// It does not take them back: a move that is fast because of them would lose
// them again.
func (m *sourceMove) hurry(f forecast) {
	seconds := m.job.snapshot().Request.Deadline
	if seconds == 0 || m.hurried || !f.late(time.Until(m.begun.Add(time.Duration(seconds)*time.Second))) {
		return
	}
	m.hurried = true
	m.s.flow.UseAll(true)
	m.g.log.Info("the move may use all paths, to keep its deadline", "vm", m.entry.Spec.VM, "peer", m.link.Site())
}
