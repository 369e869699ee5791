package tunnel

import "time"

// Over TCP what a path's life is judged by is what the kernel hears. The acknowledgements of
// segments tell within a round trip that the peer's kernel is there, whatever is lost or waits
// in a queue; the pongs of package mux stand behind all that their connection has to carry, so
// those may be late on a line that is well, and their absence counts only after mux.IdleTimeout.
// It is by them that a peer whose process hangs is noticed.

// hearing is what the kernel knows of the other end of a connection.
type hearing struct {
	silent  time.Duration // since a segment came
	waiting bool          // what was sent is not acknowledged
	rtt     time.Duration // smoothed
}

// manyBytes in the time between two looks are a transfer, and not only pings and their
// answers: those of ten connections at once are half of it.
const manyBytes = 4 << 10

// hearTCP tells a path's life what the kernel has heard over its connections, and returns it:
// the round trip is the longest, since one that carries bulk knows best how long the queue is.
// told is false where no kernel tells. The caller holds mu.
func (l *Link) hearTCP(p *path, now time.Duration) (best hearing, told bool) {
	best.silent = now
	for _, c := range l.set.all() {
		t, ok := c.conn.(*tcpConn)
		if !ok || c.path != p || c.ended {
			continue
		}
		if h, ok := kernelHears(t.tcp.Conn); ok {
			told = true
			best.silent, best.rtt = min(best.silent, h.silent), max(best.rtt, h.rtt)
			best.waiting = best.waiting || h.waiting
		}
	}
	received := p.wire.received.Load()
	busy := received-p.looked >= manyBytes
	p.looked = received
	if told {
		p.life.overTCP(now, best, busy)
	}
	return best, told
}

// kernelTick is by how much the kernel's times are off: it counts jiffies, of which there are
// 100 a second or more. The same segment must not be heard twice.
const kernelTick = 10 * time.Millisecond

// overTCP takes in what has been heard over a path. busy: much has come since the last look,
// and the kernel has acknowledged it; so this end, too, which sends nothing itself, asks soon
// why no more comes.
func (l *life) overTCP(now time.Duration, h hearing, busy bool) {
	if at := now - h.silent; at > time.Duration(l.heard.Load())+kernelTick {
		l.came(at)
	}
	if h.waiting || busy {
		l.left(now)
	}
}
