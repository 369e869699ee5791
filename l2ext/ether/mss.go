package ether

import "encoding/binary"

const (
	protoTCP = 6
	tcpLen   = 20
	flagSYN  = 0x02
	optEnd   = 0
	optNop   = 1
	optMSS   = 2
	minMSS   = 216 // below this a clamp would do more harm than fragments: 256 bytes of IP, as Linux' min MSS for PMTU
)

// ClampMSS lowers the segment size that a TCP SYN in the frame offers, in
// place, so that full segments of the connection make frames of at most max
// bytes. It tells whether it has changed the frame. A SYN without the option
// means 536 bytes (RFC 9293, section 3.7.1) and needs no clamp.
func ClampMSS(h Header, frame []byte, max int) bool {
	if !IsSYN(h, frame) {
		return false
	}
	tcp, room := tcpOf(h, frame), max-h.Payload-20 // for TCP's header and payload, in frames of max bytes
	if h.Type == TypeIPv6 {
		room = max - h.Payload - ipv6Len
	}
	mss := room - tcpLen
	end := int(tcp[12]>>4) * 4
	if mss < minMSS || end < tcpLen || end > len(tcp) {
		return false
	}
	return lower(tcp, end, uint16(min(mss, 1<<16-1)))
}

// IsSYN tells whether a frame opens a TCP connection.
func IsSYN(h Header, frame []byte) bool {
	tcp := tcpOf(h, frame)
	return len(tcp) >= tcpLen && tcp[13]&flagSYN != 0
}

// tcpOf is the TCP header in a frame, with what follows; nil if there is none.
func tcpOf(h Header, frame []byte) []byte {
	if len(frame) < h.Payload {
		return nil
	}
	switch h.Type {
	case TypeIPv4:
		return tcpOverIPv4(frame[h.Payload:])
	case TypeIPv6:
		return tcpOverIPv6(frame[h.Payload:])
	}
	return nil
}

// lower rewrites the option in the TCP header that is tcp[:end].
func lower(tcp []byte, end int, mss uint16) bool {
	for i := tcpLen; i < end && tcp[i] != optEnd; {
		if tcp[i] == optNop {
			i++
			continue
		}
		if i+1 >= end || tcp[i+1] < 2 || i+int(tcp[i+1]) > end {
			return false
		}
		if tcp[i] == optMSS && tcp[i+1] == 4 {
			old := binary.BigEndian.Uint16(tcp[i+2:])
			if old <= mss {
				return false
			}
			binary.BigEndian.PutUint16(tcp[i+2:], mss)
			fixChecksum(tcp, old, mss, i%2 != 0)
			return true
		}
		i += int(tcp[i+1])
	}
	return false
}

// fixChecksum updates TCP's checksum for one changed number (RFC 1624, eqn. 3).
// A number at an odd offset counts with its bytes swapped.
func fixChecksum(tcp []byte, old, new uint16, odd bool) {
	if odd {
		old, new = old<<8|old>>8, new<<8|new>>8
	}
	sum := uint32(^binary.BigEndian.Uint16(tcp[16:])) + uint32(^old) + uint32(new)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
}

func tcpOverIPv4(b []byte) []byte {
	if len(b) < 20 || b[0]>>4 != 4 || b[9] != protoTCP {
		return nil
	}
	if binary.BigEndian.Uint16(b[6:])&0x1fff != 0 { // not the first fragment
		return nil
	}
	n := int(b[0]&0xf) * 4
	if n < 20 || n > len(b) {
		return nil
	}
	return b[n:]
}

// maxExtensions bounds the walk over extension headers; a SYN with more is
// left as it is.
const maxExtensions = 8

func tcpOverIPv6(b []byte) []byte {
	if len(b) < ipv6Len || b[0]>>4 != 6 {
		return nil
	}
	next := b[6]
	b = b[ipv6Len:]
	for range maxExtensions {
		switch next {
		case protoTCP:
			return b
		case 0, 43, 60: // hop-by-hop, routing, destination options (RFC 8200)
			if len(b) < 8 || len(b) < int(b[1])*8+8 {
				return nil
			}
			next, b = b[0], b[int(b[1])*8+8:]
		default:
			return nil
		}
	}
	return nil
}
