package congestion

import "time"

// A phase is what the model is doing. See the package comment.
type phase uint8

const (
	startup phase = iota // doubling, while the line takes it
	drain                // letting the queue run off that startup or a probe made
	cruise               // at the rate the line has
	probe                // a little more: has it become faster?
	await                // what came of the probe
	settle               // little in flight: how short is the line really?
)

func (p phase) String() string {
	return [...]string{"startup", "drain", "cruise", "probe", "await", "settle"}[p]
}

// What the model reckons with. Sizes are bytes on the wire, rates bytes per
// second on the wire.
const (
	// startWindow is in flight at first: what five connections of quic-go may
	// send (32 packets each).
	startWindow = 5 * 32 * 1322
	// guessRTT until the first acknowledgement paces the start: short, since the
	// handshakes have made sure that the line is there.
	guessRTT = 20 * time.Millisecond
	// leastPace and leastWindow are never undercut, so that there is always
	// something to measure: a packet each millisecond or so.
	leastPace   = 16 << 10
	leastWindow = 16 * 1500

	startupGain = 2.885 // 2/ln 2: doubles each round (BBR, section 5.6.2)
	farGain     = 4.0   // while trains tell that the line has more than that: 2.6-fold each round
	farWindow   = 3.0
	drainGain   = 0.5
	lookGain    = 1.1  // a first look for more, which a short queue can take
	probeGain   = 1.25 // when there is more, or when others fill the queue (BBR)
	trimGain    = 0.9
	settleGain  = 0.5
	windowGain  = 2.0 // BBR's cwnd_gain
	// lateAcks of window, as time at the rate, is for what a busy receiver
	// acknowledges late; lateFree while pacing alone keeps the queue empty.
	lateAcks = 10 * time.Millisecond
	lateFree = 200 * time.Millisecond
	// configuredGain leaves the line what drains the queue of a burst; a line that has
	// carried the rate for carriedRounds without a queue has less to drain.
	configuredGain = 0.995
	carriedGain    = 0.999
	carriedRounds  = 20

	// maxAckDelay is the default of QUIC's max_ack_delay, fullPacket a packet on the
	// wire; heldShare: see heldBack.
	maxAckDelay = 25 * time.Millisecond
	fullPacket  = 1494
	heldShare   = 4

	// tolerated loss in a round is not congestion; from there on it is, if it is
	// not less than leastLost packets.
	tolerated = 0.05
	leastLost = 8
	// fewLost in a round of startup may be two or three bursts of losses of the line.
	fewLost = 64
	// giveWay is the most that one round of congestion takes off the rate
	// (CUBIC's beta, and BBRv3's).
	giveWay = 0.7
	// leastRound is for short lines: over less, the processors of both ends
	// decide what arrives.
	leastRound = 10 * time.Millisecond
	// thinRound samples are so few that one more or less, which an acknowledgement
	// brings together with another, would pull the bandwidth down: over them the average
	// counts too.
	thinRound = 2*leastSamples + 1
	// mostRound ends a round of a round trip that has fewer than 2 leastSamples.
	mostRound = 250 * time.Millisecond
	// leastSamples make a round's smallest RTT believable.
	leastSamples = 8
	// flatRounds without a quarter more end startup (BBR, section 5.3.1.2).
	flatRounds = 3
	// feelRounds: a round trip until the first train is acknowledged, and one for enough
	// of them.
	feelRounds = 2
	flatGrowth = 1.25
	// foundGrowth, and more, of the bandwidth is found in a probe: it goes on.
	foundGrowth = 1.05
	// trimFor at least a queue stands before what arrives is taken for all that
	// the line has for us.
	trimFor = 150 * time.Millisecond
	// trimRounds of trimming that leave a queue standing: it is not ours.
	trimRounds = 6
	// rivalFor is how long it is then taken for granted.
	rivalFor = 5 * time.Second
	// settleFor at least are little in flight (BBR's ProbeRTTDuration is 200 ms).
	settleFor = 100 * time.Millisecond
)

// A model is what we think of the line and what we do about it. It knows no
// connections. Path.mu guards it.
type model struct {
	rate  int64 // configured, 0 for none
	bulks int   // members that are paced
	// free: the configured rate is taken for what the line carries. Congestion
	// ends that until a probe reaches it again.
	free    bool
	carried int // rounds in a row in which it was, and no queue

	// Delivery, as draft-ietf-ccwg-bbr, section 4.5 has it.
	delivered    int64
	deliveredAt  time.Duration
	firstSent    time.Duration
	limitedUntil int64 // samples are of a sender with too little to send until so much is delivered
	lostEver     int64

	bw  maxFilter
	rtt minFilter

	phase   phase
	since   time.Duration // when the phase began
	inPhase int           // whole rounds since then
	round   round
	rounds  int64

	known     bool    // startup: it has begun anew, with a rate that was measured
	lastRound int64   // bytes that the last round delivered
	early     window  // startup: RTTs of late
	full      int64   // startup: best rate so far
	flat      int     // startup: rounds without growth
	queued    bool    // startup: a queue has begun
	trains    trains  // startup: what bursts tell of the line
	plain     bool    // startup: no trains any more, a short queue or a policer loses of them
	probing   float64 // gain of the probe
	probed    int64   // the rate before the probe
	wins      int     // probes in a row that found more
	nextProbe time.Duration
	pause     time.Duration // between probes: longer when there is nothing to find

	usual      float64       // loss of late, at most what is put up with
	used       bool          // the last round's sender kept up with the pace
	bad        bool          // the last round's losses were beyond
	trimmed    int           // rounds of trimming in a row
	trimmedAt  time.Duration // when the row began
	rivalUntil time.Duration
	collapses  int
	before     time.Duration // when we gave way last
	bwBefore   int64         // bandwidth and loss when a row of giving way began
	lossBefore float64
	deafTo     float64 // loss that is put up with until deafUntil
	deafUntil  time.Duration
	obeyed     int64 // the round in which we gave way last
}

// A round is a round trip: from the sending of a packet until the first packet
// is acknowledged that was sent after the acknowledgement of that one.
type round struct {
	end         int64 // ends when a packet is acknowledged that was sent at this count
	began       time.Duration
	from        int64 // delivered at its begin
	lost        int64 // bytes
	lostPackets int
	lossTimes   int           // how many times there were losses: trains, or as long as makes them two
	lossAt      time.Duration // when the first of the last time was sent
	lossFrom    time.Duration // and the first of all
	marks       int
	samples     int
	rtt         time.Duration // smallest
	limited     bool
	sent        int64 // bytes
	full        bool  // the window was found full
	held        bool  // a packet had to wait for us: the sender had more than we let pass
}

func newModel(rate int64) model {
	m := model{}
	m.setRate(rate)
	return m
}

func (m *model) setRate(rate int64) {
	was := m.rate
	m.rate = max(rate, 0)
	switch {
	case m.rate > 0 && (was == 0 || m.free):
		m.free, m.carried = true, 0
		if m.phase == startup {
			m.phase = cruise
		}
	case m.rate == 0 && m.free:
		// Nothing has been measured but that so much passed: go on from there.
		m.free = false
		m.bw.add(was)
	}
}

// bandwidth is the rate that the line is thought to have for us; 0 while unknown.
func (m *model) bandwidth() int64 {
	if m.free {
		return m.rate
	}
	bw := m.bw.value()
	if m.rate > 0 {
		bw = min(bw, m.rate)
	}
	return bw
}

// pace is the rate at which packets may leave.
func (m *model) pace() int64 {
	bw := m.bandwidth()
	if bw == 0 {
		return max(m.firstPace(), leastPace)
	}
	p := int64(m.gain() * float64(bw))
	switch {
	case m.phase == startup:
		if m.near() {
			p = m.trains.limit
		}
		if !m.known {
			p = max(p, m.firstPace()) // the first samples are of a handful of packets
		}
	case m.trimmed == 0:
		// What a line loses by itself does not fill it. Half of it is made up
		// for: if we are the cause after all, it fades.
		p = int64(float64(p) / (1 - m.usual/2))
	}
	if m.rate > 0 {
		gain := configuredGain
		if m.carried >= carriedRounds {
			gain = carriedGain
		}
		p = min(p, int64(gain*float64(m.rate)))
	}
	return max(p, leastPace)
}

// firstPace spreads the first window over a round trip.
func (m *model) firstPace() int64 {
	rtt := m.rtt.rtt
	if rtt == 0 {
		rtt = guessRTT
	}
	return int64(startWindow / rtt.Seconds())
}

func (m *model) gain() float64 {
	switch m.phase {
	case startup:
		if m.farOff() {
			return farGain
		}
		if m.feeling() {
			return probeGain
		}
		return startupGain
	case drain:
		return drainGain
	case probe:
		return m.probing
	case settle:
		return settleGain
	case await:
		return 1
	}
	if m.trimmed > 0 {
		return trimGain
	}
	return 1
}

// burst is how much bulk waits for before it leaves at once, as time at the pace.
func (m *model) burst() time.Duration {
	if m.inTrains() {
		return time.Duration(trainShare * float64(m.rtt.rtt))
	}
	return min(burst, time.Duration(burstShare*float64(m.rtt.rtt)))
}

// inTrains tells whether bulk leaves in trains.
func (m *model) inTrains() bool {
	return m.phase == startup && m.hasTrains() && !m.near()
}

// hasTrains tells whether the line is one whose trains can be measured.
func (m *model) hasTrains() bool { return !m.plain && m.rtt.rtt >= leastTrainRTT }

// feeling tells in startup whether trains are still to tell what there is beyond a rate
// that is known.
func (m *model) feeling() bool {
	return m.known && m.inPhase < feelRounds && m.inTrains()
}

// slowly tells whether what was delivered in the round was sent while feeling, and so
// could not grow as fast.
func (m *model) slowly() bool { return m.known && m.hasTrains() && m.inPhase <= feelRounds+1 }

// near tells in startup whether the rate that trains tell is to be had at once.
func (m *model) near() bool {
	limit := m.trains.limit
	return limit > 0 && float64(limit) <= jump*float64(m.bandwidth())
}

// farOff tells in startup whether the line has carried trains at a multiple of the
// rate.
func (m *model) farOff() bool {
	return float64(max(m.trains.limit, m.trains.carried())) >= farGain*float64(m.bandwidth())
}

// bdp is what fills the line without a queue, in bytes; 0 while unknown.
func (m *model) bdp() int64 {
	return int64(float64(m.bandwidth()) * m.rtt.rtt.Seconds())
}

// window is how much may be in flight.
func (m *model) window() int64 {
	bdp := m.bdp()
	if bdp == 0 {
		if m.free { // the rate is known, the length of the line is not: pacing is enough
			return max(startWindow, m.rate)
		}
		return startWindow
	}
	w := float64(bdp) * windowGain
	if m.phase == startup {
		if m.farOff() {
			w = float64(bdp) * farWindow
		}
		if m.near() {
			w = max(w, 1.25*float64(m.trains.limit)*m.rtt.rtt.Seconds())
		}
	}
	late := lateAcks
	if m.free {
		late = lateFree
	}
	w += float64(m.bandwidth()) * late.Seconds()
	return max(int64(w), startWindow, leastWindow)
}

// sent notes a packet. before is what was in flight without it.
func (m *model) sent(now time.Duration, s *sentPacket, before int64) {
	if before == 0 || m.deliveredAt == 0 {
		// After idleness the intervals begin anew.
		m.firstSent, m.deliveredAt = now, now
	}
	m.round.sent += s.size
	s.at, s.delivered, s.deliveredAt, s.firstSent = now, m.delivered, m.deliveredAt, m.firstSent
	s.limited = m.delivered < m.limitedUntil
}

// limited: the sender has not used its pace. What is in flight now says nothing
// of what the line could do.
func (m *model) limited(inFlight int64) {
	m.limitedUntil = m.delivered + max(inFlight, 1)
	m.round.limited = true
}

// marked: the path has marked packets (ECN).
func (m *model) marked() { m.round.marks++ }

func (m *model) lost(s sentPacket) {
	if r := &m.round; r.lossTimes == 0 || s.at > r.lossAt+m.apart() {
		if r.lossTimes == 0 {
			r.lossFrom = s.at
		}
		r.lossTimes++
		r.lossAt = s.at
	}
	m.round.lost += s.size
	m.round.lostPackets++
	m.lostEver += s.size
}

func (m *model) spurious(size int64) {
	if m.round.lostPackets > 0 {
		m.round.lostPackets--
		m.round.lost = max(m.round.lost-size, 0)
	}
	m.lostEver = max(m.lostEver-size, 0)
}

// acked takes in the acknowledgement of a packet. inFlight is what is left.
func (m *model) acked(now time.Duration, s sentPacket, inFlight int64) {
	m.delivered += s.size
	m.deliveredAt = now
	m.firstSent = max(m.firstSent, s.at)
	rtt := max(now-s.at, time.Microsecond)
	m.rtt.add(now, rtt)
	if r := &m.round; r.samples == 0 || rtt < r.rtt {
		r.rtt = rtt
	}
	m.round.samples++

	if m.phase == startup && !m.plain {
		m.trains.acked(now, s.at, m.apart(), s.size)
	}
	if m.phase == startup && m.late(now, s, rtt) {
		m.queued = true
	}
	if m.phase == startup && m.overflows() {
		m.queued = true // one too short to be seen
		m.plain = true
	}
	ends := s.delivered >= m.round.end && m.longEnough(now)
	if ends || m.phase == startup {
		m.sample(now, s)
	}
	switch {
	case ends:
		m.endRound(now, inFlight)
	case m.queued && m.phase == startup:
		m.endStartup(now)
	}
	m.drained(now, inFlight)
}

// overflows tells in startup whether so much is lost, and so often, that it is no mere
// burst of losses: of most trains, since a queue that is too short or a policer drops of
// each. Without trains it is twice as much: the small bursts that then leave are more
// than the shortest queues hold, long before the line is full.
func (m *model) overflows() bool {
	r, most := &m.round, 2*tolerated
	if r.lostPackets < 2*leastLost || r.lossTimes < leastTrains {
		return false
	}
	if m.inTrains() {
		every := (r.lossAt - r.lossFrom) / time.Duration(r.lossTimes-1)
		if r.lossTimes <= leastTrains || every > 2*m.burst() {
			return false
		}
	} else {
		most *= 2
	}
	return r.loss(max(m.delivered-r.from, m.lastRound)) >= most
}

// longEnough tells whether the round may end: on a thin line a round trip is a few
// packets, and what is judged by them is chance.
func (m *model) longEnough(now time.Duration) bool {
	past := now - m.round.began
	return past >= leastRound && (m.round.samples >= 2*leastSamples || past >= mostRound)
}

// apart is the time between what was sent that makes it two trains.
func (m *model) apart() time.Duration { return max(m.rtt.rtt/32, time.Millisecond) }

// late tells in startup whether packets have begun to queue. Only those count
// that were sent as fast as the pace allows: a few by themselves make no queue,
// and receivers acknowledge them late (RFC 9000, section 13.2.1: max_ack_delay).
func (m *model) late(now time.Duration, s sentPacket, rtt time.Duration) bool {
	if s.limited || !m.used && !m.round.held {
		m.early = window{}
		return false
	}
	least := m.early.add(now, rtt, max(m.rtt.rtt/4, 5*time.Millisecond))
	return least > m.rtt.rtt+max(m.rtt.rtt/8, 4*time.Millisecond)+m.heldBack()
}

// sample takes in the delivery rate that a packet has seen:
//
//	(delivered now - delivered then) / max(time to send, time to acknowledge)
func (m *model) sample(now time.Duration, s sentPacket) {
	interval := max(s.at-s.firstSent, now-s.deliveredAt)
	if interval < m.rtt.rtt || interval <= 0 {
		return // acknowledgements that came together: not to be believed
	}
	v := int64(float64(m.delivered-s.delivered) / interval.Seconds())
	if !s.limited || v >= m.bw.value() {
		m.bw.add(v)
	}
}

// enter begins a phase.
func (m *model) enter(now time.Duration, p phase) {
	m.phase, m.since, m.inPhase = p, now, 0
}
