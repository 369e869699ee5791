package ether

import (
	"encoding/binary"
	"net/netip"
)

// About tells of which addresses an ARP or neighbour discovery frame speaks: the
// one that its sender claims, and the one that it asks for or tells. One that
// there is not is invalid. Extension headers hide nothing: hosts look behind them, too.
func About(h Header, frame []byte) (sender, target netip.Addr) {
	body := frame[min(h.Payload, len(frame)):]
	if h.Type == TypeARP && len(body) >= arpLen {
		return netip.AddrFrom4([4]byte(body[14:18])), netip.AddrFrom4([4]byte(body[24:28]))
	}
	u, ok := upperOf(h, frame)
	if !ok || h.Type != TypeIPv6 || u.proto != protoICMPv6 || len(u.body) < ndLen || int(binary.BigEndian.Uint16(body[4:])) < ndLen {
		return sender, target
	}
	if u.body[0] == ndSolicit || u.body[0] == ndAdvert {
		sender, target = netip.AddrFrom16([16]byte(body[8:24])), netip.AddrFrom16([16]byte(u.body[8:24]))
	}
	return sender, target
}
