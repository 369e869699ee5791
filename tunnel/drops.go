package tunnel

// Drops is what was lost at this end and not on the line, since the link was
// made. Nothing else of a link is dropped but in quic-go's own queue of 128
// received datagrams, which it does not count and our reader empties at once.
type Drops struct {
	// SendQueue is datagrams that were the oldest when the queue towards the peer
	// was full, ReceiveQueue those when the queue towards the application was.
	SendQueue, ReceiveQueue int64
	// Unsendable is datagrams for which there was no connection, or that did not
	// fit into its packets.
	Unsendable int64
	// Socket is packets that came and found the buffer of a socket full with which
	// we dialed; for the listening one see Node.Drops.
	Socket int64
	// Busy is reads that found a connection too busy for too long: of their packets
	// quic-go has dropped what it had no room for.
	Busy int64
}

// Datagrams is all datagrams of them.
func (d Drops) Datagrams() int64 { return d.SendQueue + d.ReceiveQueue + d.Unsendable }

// NodeDrops is what a gateway has lost or refused at its listening port.
type NodeDrops struct {
	// Socket is packets of any link, or of strangers, that found the buffer of the
	// listening socket full.
	Socket int64
	// Refused is connections that were beyond the bounds for strangers.
	Refused int64
}

// Drops of the listening port.
func (n *Node) Drops() NodeDrops {
	return NodeDrops{Socket: int64(n.dropped.Load()), Refused: n.refused.Load()}
}

// dropped tells what the link has lost. The caller holds mu.
func (l *Link) dropped() Drops {
	d := l.drops
	for c := range l.wire {
		d.Socket += int64(l.wire[c].dropped.Load())
		d.Busy += int64(l.wire[c].pressed.Load())
	}
	return d
}

// muxDrops adds what a connection of TCP has dropped of the datagrams that it
// received, beyond what was counted before. The caller holds link.mu.
func (c *carrier) muxDrops(counted int64) int64 {
	t, ok := c.conn.(*tcpConn)
	if !ok {
		return counted
	}
	now := t.Dropped()
	c.link.drops.ReceiveQueue += now - counted
	return now
}
