package congestion

import "time"

// slack is how much longer than the line a round trip may take before we say
// that a queue is standing: schedulers and timers at both ends are no queue.
func (m *model) slack() time.Duration {
	return max(m.rtt.rtt/10, 4*time.Millisecond) + m.heldBack()
}

// heldBack is how long a receiver may hold an acknowledgement back: until a second
// packet comes on the connection, but no longer than max_ack_delay (RFC 9000,
// section 13.2.1). On a thin line no packet may be acknowledged at once.
func (m *model) heldBack() time.Duration {
	bw := m.bandwidth()
	if bw == 0 {
		return 0
	}
	between := time.Duration(float64(max(m.bulks, 1)*fullPacket) / float64(bw) * float64(time.Second))
	if between < maxAckDelay/heldShare {
		return 0 // each round has some that were not held back
	}
	return min(between, maxAckDelay)
}

// standing: the whole round through, packets have waited in a queue.
func (m *model) standing(r round) bool {
	return r.samples >= leastSamples && r.rtt > m.rtt.rtt+m.slack()
}

func (r round) loss(delivered int64) float64 {
	if r.lost == 0 {
		return 0
	}
	return float64(r.lost) / float64(r.lost+delivered)
}

// endRound judges the round that is over, and begins the next.
func (m *model) endRound(now time.Duration, inFlight int64) {
	if !m.round.held {
		m.limited(inFlight)
	}
	kept := m.used
	m.used = m.keptUp(now)
	kept = kept && m.used
	r := m.round
	delivered := m.delivered - r.from
	m.lastRound = delivered
	var got int64 // average rate of delivery over the round
	if past := now - r.began; past > 0 && r.began > 0 {
		got = int64(float64(delivered) / past.Seconds())
	}
	m.round = round{end: m.delivered, began: now, from: m.delivered, limited: m.delivered < m.limitedUntil}
	m.rounds++
	m.inPhase++

	queue := m.standing(r) || r.marks > 0
	if m.congested(now, r, delivered, queue) && got > 0 {
		m.collapse(now, got, r.loss(delivered), queue)
	} else {
		m.step(now, r, queue, got, kept)
	}
	if !r.limited && kept {
		if r.samples < thinRound && m.phase != startup {
			m.bw.add(got)
		}
		m.bw.next()
		if m.bw.value() == 0 { // cannot be: ten rounds without a sample
			m.bw.add(got)
		}
	}
}

// congested tells whether what was lost in a round is more than a line loses. A
// round alone may be bad luck: it counts with a queue, with many losses, or
// after another one; a few not while trains come through at a multiple of the rate.
// What is lost in the two rounds after we have given way was sent before.
func (m *model) congested(now time.Duration, r round, delivered int64, queue bool) bool {
	loss := r.loss(delivered)
	limit := tolerated
	if m.deafUntil > now {
		limit = m.deafTo
	}
	m.usual += (min(loss, limit) - m.usual) / 8
	bad := r.lostPackets >= leastLost && loss >= limit
	again := m.bad
	m.bad = bad
	if m.phase == startup && m.farOff() && !queue && r.lostPackets < fewLost {
		return false
	}
	return bad && (queue || again || loss >= 3*limit) && m.rounds >= m.obeyed+2
}

// keptUp tells whether the sender has sent as much in the round as it might
// have. If not, because its processor was elsewhere, what arrives tells nothing
// of the line.
func (m *model) keptUp(now time.Duration) bool {
	r := &m.round
	return r.full || float64(r.sent) >= 0.75*float64(m.pace())*(now-r.began).Seconds()
}

// collapse gives way: what is lost is more than a line loses.
//
// Losses that do not become fewer when we send less are not ours. After a third
// less without effect and without a queue, they are put up with for a while.
func (m *model) collapse(now time.Duration, got int64, loss float64, queue bool) {
	bw := m.bandwidth()
	switch {
	case queue || m.bwBefore == 0 || now-m.before > deafAfter:
		m.bwBefore, m.lossBefore = bw, loss
	case float64(bw) < giveWay*float64(m.bwBefore) && loss > giveWay*m.lossBefore:
		m.deafTo, m.deafUntil = min(1.5*loss, mostDeaf), now+deafFor
		m.bwBefore = 0
	}
	m.before = now
	m.free, m.carried = false, 0
	m.bw.limit(max(got, int64(giveWay*float64(bw))))
	m.collapses++
	m.obeyed = m.rounds
	m.trimmed = 0
	m.wins = 0
	m.wait(now, true)
	m.enter(now, drain)
}

// step is what happens at the end of a round without congestion.
func (m *model) step(now time.Duration, r round, queue bool, got int64, kept bool) {
	switch {
	case !m.free || queue:
		m.carried = 0
	case !r.limited && kept:
		m.carried++
	}
	switch m.phase {
	case startup:
		m.stepStartup(now, r, queue)
	case drain:
		if m.inPhase >= 3 { // others fill the queue: it does not run off
			m.enter(now, cruise)
		}
	case probe:
		m.enter(now, await)
	case await:
		m.stepAwait(now, queue)
	case cruise:
		m.stepCruise(now, r, queue, got, kept)
	}
}

func (m *model) stepStartup(now time.Duration, r round, queue bool) {
	if bw := m.bw.value(); float64(bw) >= flatGrowth*float64(m.full) || m.slowly() {
		m.full, m.flat = bw, 0
	} else if !r.limited && m.delivered-r.from >= startWindow/2 {
		m.flat++
	}
	limit := m.trains.limit
	m.trains.next()
	switch {
	case queue || m.queued || m.flat >= flatRounds:
		m.endStartup(now)
	case limit > 0 && float64(m.bw.value()) >= trainFull*float64(limit):
		m.endStartup(now)
		m.nextProbe = now // there may be more
	}
}

func (m *model) endStartup(now time.Duration) {
	m.wait(now, true)
	m.enter(now, drain)
}

// stepAwait judges a probe: while there is more, on.
func (m *model) stepAwait(now time.Duration, queue bool) {
	found := float64(m.bw.value()) >= foundGrowth*float64(m.probed)
	if m.rate > 0 && float64(m.bw.value()) >= 0.97*float64(m.rate) {
		m.free, found = true, false
	}
	switch {
	case found && !queue:
		m.wins++
		m.startProbe(now)
		return
	case queue:
		m.enter(now, drain)
	default:
		m.enter(now, cruise)
	}
	m.wins = 0
	m.wait(now, found)
}

func (m *model) startProbe(now time.Duration) {
	m.probed = m.bandwidth()
	m.probing = lookGain
	if m.wins > 0 || m.rivalUntil > now || m.deafUntil > now {
		m.probing = probeGain
	}
	m.enter(now, probe)
	if m.wins >= 2 { // there is much more: as at the start
		m.wins = 0
		m.enterStartup(now)
	}
}

func (m *model) stepCruise(now time.Duration, r round, queue bool, got int64, kept bool) {
	if m.rivalUntil > now {
		queue = false
	}
	switch {
	case queue && m.trimmed >= trimRounds && now-m.trimmedAt >= 2*trimFor:
		m.trimmed = 0
		m.rivalUntil = now + rivalFor
	case queue:
		// The line is full, so what arrives is what it carries for us.
		if m.trimmed == 0 {
			m.trimmedAt = now
		}
		if m.trimmed > 1 && now-m.trimmedAt >= trimFor && !r.limited && kept && got > 0 && float64(got) < 0.95*trimGain*float64(m.bandwidth()) {
			m.free = false
			m.bw.limit(max(got, int64(giveWay*float64(m.bandwidth()))))
		}
		m.trimmed++
	default:
		m.trimmed = 0
	}
	if m.rtt.old(now) {
		m.enter(now, settle)
		return
	}
	if !m.free && !r.limited && now >= m.nextProbe && m.trimmed == 0 {
		m.startProbe(now)
	}
}

// Losses that are not ours: how soon after each other rounds of them must come,
// for how long they are put up with, and how many at most.
const (
	deafAfter = 2 * time.Second
	deafFor   = 30 * time.Second
	mostDeaf  = 0.3
)

// Between probes.
const (
	leastPause = 500 * time.Millisecond
	mostPause  = 2 * time.Second
)

func (m *model) enterStartup(now time.Duration) {
	m.known = true
	m.full, m.flat, m.queued, m.early, m.trains = 0, 0, false, window{}, trains{}
	m.enter(now, startup)
}

// wait says when to probe next: soon after something was found or lost, then
// ever more rarely.
func (m *model) wait(now time.Duration, soon bool) {
	if soon {
		m.pause = 0
	}
	m.pause = min(max(2*m.pause, leastPause, 4*m.rtt.rtt), mostPause)
	m.nextProbe = now + m.pause
}

// drained ends the phases that last until little is in flight.
func (m *model) drained(now time.Duration, inFlight int64) {
	switch m.phase {
	case drain:
		if inFlight <= m.bdp() {
			m.enter(now, cruise)
		}
	case settle:
		// At half the pace no more than half a BDP is in flight, and what waits
		// to be acknowledged: receivers take their time, and a slow line has few
		// packets.
		if inFlight <= m.bdp()*3/4+leastWindow/4 || now-m.since > 2*time.Second {
			if now-m.since >= max(settleFor, 2*m.rtt.rtt) {
				m.rtt = minFilter{rtt: m.round.settled(m.rtt.rtt), seen: now}
				m.enter(now, cruise)
			}
		}
	}
}

// settled is the RTT that a round with little in flight has seen.
func (r round) settled(was time.Duration) time.Duration {
	if r.samples == 0 {
		return was
	}
	return r.rtt
}
