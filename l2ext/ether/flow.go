package ether

import "encoding/binary"

// Flow is the TCP connection, one way, to which a frame belongs.
type Flow struct {
	key  [36]byte // addresses and ports as they stand in the packet
	n    int      // bytes of key that are used
	Open bool     // the frame is a SYN
}

// Key tells flows apart. It borrows f.
func (f *Flow) Key() []byte { return f.key[:f.n] }

// fragmented are the bits that a fragment has: more fragments, and its offset
// (RFC 791, section 3.1).
const fragmented = 0x3fff

// FlowOf reads the TCP connection of a frame. ok is false for all other frames,
// for fragments, and behind IPv6 extension headers, which TCP does not have in
// practice.
func FlowOf(h Header, frame []byte) (f Flow, ok bool) {
	if len(frame) < h.Payload {
		return f, false
	}
	b := frame[h.Payload:]
	var addrs, tcp []byte
	switch {
	case h.Type == TypeIPv4 && len(b) >= 20 && binary.BigEndian.Uint16(b[6:])&fragmented == 0:
		addrs, tcp = b[12:20], tcpOverIPv4(b)
	case h.Type == TypeIPv6 && len(b) >= ipv6Len && b[6] == protoTCP:
		addrs, tcp = b[8:ipv6Len], tcpOverIPv6(b)
	}
	if len(tcp) < tcpLen {
		return f, false
	}
	f.n = copy(f.key[:], addrs)
	f.n += copy(f.key[f.n:], tcp[:4])
	f.Open = tcp[13]&flagSYN != 0
	return f, true
}
