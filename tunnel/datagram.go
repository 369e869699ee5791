package tunnel

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// ringLen bounds datagrams that wait: 512 full packets are 60 ms at 100 Mbit/s;
// what is older is of no use to a guest's TCP.
const ringLen = 512

// safeDatagram is what any connection can carry: packets of smallPacket less
// quic-go's overhead of 37 (wan-transport.md, section 1).
const safeDatagram = smallPacket - 37

// A datagramRing is datagrams that wait, oldest first. Link.mu guards it.
type datagramRing struct {
	items   [][]byte
	changed broadcast
}

// push adds b and drops the oldest when the ring is full.
func (r *datagramRing) push(b []byte) (dropped bool) {
	if len(r.items) >= ringLen {
		copy(r.items, r.items[1:])
		r.items = r.items[:len(r.items)-1]
		dropped = true
	}
	r.items = append(r.items, b)
	r.changed.fire()
	return dropped
}

// SendDatagram sends b, which it copies, once and without any promise. It does
// not wait: when datagrams come faster than the line takes them, the oldest
// are dropped and counted. ErrDown: the link is not up. ErrTooLarge: b does not
// fit into a packet, see MaxDatagram.
func (l *Link) SendDatagram(kind byte, b []byte) error {
	if len(b) > largePacket {
		return fmt.Errorf("datagram of %d bytes: %w", len(b), ErrTooLarge)
	}
	d := append(append(make([]byte, 0, 1+len(b)), kind), b...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.state.up {
		return ErrDown
	}
	if l.out.push(d) {
		l.drops.SendQueue++
	}
	return nil
}

// MaxDatagram is the longest datagram that the connection in use can carry; while
// the link is down, what any will be able to carry.
func (l *Link) MaxDatagram() int {
	l.mu.Lock()
	c := l.datagramConn()
	l.mu.Unlock()
	if c != nil {
		// quic-go tells the limit only by refusing what exceeds it; the
		// refusal has no other effect.
		err := c.conn.SendDatagram(make([]byte, largePacket))
		if e, ok := errors.AsType[*quic.DatagramTooLargeError](err); ok {
			return int(e.MaxDatagramPayloadSize) - 1
		}
	}
	return safeDatagram - 1
}

// datagramConn is the connection for datagrams, or while there is none the one
// for priority. The caller holds mu.
func (l *Link) datagramConn() *carrier {
	if l.set == nil || !l.set.ready {
		return nil
	}
	for c := range l.set.others {
		if c.role == frame.Datagrams {
			return c
		}
	}
	return l.set.priority
}

// pull waits for the first datagram of a ring.
func (l *Link) pull(ctx context.Context, r *datagramRing) ([]byte, *carrier) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(r.items) == 0 {
		changed := r.changed.next()
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
		l.mu.Lock()
		if ctx.Err() != nil {
			return nil, nil
		}
	}
	b := r.items[0]
	r.items[0] = nil
	r.items = r.items[1:]
	return b, l.datagramConn()
}

// sendDatagrams empties the ring towards the peer. quic-go blocks it when its
// own queue of 32 is full.
func (l *Link) sendDatagrams(ctx context.Context) {
	for {
		b, c := l.pull(ctx, &l.out)
		if b == nil {
			return
		}
		if c == nil || c.conn.SendDatagram(b) != nil {
			l.mu.Lock()
			l.drops.Unsendable++
			l.mu.Unlock()
		}
	}
}

// giveDatagrams empties the ring towards the application.
func (l *Link) giveDatagrams(ctx context.Context) {
	give := l.node.cfg.OnDatagram
	if give == nil {
		return
	}
	for {
		b, _ := l.pull(ctx, &l.in)
		if b == nil {
			return
		}
		give(l.site, b[0], b[1:])
	}
}

// receiveDatagrams does nothing but move them: quic-go drops what is not
// fetched at once, beyond 128.
func (c *carrier) receiveDatagrams(ctx context.Context) {
	l := c.link
	for counted := int64(0); ; {
		b, err := c.conn.ReceiveDatagram(ctx)
		l.mu.Lock()
		counted = c.muxDrops(counted)
		l.mu.Unlock()
		if err != nil {
			return
		}
		if len(b) == 0 || l.node.cfg.OnDatagram == nil {
			continue
		}
		l.mu.Lock()
		if l.in.push(b) {
			l.drops.ReceiveQueue++
		}
		l.mu.Unlock()
	}
}

// runDatagrams serves both rings until ctx ends.
func (l *Link) runDatagrams(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { l.sendDatagrams(ctx) })
	wg.Go(func() { l.giveDatagrams(ctx) })
	wg.Wait()
}
