package ether

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MAC is an Ethernet address.
type MAC [6]byte

// Broadcast is the address of all hosts of a segment.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// String writes the address as six hexadecimal numbers.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Group tells whether m is a multicast address or broadcast.
func (m MAC) Group() bool { return m[0]&1 != 0 }

// Host tells whether m can be the address of a host: neither a group nor zero.
func (m MAC) Host() bool { return !m.Group() && m != MAC{} }

// The types of frame that matter here (IEEE 802 numbers).
const (
	TypeIPv4  = 0x0800
	TypeARP   = 0x0806
	TypeRARP  = 0x8035
	TypeVLAN  = 0x8100
	TypeIPv6  = 0x86dd
	typePause = 0x8808
	typeSlow  = 0x8809 // LACP, marker, OAM
	typeLLDP  = 0x88cc
)

// HeaderLen is the length of an Ethernet header without VLAN tag, in bytes.
const HeaderLen = 14

// ErrShort says that a frame has no whole header.
var ErrShort = errors.New("ether: frame too short")

// Header is the beginning of a frame.
type Header struct {
	Dst, Src MAC
	Type     uint16
	Payload  int // where it begins: 14, or 18 behind a VLAN tag
}

// Parse reads the header of a frame.
func Parse(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, ErrShort
	}
	h := Header{Dst: MAC(b[:6]), Src: MAC(b[6:12]), Type: binary.BigEndian.Uint16(b[12:]), Payload: HeaderLen}
	if h.Type == TypeVLAN {
		if len(b) < HeaderLen+4 {
			return Header{}, ErrShort
		}
		h.Type = binary.BigEndian.Uint16(b[16:])
		h.Payload += 4
	}
	return h, nil
}

// Forbidden tells whether the frame belongs to one cable or one bridge and may
// never cross to another site: bridge protocol data (STP, LACP, pause, LLDP:
// all of 01:80:c2:00:00:0x, IEEE 802.1Q table 8-1), and Cisco's CDP, VTP, UDLD
// and PVST+.
func (h Header) Forbidden() bool {
	switch h.Type {
	case typePause, typeSlow, typeLLDP:
		return true
	}
	d := h.Dst
	if d[0] != 0x01 {
		return false
	}
	linkLocal := d[1] == 0x80 && d[2] == 0xc2 && d[3] == 0 && d[4] == 0 && d[5]&0xf0 == 0
	cisco := d[1] == 0x00 && d[2] == 0x0c && d[3] == 0xcc && d[4] == 0xcc && (d[5] == 0xcc || d[5] == 0xcd)
	return linkLocal || cisco
}

// Class says how a frame is treated where bandwidth is short.
type Class uint8

// The classes of frame.
const (
	Unicast   Class = iota
	Resolve         // ARP, RARP and IPv6 neighbour discovery to a group: few, and nothing works without
	AllHosts        // other broadcast
	Multicast       // other multicast
)

// ClassOf tells the class of a whole frame whose header is h.
func ClassOf(h Header, frame []byte) Class {
	switch {
	case !h.Dst.Group():
		return Unicast
	case h.Type == TypeARP, h.Type == TypeRARP, isDiscovery(h, frame):
		return Resolve
	case h.Dst == Broadcast:
		return AllHosts
	}
	return Multicast
}

// isDiscovery tells neighbour solicitation and advertisement (RFC 4861).
func isDiscovery(h Header, frame []byte) bool {
	if h.Type != TypeIPv6 || len(frame) < h.Payload+ipv6Len+1 {
		return false
	}
	ip := frame[h.Payload:]
	t := ip[ipv6Len]
	return ip[6] == protoICMPv6 && (t == ndSolicit || t == ndAdvert)
}
