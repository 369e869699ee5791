package wanem

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Flow names what a packet belongs to: protocol, addresses and ports. Not an
// IP packet: only EtherType is set. Fragments after the first have no ports.
type Flow struct {
	EtherType uint16     `json:"ethertype"`
	Proto     uint8      `json:"proto"` // IP protocol number: 1 ICMP, 6 TCP, 17 UDP
	Src       netip.Addr `json:"src"`
	Dst       netip.Addr `json:"dst"`
	SrcPort   uint16     `json:"src_port"`
	DstPort   uint16     `json:"dst_port"`
}

// IP protocol numbers that flows of a lab have (IANA).
const (
	ICMP = 1
	TCP  = 6
	UDP  = 17
)

// Between tells whether f is of the given protocol and has port at either end.
func (f Flow) Between(proto uint8, port uint16) bool {
	return f.Proto == proto && (f.SrcPort == port || f.DstPort == port)
}

func (f Flow) String() string {
	if !f.Src.IsValid() {
		return fmt.Sprintf("ethertype 0x%04x", f.EtherType)
	}
	return fmt.Sprintf("proto %d %v -> %v", f.Proto, netip.AddrPortFrom(f.Src, f.SrcPort), netip.AddrPortFrom(f.Dst, f.DstPort))
}

const (
	etherLen  = 14
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

// flowOf reads the flow of an Ethernet frame. It takes any bytes.
func flowOf(frame []byte) Flow {
	if len(frame) < etherLen {
		return Flow{}
	}
	f := Flow{EtherType: binary.BigEndian.Uint16(frame[12:])}
	ip := frame[etherLen:]
	switch {
	case f.EtherType == etherIPv4 && len(ip) >= 20:
		f.Proto = ip[9]
		f.Src = netip.AddrFrom4([4]byte(ip[12:16]))
		f.Dst = netip.AddrFrom4([4]byte(ip[16:20]))
		if binary.BigEndian.Uint16(ip[6:])&0x1fff == 0 { // fragment offset, RFC 791 section 3.1
			f.ports(ip, int(ip[0]&0xf)*4)
		}
	case f.EtherType == etherIPv6 && len(ip) >= 40:
		f.Proto = ip[6] // extension headers stay what they are
		f.Src = netip.AddrFrom16([16]byte(ip[8:24]))
		f.Dst = netip.AddrFrom16([16]byte(ip[24:40]))
		f.ports(ip, 40)
	}
	return f
}

func (f *Flow) ports(ip []byte, at int) {
	if (f.Proto == TCP || f.Proto == UDP) && len(ip) >= at+4 {
		f.SrcPort = binary.BigEndian.Uint16(ip[at:])
		f.DstPort = binary.BigEndian.Uint16(ip[at+2:])
	}
}
