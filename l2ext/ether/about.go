package ether

import (
	"encoding/binary"
	"net/netip"
)

// About tells of which addresses an ARP or neighbour discovery frame speaks: the
// one that its sender claims, and the one that it asks for or tells. One that
// there is not is invalid.
func About(h Header, frame []byte) (sender, target netip.Addr) {
	body := frame[min(h.Payload, len(frame)):]
	switch {
	case h.Type == TypeARP && len(body) >= arpLen:
		return netip.AddrFrom4([4]byte(body[14:18])), netip.AddrFrom4([4]byte(body[24:28]))
	case h.Type == TypeIPv6 && len(body) >= ipv6Len+ndLen && body[6] == protoICMPv6:
		icmp := body[ipv6Len:]
		if icmp[0] != ndSolicit && icmp[0] != ndAdvert {
			break
		}
		if n := int(binary.BigEndian.Uint16(body[4:])); n < ndLen {
			break
		}
		sender, target = netip.AddrFrom16([16]byte(body[8:24])), netip.AddrFrom16([16]byte(icmp[8:24]))
	}
	return sender, target
}
