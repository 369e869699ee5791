package gateway

import "time"

// meter measures rates over about the last second from running totals.
type meter struct {
	samples [8]meterSample // ring, the newest at (n-1)%len
	n       int
}

// A meterSample is what has crossed so far, in bytes.
type meterSample struct {
	at            time.Time
	logical, wire int64
	given, dear   int64 // to connections, and to those of paths that cost more (tunnel.Flow.Spread)
}

func (m *meter) add(s meterSample) {
	m.samples[m.n%len(m.samples)] = s
	m.n++
}

// span returns the oldest and the newest sample that are held.
func (m *meter) span() (old, now meterSample, ok bool) {
	if m.n < 2 {
		return old, now, false
	}
	now = m.samples[(m.n-1)%len(m.samples)]
	old = m.samples[max(m.n-len(m.samples), 0)%len(m.samples)]
	return old, now, now.at.After(old.at)
}

// logical is the rate of stream bytes per second.
func (m *meter) logical() int64 {
	old, now, ok := m.span()
	if !ok {
		return 0
	}
	return int64(float64(now.logical-old.logical) / now.at.Sub(old.at).Seconds())
}

// wire is the rate of encoded bytes per second.
func (m *meter) wire() int64 {
	old, now, ok := m.span()
	if !ok {
		return 0
	}
	return int64(float64(now.wire-old.wire) / now.at.Sub(old.at).Seconds())
}

// cheap is the part of all that crosses which goes over the paths that cost least.
func (m *meter) cheap() float64 {
	old, now, ok := m.span()
	if !ok || now.given == old.given {
		return 1
	}
	return 1 - float64(now.dear-old.dear)/float64(now.given-old.given)
}
