package ether

import (
	"encoding/binary"
	"net/netip"
)

// Membership is what an IGMP or MLD message says of multicast groups.
type Membership struct {
	Query bool  // a router asks who listens
	All   bool  // to any group: hosts answer for all to which they listen
	Join  []MAC // groups, by the addresses that their frames have
	Leave []MAC
}

// maxGroups bounds the groups taken from one message: as many as fit into a
// full frame.
const maxGroups = 183

// MembershipOf reads IGMP 1 to 3 (RFC 9776) and MLD 1 and 2 (RFC 9777); ok is
// false if the frame is neither. Groups that are always flooded are left out.
func MembershipOf(h Header, frame []byte) (m Membership, ok bool) {
	u, ok := upperOf(h, frame)
	switch {
	case !ok || len(u.body) < 8:
		return m, false
	case u.proto == protoIGMP && h.Type == TypeIPv4:
		return igmp(u.body)
	case u.proto == protoICMPv6 && h.Type == TypeIPv6 && u.hops == 1: // it was not routed
		return mld(u.body)
	}
	return m, false
}

func igmp(b []byte) (m Membership, ok bool) {
	group := netip.AddrFrom4([4]byte(b[4:8]))
	switch b[0] {
	case 0x11:
		m.Query, m.All = true, group.IsUnspecified()
	case 0x12, 0x16:
		m.Join = appendGroup(nil, group)
	case 0x17:
		m.Leave = appendGroup(nil, group)
	case 0x22:
		m.records(b, 4)
	default:
		return m, false
	}
	return m, true
}

func mld(b []byte) (m Membership, ok bool) {
	if b[0] == 143 {
		m.records(b, 16)
		return m, true
	}
	if len(b) < 24 {
		return m, false
	}
	group := netip.AddrFrom16([16]byte(b[8:24]))
	switch b[0] {
	case 130:
		m.Query, m.All = true, group.IsUnspecified()
	case 131:
		m.Join = appendGroup(nil, group)
	case 132:
		m.Leave = appendGroup(nil, group)
	default:
		return m, false
	}
	return m, true
}

// records reads the group records of a report of IGMPv3 or MLDv2, whose
// addresses have size bytes (RFC 9776, section 4.2.4).
func (m *Membership) records(b []byte, size int) {
	n := min(int(binary.BigEndian.Uint16(b[6:])), maxGroups)
	b = b[8:]
	for range n {
		if len(b) < 4+size {
			return
		}
		sources := int(binary.BigEndian.Uint16(b[2:]))
		group, _ := netip.AddrFromSlice(b[4 : 4+size])
		switch b[0] {
		case 2, 4: // all but some sources
			m.Join = appendGroup(m.Join, group)
		case 1, 3, 5: // these sources, or none any more
			if sources > 0 {
				m.Join = appendGroup(m.Join, group)
			} else if b[0] != 5 {
				m.Leave = appendGroup(m.Leave, group)
			}
		}
		b = b[min(len(b), 4+size+sources*size+int(b[1])*4):]
	}
}

func appendGroup(to []MAC, a netip.Addr) []MAC {
	if m, ok := groupMAC(a); ok && !m.LinkLocalGroup() {
		return append(to, m)
	}
	return to
}

// groupMAC is the address of a multicast group's frames (RFC 1112, section 6.4;
// RFC 2464, section 7).
func groupMAC(a netip.Addr) (MAC, bool) {
	if !a.IsMulticast() {
		return MAC{}, false
	}
	if a.Is4() {
		b := a.As4()
		return MAC{1, 0, 0x5e, b[1] & 0x7f, b[2], b[3]}, true
	}
	b := a.As16()
	return MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}, true
}

// LinkLocalGroup tells the groups to which all may listen without saying so:
// 224.0.0.0/24 (RFC 4541, section 2.1.2), the well-known ones of IPv6's link
// (ff02::1 to ff02::ff, ff02::1:2 and ff02::1:3), solicited nodes, and what is
// no multicast of IP.
func (m MAC) LinkLocalGroup() bool {
	switch {
	case m[0] == 1 && m[1] == 0 && m[2] == 0x5e:
		return m[3] == 0 && m[4] == 0
	case m[0] == 0x33 && m[1] == 0x33:
		return m[2] == 0xff || m[2] == 0 && m[3] <= 1 && m[4] == 0
	}
	return true
}
