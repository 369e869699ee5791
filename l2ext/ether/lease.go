package ether

import (
	"encoding/binary"
	"net/netip"
)

// PortDHCPServer is the UDP port of DHCP servers.
const PortDHCPServer = 67

const (
	dhcpLen     = 240 // fixed part with the cookie (RFC 2131, section 2)
	dhcpReply   = 2
	dhcpCookie  = 0x63825363
	dhcpMessage = 53 // RFC 2132, section 9.6
	dhcpPad     = 0
	dhcpEnd     = 255
	dhcpAck     = 5
	portClient  = 68
	protoUDP    = 17
	ipv4Len     = 20
	maxDHCPOpts = 64 // options looked at: the message type is among the first
)

// Lease reads the acknowledgement by which a DHCP server gives a host an
// address; ok is false if the frame is none.
func Lease(h Header, frame []byte) (mac MAC, ip netip.Addr, ok bool) {
	if h.Type != TypeIPv4 || h.Payload != HeaderLen || len(frame) < HeaderLen+ipv4Len {
		return mac, ip, false
	}
	b := frame[HeaderLen:]
	head := int(b[0]&0xf) * 4
	if b[0]>>4 != 4 || head < ipv4Len || b[9] != protoUDP || len(b) < head+8+dhcpLen || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return mac, ip, false
	}
	udp := b[head:]
	if binary.BigEndian.Uint16(udp) != PortDHCPServer || binary.BigEndian.Uint16(udp[2:]) != portClient {
		return mac, ip, false
	}
	d := udp[8:]
	if d[0] != dhcpReply || d[1] != 1 || d[2] != 6 || binary.BigEndian.Uint32(d[236:]) != dhcpCookie || !isAck(d[dhcpLen:]) {
		return mac, ip, false
	}
	mac, ip = MAC(d[28:34]), netip.AddrFrom4([4]byte(d[16:20]))
	return mac, ip, mac.Host() && usable(ip)
}

// isAck looks for the message type among DHCP options.
func isAck(b []byte) bool {
	for range maxDHCPOpts {
		switch {
		case len(b) > 0 && b[0] == dhcpPad:
			b = b[1:]
		case len(b) < 3 || b[0] == dhcpEnd:
			return false
		case b[0] == dhcpMessage:
			return b[1] == 1 && b[2] == dhcpAck
		default:
			b = b[min(2+int(b[1]), len(b)):]
		}
	}
	return false
}
