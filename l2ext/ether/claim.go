package ether

import (
	"bytes"
	"encoding/binary"
	"net/netip"
)

const (
	ipv6Len     = 40
	protoICMPv6 = 58
	ndSolicit   = 135
	ndAdvert    = 136
	ndLen       = 24 // ICMPv6 header and target (RFC 4861, section 4.3)
	optSource   = 1  // source link-layer address
	optTarget   = 2  // target link-layer address
	override    = 0x20
	solicited   = 0x40
	router      = 0x80
	arpLen      = 28
	opReply     = 2
	opReverse   = 3 // RARP request: what QEMU announces a NIC with (net/announce.c)
)

// arpHead: Ethernet, IPv4, lengths 6 and 4 (RFC 826).
var arpHead = []byte{0, 1, 8, 0, 6, 4}

// Claim is what a frame tells of the host that sent it.
type Claim struct {
	IP        netip.Addr // invalid if it tells only that the MAC is here
	Announced bool       // the host announces itself: it may have just moved
	Router    bool       // it says that it is an IPv6 router
}

// Snoop reads what an ARP, RARP or neighbour discovery frame tells of its
// source MAC; ok is false, and c is zero, if nothing, or if it speaks for
// another MAC than its own.
func Snoop(h Header, frame []byte) (c Claim, ok bool) {
	body := frame[min(h.Payload, len(frame)):]
	switch h.Type {
	case TypeRARP:
		c, ok = Claim{Announced: true}, len(body) >= arpLen && bytes.Equal(body[:6], arpHead) && MAC(body[8:14]) == h.Src
	case TypeARP:
		c, ok = snoopARP(h, body)
	case TypeIPv6:
		c, ok = snoopND(h, body)
	}
	if !ok {
		return Claim{}, false
	}
	return c, true
}

func snoopARP(h Header, b []byte) (c Claim, ok bool) {
	if len(b) < arpLen || !bytes.Equal(b[:6], arpHead) || MAC(b[8:14]) != h.Src {
		return c, false
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	if !usable(sender) { // a probe (RFC 5227) claims nothing yet
		return c, false
	}
	return Claim{IP: sender, Announced: sender == target}, true
}

func snoopND(h Header, b []byte) (c Claim, ok bool) {
	if len(b) < ipv6Len+ndLen || b[0]>>4 != 6 || b[6] != protoICMPv6 || b[7] != 255 {
		return c, false // hop limit 255: it was not routed (RFC 4861, section 7.1)
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < ndLen || n > len(b)-ipv6Len {
		return c, false
	}
	icmp := b[ipv6Len : ipv6Len+n]
	switch icmp[0] {
	case ndSolicit:
		src := netip.AddrFrom16([16]byte(b[8:24]))
		return Claim{IP: src}, usable(src) && hasOption(icmp[ndLen:], optSource, h.Src)
	case ndAdvert:
		target := netip.AddrFrom16([16]byte(icmp[8:24]))
		return Claim{IP: target, Announced: h.Dst.Group(), Router: icmp[4]&router != 0}, usable(target) && hasOption(icmp[ndLen:], optTarget, h.Src)
	}
	return c, false
}

// hasOption tells whether one of the options gives the link-layer address m.
func hasOption(b []byte, kind byte, m MAC) bool {
	for len(b) >= 8 && b[1] != 0 {
		if b[0] == kind && MAC(b[2:8]) == m {
			return true
		}
		b = b[min(int(b[1])*8, len(b)):]
	}
	return false
}

func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.Is4In6() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// AppendAnnounce appends to b the frame by which the host m announces itself to
// its segment: a gratuitous ARP for an IPv4 address, an unsolicited neighbour
// advertisement for an IPv6 address, a RARP request, as QEMU sends it, when ip
// is not valid.
func AppendAnnounce(b []byte, m MAC, ip netip.Addr) []byte {
	switch {
	case !ip.IsValid():
		b = appendHeader(b, Broadcast, m, TypeRARP)
		b = append(append(b, arpHead...), 0, opReverse)
		b = append(append(b, m[:]...), 0, 0, 0, 0)
		return append(append(b, m[:]...), 0, 0, 0, 0)
	case ip.Is4():
		a := ip.As4()
		b = appendHeader(b, Broadcast, m, TypeARP)
		b = append(append(b, arpHead...), 0, opReply)
		b = append(append(b, m[:]...), a[:]...)
		return append(append(b, Broadcast[:]...), a[:]...)
	}
	return appendAdvert(b, advertisement{to: allNodesMAC, mac: m, ip: ip.As16(), dst: allNodes, flags: override})
}

// allNodes is ff02::1, and allNodesMAC the MAC that stands for it (RFC 2464).
var (
	allNodes    = [16]byte{0: 0xff, 1: 0x02, 15: 1}
	allNodesMAC = MAC{0x33, 0x33, 0, 0, 0, 1}
)

// advertisement is a neighbour advertisement: mac has ip.
type advertisement struct {
	to, mac MAC
	ip, dst [16]byte
	flags   byte
}

func appendAdvert(b []byte, a advertisement) []byte {
	body := append([]byte{a.flags, 0, 0, 0}, a.ip[:]...)
	body = append(append(body, optTarget, 1), a.mac[:]...)
	return icmp{to: a.to, from: a.mac, src: a.ip, dst: a.dst, kind: ndAdvert, body: body}.append(b)
}

// icmp is a frame of neighbour discovery.
type icmp struct {
	to, from MAC
	src, dst [16]byte
	kind     byte
	body     []byte // behind the checksum; its length is even
}

func (i icmp) append(b []byte) []byte {
	length := byte(4 + len(i.body))
	b = appendHeader(b, i.to, i.from, TypeIPv6)
	head := len(b)
	b = append(b, 0x60, 0, 0, 0, 0, length, protoICMPv6, 255)
	b = append(append(b, i.src[:]...), i.dst[:]...)
	at := len(b)
	b = append(append(b, i.kind, 0, 0, 0), i.body...)
	sum := checksum(0, b[head+8:at]) // pseudo header (RFC 8200, section 8.1)
	sum = checksum(sum, []byte{0, 0, 0, length, 0, 0, 0, protoICMPv6})
	sum = checksum(sum, b[at:])
	binary.BigEndian.PutUint16(b[at+2:], ^uint16(sum))
	return b
}

func appendHeader(b []byte, dst, src MAC, kind uint16) []byte {
	b = append(append(b, dst[:]...), src[:]...)
	return binary.BigEndian.AppendUint16(b, kind)
}

// checksum adds b to an Internet checksum (RFC 1071); b has an even length.
func checksum(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}
