package gateway

import "time"

const (
	// marginShare of the time that is left is kept: a forecast is a forecast.
	marginShare = 0.2
	// easyShare of it is kept before paths that cost more are given back, by the forecast
	// without them, and for easyFor: a guest that has written little for a moment writes
	// again. Each time that a move takes them anew it keeps them for twice as long, up to
	// easyMost.
	easyShare = 0.5
	easyFor   = 10 * time.Second
	easyMost  = 5 * time.Minute
)

// late tells whether a move that has time until its deadline will miss it by
// its forecast f. While nothing crosses, as at its beginning, there is none.
func (f forecast) late(left time.Duration) bool {
	if f.low < 0 {
		return left <= 0
	}
	return f.high < 0 || f.high.Seconds() > (1-marginShare)*left.Seconds()
}

// easy tells whether it will be done long before.
func (f forecast) easy(left time.Duration) bool {
	return f.high >= 0 && f.high.Seconds() <= (1-easyShare)*left.Seconds()
}

// haste is whether a move may use the paths that cost more, to keep its deadline. The
// zero value: it may not.
type haste struct {
	all   bool
	times int       // how often it was allowed to
	since time.Time // when the forecast without them began to be easy; zero: it is not
}

// look takes in the forecast of a move that has so much time left, as it goes now and
// without the paths that cost more, and tells whether all is another.
func (h *haste) look(now time.Time, left time.Duration, with, without forecast) bool {
	switch {
	case !h.all:
		h.all = with.late(left)
		if h.all {
			h.times, h.since = h.times+1, time.Time{}
		}
		return h.all
	case !without.easy(left):
		h.since = time.Time{}
		return false
	case h.since.IsZero():
		h.since = now
		return false
	}
	h.all = now.Sub(h.since) < min(easyFor<<min(h.times-1, 10), easyMost)
	return !h.all
}

// forecastCheap is the forecast without the paths that cost more. part of what crosses
// goes over the others, and would without them as well.
func (s sample) forecastCheap(part float64) forecast {
	s.Rate = int64(part * float64(s.Rate))
	return s.forecast()
}

// hurry lets a move that would miss its deadline use the paths that cost more, until it
// keeps it without them.
func (m *sourceMove) hurry(s sample) {
	seconds := m.job.snapshot().Request.Deadline
	left := time.Until(m.begun.Add(time.Duration(seconds) * time.Second))
	if seconds == 0 || m.s.flow == nil || !m.haste.look(time.Now(), left, s.forecast(), s.forecastCheap(m.rates.cheap())) {
		return
	}
	m.s.flow.UseAll(m.haste.all)
	said := "the move keeps its deadline without the paths that cost more"
	if m.haste.all {
		said = "the move may use all paths, to keep its deadline"
	}
	m.g.log.Info(said, "vm", m.entry.Spec.VM, "peer", m.link.Site())
}
