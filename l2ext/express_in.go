package l2ext

import (
	"time"

	"github.com/longhaul-project/longhaul/l2ext/fast"
)

// HandleExpress takes datagrams, each of size bytes but the last, which may be
// shorter, from anybody. It borrows b, and changes it. It returns the site that has
// sealed one of them, "" if none is from a peer. What is wrong with them is
// counted: it costs a look at a table, or one failed opening.
func (m *Manager) HandleExpress(b []byte, size int) (site string) {
	now := time.Now()
	var p *peer // whose rx is held: most batches are of one
	for len(b) > 0 && size > 0 {
		d := b[:min(size, len(b))]
		b = b[len(d):]
		index, err := fast.Index(d)
		k := (*m.keys.Load())[index]
		if err != nil || k == nil {
			m.countExpress("", DropForged, 1)
			continue
		}
		if p != k.peer {
			if p != nil {
				p.rx.Unlock()
			}
			p = k.peer
			p.rx.Lock()
		}
		if m.openExpress(now, k, d) {
			site = p.site
		}
	}
	if p != nil {
		p.rx.Unlock()
	}
	return site
}

// openExpress takes one datagram, and tells whether its key has sealed it. It needs
// the rx of the key's peer.
func (m *Manager) openExpress(now time.Time, k *inKey, d []byte) bool {
	p := k.peer
	last, message, records, err := k.joiner.Open(k.opener, d)
	switch err {
	case nil:
	case fast.ErrReplayed:
		m.countExpress(p.site, DropReplayed, 1)
		return false
	default:
		m.countExpress(p.site, DropForged, 1)
		return false
	}
	p.express.heard.Store(now.UnixNano())
	if message != nil {
		m.takeMessage(now, p, last, message)
	}
	m.takeRecordsOf(now, k, records)
	return true
}

// takeRecordsOf takes what a peer has sealed with a key. It needs the peer's rx.
func (m *Manager) takeRecordsOf(now time.Time, k *inKey, b []byte) {
	p := k.peer
	for len(b) > 0 {
		r, n, err := fast.Parse(b)
		if err != nil {
			m.countExpress(p.site, DropMalformed, 1)
			return
		}
		b = b[n:]
		switch r.Kind {
		case fast.Hello:
			p.express.takeHello(now, r.Heard)
		case fast.Whole:
			m.takeMessage(now, p, r, r.Body)
		case fast.Piece:
			message, err := k.joiner.Add(r)
			if err != nil {
				m.countExpress(p.site, DropMalformed, 1)
			}
			if message != nil {
				m.takeMessage(now, p, r, message)
			}
			if lost := k.joiner.Lost(); lost != k.gaveUp {
				m.countExpress(p.site, DropPart, int(lost-k.gaveUp))
				k.gaveUp = lost
			}
		}
	}
}

// takeHello notes what the peer has heard: more than last time, or with another key.
func (e *express) takeHello(now time.Time, heard uint64) {
	if heard == 0 {
		e.helloNow() // it may have just come
		return
	}
	if e.told.Swap(heard) == heard {
		return
	}
	if before := e.acked.Swap(now.UnixNano()); now.UnixNano()-before > int64(deafAfter) {
		e.helloNow() // it may wait to hear the same
	}
}

// takeMessage takes a frame of a peer. It needs p.rx.
func (m *Manager) takeMessage(now time.Time, p *peer, r fast.Record, message []byte) {
	seg, err := m.origin(p.site, r.VNI, SecureFast)
	if seg == nil {
		m.countExpress(p.site, DropNoSegment, 1)
	}
	if err != nil {
		return
	}
	x, err := parcelOf(message)
	if err != nil {
		seg.counts.add(DropMalformed, 1)
		return
	}
	i := inward{m: m, seg: seg, from: p.site, peer: p, redirected: r.Redirected}
	i.frame(now, x)
}

// countExpress counts what is of no known segment at the first one that the site
// shares, and what is of no known site at the first of all. Strangers decide how often.
func (m *Manager) countExpress(site string, c Count, n int) {
	if seg := (*m.first.Load())[site]; seg != nil {
		seg.counts.add(c, n)
	}
}
