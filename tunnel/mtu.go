package tunnel

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// headers4 of each datagram below QUIC: IPv4 20 and UDP 8. Links of IPv6 carry
// 20 bytes more in a packet than MTU tells.
const headers4 = 20 + 8

// datagramOverhead is what quic-go's packet and frame add to a datagram (wan-
// transport.md, section 1), with the byte that says its kind.
const datagramOverhead = 37 + 1

// MTU is the largest IP packet, in bytes, that the link uses. largePacket and its
// headers, 1480, are the most that it tries.
func (l *Link) MTU() int { return l.MaxDatagram() + datagramOverhead + headers4 }

// discoverySlack is by how much quic-go's discovery of the path's MTU, a binary search,
// may miss what passes (maxMTUDiff, v0.65.0).
const discoverySlack = 20

// errLarger is the end of a connection whose place one with larger packets has taken.
var errLarger = errors.New("replaced by a connection with larger packets")

// tryLarge looks whether packets of largePacket pass again where they did not smallFor ago.
// The discovery of the path's MTU ends when it has found what passes, and quic-go has no
// way to begin it anew; so a connection whose packets stayed smaller gets a successor,
// which begins with large ones: one at a time, and none when the first cannot be made.
func (l *Link) tryLarge(ctx context.Context, wg *sync.WaitGroup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, now := l.set, time.Now()
	if s == nil || !s.ready || !s.dialed || s.via != QUIC || l.node.stock != nil || l.closed {
		return
	}
	for _, p := range l.paths {
		if p.small.IsZero() || now.Before(p.small) || s.first(p) == nil || p.extra[frame.Bulk]+p.extra[frame.Datagrams] > 0 {
			continue
		}
		c := s.smallOn(p)
		if c == nil {
			p.small = time.Time{} // the discovery has found what there is to find
			continue
		}
		p.extra[c.role]++
		d := dialing{path: p, role: c.role, set: s.id, addr: c.conn.RemoteAddr().String(), via: QUIC, instead: c}
		wg.Go(func() { l.dialOther(ctx, d, s) })
	}
}

// smallOn is a connection over p whose packets are not large, one for bulk if there is any;
// nil if there is none. The caller holds Link.mu.
func (s *set) smallOn(p *path) (small *carrier) {
	for c := range s.others {
		if c.path == p && !c.ended && c.packet() < largePacket-discoverySlack && (small == nil || c.role == frame.Bulk) {
			small = c
		}
	}
	return small
}

// packet is the size of the largest packets that the connection sends now, in bytes of UDP
// payload; largePacket if it does not tell.
func (c *carrier) packet() int { return packetOf(c.conn) }

func packetOf(c conn) int {
	// As MaxDatagram does it.
	err := c.SendDatagram(make([]byte, largePacket))
	if e, ok := errors.AsType[*quic.DatagramTooLargeError](err); ok {
		return int(e.MaxDatagramPayloadSize) + datagramOverhead - 1
	}
	return largePacket
}
