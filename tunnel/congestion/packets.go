package congestion

import "time"

// sentPacket is what is remembered of a packet until it is acknowledged or lost.
// What it calls "then" is when it was sent.
type sentPacket struct {
	number      int64
	size        int64         // bytes on the wire
	at          time.Duration // when it was sent
	delivered   int64         // the path's delivered count then
	deliveredAt time.Duration // and when that was counted
	firstSent   time.Duration // when the packet was sent that was acknowledged last then
	limited     bool          // the sender had too little to send then
	live        bool          // the slot is in use
}

// packets are those of one connection that are under way, in a ring by packet
// number. quic-go tracks no more than 25000 of a connection.
type packets struct{ ring []sentPacket }

const (
	firstRing = 256
	maxRing   = 1 << 15
)

// add makes room for a packet. What it displaces when the ring has its largest
// size was never told to be lost: probes for the MTU are not.
func (p *packets) add(number int64) *sentPacket {
	if len(p.ring) == 0 {
		p.ring = make([]sentPacket, firstRing)
	}
	for {
		s := &p.ring[number&int64(len(p.ring)-1)]
		if !s.live || len(p.ring) >= maxRing {
			*s = sentPacket{number: number, live: true}
			return s
		}
		p.grow()
	}
}

func (p *packets) grow() {
	old := p.ring
	p.ring = make([]sentPacket, 2*len(old))
	for _, s := range old {
		if s.live {
			p.ring[s.number&int64(len(p.ring)-1)] = s
		}
	}
}

// take gives out a packet and forgets it; false: it is not known.
func (p *packets) take(number int64) (sentPacket, bool) {
	if len(p.ring) == 0 || number < 0 {
		return sentPacket{}, false
	}
	s := &p.ring[number&int64(len(p.ring)-1)]
	if !s.live || s.number != number {
		return sentPacket{}, false
	}
	s.live = false
	return *s, true
}

func (p *packets) clear() { p.ring = nil }
