package vxlan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Overhead is how many bytes a packet is longer than the frame in it.
const Overhead = ipLen + udpLen + vxlanLen

// Port is the UDP port of our VXLAN devices. It is not 4789 (RFC 7348) nor
// 8472 (Linux before it), so that other VXLAN devices of the host, which may
// have claimed those with other settings, are not in the way.
const Port = 14789

// DirectPort is the UDP port of the VXLAN devices of mode direct, between the
// sites' machines. Their sockets have other settings, so it is another one.
const DirectPort = 14790

// MaxVNI is the greatest VXLAN network identifier.
const MaxVNI = 1<<24 - 1

const (
	ipLen    = 40
	udpLen   = 8
	vxlanLen = 8
	minFrame = 14 // an Ethernet header

	protoUDP = 17
	hopLimit = 64
	flagVNI  = 0x08 // "I": the VNI is valid
)

// An Endpoint is one end of the carrier as the kernel sees it.
type Endpoint uint16

// The endpoints that are always there. Remote sites are numbered from
// FirstSite.
const (
	Self      Endpoint = 1 // this gateway
	Everyone  Endpoint = 2 // what the kernel sends frames to for which it knows no site
	FirstSite Endpoint = 16
)

// Addr is the address that stands for e.
func (e Endpoint) Addr() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 14: byte(e >> 8), 15: byte(e)})
}

// FromAddr is the endpoint for which a stands; ok is false if for none.
func FromAddr(a netip.Addr) (e Endpoint, ok bool) {
	if !a.Is6() {
		return 0, false
	}
	b := a.As16()
	e = Endpoint(binary.BigEndian.Uint16(b[14:]))
	return e, e != 0 && e.Addr() == a.WithZone("")
}

// Packet is one frame between the kernel and the gateway.
type Packet struct {
	VNI      uint32
	From, To Endpoint
	Frame    []byte // whole Ethernet frame without checksum
}

// ErrShort says that a packet ends too early.
var ErrShort = errors.New("vxlan: packet too short")

// ErrOther says that a packet is none of ours, such as a router solicitation
// that the kernel sends into every device.
var ErrOther = errors.New("vxlan: not a packet of the carrier")

// Parse reads the packet at the start of b and tells how many bytes it takes.
// The packet's Frame borrows b.
func Parse(b []byte) (p Packet, n int, err error) {
	if len(b) < ipLen {
		return p, 0, ErrShort
	}
	if b[0]>>4 != 6 || b[6] != protoUDP {
		return p, 0, ErrOther
	}
	n = ipLen + int(binary.BigEndian.Uint16(b[4:]))
	if len(b) < n {
		return p, 0, ErrShort
	}
	var okFrom, okTo bool
	p.From, okFrom = FromAddr(netip.AddrFrom16([16]byte(b[8:24])))
	p.To, okTo = FromAddr(netip.AddrFrom16([16]byte(b[24:40])))
	if !okFrom || !okTo {
		return p, 0, ErrOther
	}
	p.VNI, p.Frame, err = parseUDP(b[ipLen:n])
	return p, n, err
}

func parseUDP(b []byte) (vni uint32, frame []byte, err error) {
	if len(b) < udpLen+vxlanLen+minFrame {
		return 0, nil, ErrShort
	}
	if binary.BigEndian.Uint16(b[2:]) != Port {
		return 0, nil, ErrOther
	}
	if l := int(binary.BigEndian.Uint16(b[4:])); l != len(b) {
		return 0, nil, fmt.Errorf("UDP length %d in %d bytes: %w", l, len(b), ErrOther)
	}
	v := b[udpLen:]
	if v[0] != flagVNI {
		return 0, nil, fmt.Errorf("flags %#02x: %w", v[0], ErrOther)
	}
	return binary.BigEndian.Uint32(v[4:]) >> 8, v[vxlanLen:], nil
}

// Append appends the packet as the kernel takes it to b. A frame longer than
// any that Parse returns makes a packet that the kernel drops.
func (p Packet) Append(b []byte) []byte {
	l := udpLen + vxlanLen + len(p.Frame)
	from, to := p.From.Addr().As16(), p.To.Addr().As16()
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(l))
	b = append(b, protoUDP, hopLimit)
	b = append(append(b, from[:]...), to[:]...)
	b = binary.BigEndian.AppendUint16(b, Port)
	b = binary.BigEndian.AppendUint16(b, Port)
	b = binary.BigEndian.AppendUint16(b, uint16(l))
	b = append(b, 0, 0, flagVNI, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, p.VNI<<8)
	return append(b, p.Frame...)
}
