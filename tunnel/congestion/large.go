package congestion

// SmallPacket is the UDP payload that passes where the MTU is 1280, the least of IPv6 and of
// many tunnels: less 40 and 8 of headers, in bytes.
const SmallPacket = 1280 - 40 - 8

// sizeSlack: packets whose sizes differ by less pass or do not pass together. What fills a
// packet leaves a few bytes.
const sizeSlack = 32

// byChance packets, less one, may be lost whatever their size.
const byChance = 3

// large counts packets that are larger than SmallPacket, to see whether they vanish. The
// path's mutex guards it.
type large struct {
	top    int64 // the largest size that has left since one about as large was acknowledged
	left   int64 // packets of about that size that have left since then
	passed int64 // the largest size of others that was acknowledged since then
	came   int64 // packets of these sizes that were acknowledged since then
	gone   int64 // and that were lost
	epoch  int64 // goes on when one is acknowledged, and when what is under way may never be
}

// sent notes a packet of a size with which its connection was made, or that was acknowledged
// before.
func (l *large) sent(size int64) {
	switch {
	case size <= max(SmallPacket, l.top-sizeSlack):
	case size > l.top+sizeSlack:
		l.top, l.left = size, 1
	default:
		l.top = max(l.top, size)
		l.left++
	}
}

func (l *large) acked(size int64) {
	if size > max(SmallPacket, l.top-sizeSlack) {
		l.forget()
		return
	}
	l.passed = max(l.passed, size)
	l.came++
}

// lost notes the loss of a packet. Where an eighth of those is lost that are of sizes which
// pass, it is not the size alone: a short queue has room for small ones more often.
func (l *large) lost(size int64) {
	if size > l.passed {
		return
	}
	if l.gone++; l.gone >= byChance && 8*l.gone > l.came {
		l.forget()
	}
}

func (l *large) forget() { *l = large{epoch: l.epoch + 1} }

// Unheard is how many large packets have left since one as large was acknowledged last. It
// counts within an epoch, which ends when one is.
func (p *Path) Unheard() (packets, epoch int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.large.left, p.large.epoch
}
