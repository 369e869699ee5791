package tunnel

// A channel may send baseWindow until it has heard what the peer is ready to hold, a
// round trip after it was opened. On a long line that is the first round trip of a
// move, in which hardly anything crosses. So each end tells the other, with each set,
// what all channels that the other opens may send beyond that in advance: a
// channel that has just been opened takes half of what the others before it have left.

// mostAdvance is in bytes. Half of it is 1 Gbit/s for 134 ms.
const mostAdvance = 32 << 20

// advance is what the peer of a gateway with so much memory for messages may send in
// advance.
func (c Config) advance() int64 { return min(mostAdvance, c.Memory/8) }

// takeAdvance widens the window of a channel that we have opened. The caller holds mu.
func (l *Link) takeAdvance(ch *Channel) {
	if l.set == nil || ch.class == Urgent {
		return
	}
	ch.advance = max(l.set.advance-l.advanced, 0) / 2
	l.advanced += ch.advance
	ch.out.granted += ch.advance
}

// returnAdvance: the peer has told the channel its window and holds no more for it than
// that, or the channel has ended. The caller holds mu.
func (l *Link) returnAdvance(ch *Channel) {
	l.advanced -= ch.advance
	ch.advance = 0
}
