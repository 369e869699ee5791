package ether

import "encoding/binary"

// upper is what an IP packet carries, as far as a filter looks at it.
type upper struct {
	proto byte
	body  []byte // after all headers of IP; may be cut, and is nil in a later fragment
	group bool   // sent to a multicast or broadcast address of IP
	hops  byte   // TTL or hop limit
}

const (
	protoICMP    = 1
	protoIGMP    = 2
	protoVRRP    = 112 // CARP uses the same number (net/netinet/ip_carp.h in OpenBSD)
	extHop       = 0
	extRouting   = 43
	extFragment  = 44
	extDest      = 60
	noNext       = 59
	maxExtension = 8 // extension headers that are walked; more is nobody's honest packet
)

// upperOf reads an IP packet inside a frame; ok is false if there is none.
func upperOf(h Header, frame []byte) (u upper, ok bool) {
	if len(frame) < h.Payload {
		return u, false
	}
	switch b := frame[h.Payload:]; h.Type {
	case TypeIPv4:
		return upperIPv4(b)
	case TypeIPv6:
		return upperIPv6(b)
	}
	return u, false
}

func upperIPv4(b []byte) (u upper, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return u, false
	}
	n := int(b[0]&0xf) * 4
	if n < 20 || n > len(b) {
		return u, false
	}
	u = upper{proto: b[9], hops: b[8], group: b[16] >= 224}
	if binary.BigEndian.Uint16(b[6:])&0x1fff == 0 {
		u.body = b[n:]
	}
	return u, true
}

// upperIPv6 walks the extension headers (RFC 8200, section 4.1): a filter that
// looks only at the first is walked around (RFC 7113).
func upperIPv6(b []byte) (u upper, ok bool) {
	if len(b) < ipv6Len || b[0]>>4 != 6 {
		return u, false
	}
	u = upper{proto: b[6], hops: b[7], group: b[24] == 0xff}
	b = b[ipv6Len:]
	for range maxExtension {
		n := 0
		switch u.proto {
		case extHop, extRouting, extDest:
			if len(b) < 8 {
				return u, true
			}
			n = int(b[1])*8 + 8
		case extFragment:
			if len(b) < 8 {
				return u, true
			}
			if binary.BigEndian.Uint16(b[2:])&0xfff8 != 0 {
				u.proto = b[0]
				return u, true
			}
			n = 8
		default:
			u.body = b
			return u, true
		}
		u.proto = b[0]
		b = b[min(n, len(b)):]
	}
	return u, true
}

// port is the destination port of a UDP packet, 0 if it cannot be read.
func (u upper) port() uint16 {
	if u.proto != protoUDP || len(u.body) < 8 {
		return 0
	}
	return binary.BigEndian.Uint16(u.body[2:])
}
