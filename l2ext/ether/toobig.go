package ether

import (
	"encoding/binary"
	"net/netip"
)

const (
	icmpUnreachable = 3   // and below: errors, that nobody answers with an error
	icmpFragNeeded  = 4   // code: fragmentation needed and DF set (RFC 1191, section 4)
	icmp6TooBig     = 2   // RFC 4443, section 3.2
	icmp6Info       = 128 // ICMPv6 types below it are errors
	quoteIPv4       = 576 // bytes of IP that an ICMP error may have (RFC 1812, section 4.3.2.3)
	quoteIPv6       = 1280
	icmpLen         = 8
	flagDF          = 0x4000
)

// TooBig tells whether a frame carries an IP packet longer than mtu bytes that
// nobody on the way may fragment, and whose sender may be told so.
func TooBig(h Header, frame []byte, mtu int) bool {
	if len(frame)-h.Payload <= mtu || h.Dst.Group() {
		return false
	}
	u, ok := upperOf(h, frame)
	if !ok || u.group {
		return false
	}
	b := frame[h.Payload:]
	if h.Type == TypeIPv6 {
		isError := u.proto == protoICMPv6 && (len(u.body) == 0 || u.body[0] < icmp6Info)
		return int(binary.BigEndian.Uint16(b[4:]))+ipv6Len > mtu && usable(netip.AddrFrom16([16]byte(b[8:24]))) && !isError
	}
	isError := u.proto == protoICMP && (len(u.body) == 0 || !icmpAsks(u.body[0]))
	df := binary.BigEndian.Uint16(b[6:])&flagDF != 0
	return df && u.body != nil && int(binary.BigEndian.Uint16(b[2:])) > mtu && usable(netip.AddrFrom4([4]byte(b[12:16]))) && !isError
}

// icmpAsks tells the types of ICMP that are questions or answers, not errors
// (RFC 1122, section 3.2.2).
func icmpAsks(kind byte) bool {
	switch kind {
	case 0, 8, 13, 14, 17, 18:
		return true
	}
	return false
}

// AppendTooBig appends to b the frame that tells the sender of frame, for which
// TooBig has answered true, that its packets must not be longer than mtu bytes.
// It comes, as from Linux' own VXLAN devices, from the address to which the
// packet was sent (net/ipv4/ip_tunnel_core.c, iptunnel_pmtud_build_icmp).
func AppendTooBig(b []byte, h Header, frame []byte, mtu int) []byte {
	b = append(append(b, h.Src[:]...), h.Dst[:]...)
	b = append(b, frame[12:h.Payload]...) // a VLAN tag stays
	if h.Type == TypeIPv6 {
		return appendTooBig6(b, frame[h.Payload:], mtu)
	}
	return appendTooBig4(b, frame[h.Payload:], mtu)
}

func appendTooBig4(b, packet []byte, mtu int) []byte {
	quote := packet[:min(len(packet), quoteIPv4-20-icmpLen)]
	start := len(b)
	b = append(b, 0x45, 0xc0) // precedence: internetwork control (RFC 1812, section 4.3.2.5)
	b = binary.BigEndian.AppendUint16(b, uint16(20+icmpLen+len(quote)))
	b = append(b, 0, 0, flagDF>>8, 0, 64, protoICMP, 0, 0)
	b = append(append(b, packet[16:20]...), packet[12:16]...)
	binary.BigEndian.PutUint16(b[start+10:], ^uint16(checksum(0, b[start:])))
	icmp := len(b)
	b = append(b, icmpUnreachable, icmpFragNeeded, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(mtu))
	b = append(b, quote...)
	binary.BigEndian.PutUint16(b[icmp+2:], ^uint16(checksumAny(0, b[icmp:])))
	return b
}

func appendTooBig6(b, packet []byte, mtu int) []byte {
	quote := packet[:min(len(packet), quoteIPv6-ipv6Len-icmpLen)]
	start, length := len(b), icmpLen+len(quote)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, protoICMPv6, 255)
	b = append(append(b, packet[24:40]...), packet[8:24]...)
	icmp := len(b)
	b = append(b, icmp6TooBig, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(mtu))
	b = append(b, quote...)
	sum := checksum(0, b[start+8:icmp]) // pseudo header (RFC 8200, section 8.1)
	sum = checksum(sum, []byte{0, 0, byte(length >> 8), byte(length), 0, 0, 0, protoICMPv6})
	binary.BigEndian.PutUint16(b[icmp+2:], ^uint16(checksumAny(sum, b[icmp:])))
	return b
}

// checksumAny is checksum for any length.
func checksumAny(sum uint32, b []byte) uint32 {
	if len(b)%2 == 0 {
		return checksum(sum, b)
	}
	sum = checksum(sum, b[:len(b)-1])
	return checksum(sum, []byte{b[len(b)-1], 0})
}
