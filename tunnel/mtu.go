package tunnel

// headers4 of each datagram below QUIC: IPv4 20 and UDP 8. Links of IPv6 carry
// 20 bytes more in a packet than MTU tells.
const headers4 = 20 + 8

// datagramOverhead is what quic-go's packet and frame add to a datagram (wan-
// transport.md, section 1), with the byte that says its kind.
const datagramOverhead = 37 + 1

// MTU is the largest IP packet, in bytes, that the link uses. largePacket and its
// headers, 1480, are the most that it tries.
func (l *Link) MTU() int { return l.MaxDatagram() + datagramOverhead + headers4 }
