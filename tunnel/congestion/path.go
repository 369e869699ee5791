package congestion

import (
	"sync"
	"time"
)

// leastWait between two looks of a member at the budget: waking costs more than
// a packet, so what is due in a millisecond leaves at once (quic-go's
// minPacingDelay).
const leastWait = time.Millisecond

// A Path is what there is between this gateway and one address of a peer: one
// model, one budget, for all connections over it. It outlives them. It starts
// no goroutine and needs no closing. All methods are safe for concurrent use.
type Path struct {
	mu       sync.Mutex // guards what follows; held for arithmetic only
	now      time.Duration
	shift    time.Duration // from the members' time to ours
	running  bool          // shift is known
	members  map[*Member]struct{}
	inFlight int64 // bytes of packets of all members
	model    model
	fullAt   time.Duration // when the window was last found full
	budget   budget
	paced    int64 // the budget's rate
	large    large
}

// New makes a path. rate is what the line carries, or what we may use of it, in
// bytes per second on the wire; 0 finds it out.
func New(rate int64) *Path {
	return &Path{members: make(map[*Member]struct{}), model: newModel(rate)}
}

// SetRate changes the configured rate at once; 0 goes on by finding it out.
func (p *Path) SetRate(rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.model.setRate(rate)
	if p.running {
		p.setPace(p.now)
	}
}

// Reset forgets what is known of the line: it is another one now, or has been
// away for long.
func (p *Path) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.model = newModel(p.model.rate)
	p.count()
}

// count tells the model how many connections share the pace. The caller holds mu.
func (p *Path) count() {
	p.model.bulks = 0
	for m := range p.members {
		if m.class == Bulk {
			p.model.bulks++
		}
	}
}

// State of a path.
type State struct {
	Rate       int64         // configured, bytes per second on the wire; 0 for none
	Bandwidth  int64         // delivery rate as the model has it, bytes per second on the wire
	Pace       int64         // what may leave now, bytes per second on the wire
	RTT        time.Duration // minimum of late; 0 before the first acknowledgement
	Window     int64         // bytes
	InFlight   int64         // bytes
	Delivered  int64         // bytes on the wire that have been acknowledged, ever
	Lost       int64         // bytes on the wire found lost, ever
	Phase      string        // what the model is doing
	Members    int
	Collapses  int  // how often congestion has made it give way
	Contending bool // others keep a queue full; it takes its share
}

// State tells how the path is.
func (p *Path) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &p.model
	return State{
		Rate: m.rate, Bandwidth: m.bandwidth(), Pace: p.paced, RTT: m.rtt.rtt, Window: m.window(), InFlight: p.inFlight,
		Delivered: m.delivered, Lost: m.lostEver, Phase: m.phase.String(), Members: len(p.members),
		Collapses: m.collapses, Contending: m.rivalUntil > p.now,
	}
}

// time is a member's time as ours, which begins at a second and does not go
// back: members see the clock at slightly different moments.
func (p *Path) time(external time.Duration) time.Duration {
	if !p.running {
		p.running = true
		p.shift = time.Second - external
		p.now = time.Second
		p.setPace(p.now)
	}
	p.now = max(p.now, external+p.shift)
	return p.now
}

func (p *Path) external(t time.Duration) time.Duration { return t - p.shift }

// setPace has the budget follow the model.
func (p *Path) setPace(now time.Duration) {
	p.budget.short = p.model.trimmed > 0
	if r := p.model.pace(); r != p.paced {
		p.paced = r
		p.budget.setRate(now, r)
	}
	p.budget.setBurst(p.model.burst())
}

// charge takes n bytes from the budget. A budget that lay idle tells the model
// that its pace was not used.
func (p *Path) charge(now time.Duration, c Class, n int64) {
	if p.budget.idle(now) && now-p.fullAt > idleFor {
		p.model.limited(p.inFlight)
	}
	p.budget.charge(now, c, n)
}

// chargeAcks takes an acknowledgement of n bytes from the budget. Nobody can
// hold these back, so they count only against a rate that is known, where they
// leave less for the rest.
func (p *Path) chargeAcks(now time.Duration, c Class, n int64) {
	if p.model.rate > 0 {
		p.budget.charge(now, c, n)
	}
}
