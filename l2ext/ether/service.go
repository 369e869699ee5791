package ether

// Service is what a frame is for, where a policy may keep it at its site.
type Service uint8

// The services.
const (
	Ordinary     Service = iota
	RouterAdvert         // IPv6 router advertisement or redirect (RFC 4861, sections 4.2, 4.5)
	DHCP                 // DHCP or DHCPv6 to a group; a renewal, which is unicast, is Ordinary
	FHRPHello            // VRRP, HSRP, GLBP or CARP: who is the active router
)

const (
	ndRouterAdvert = 134
	ndRedirect     = 137
)

// ServiceOf tells the service of a whole frame whose header is h.
func ServiceOf(h Header, frame []byte) Service {
	u, ok := upperOf(h, frame)
	switch {
	case !ok:
	case u.proto == protoVRRP && u.group:
		return FHRPHello
	case u.proto == protoICMPv6 && h.Type == TypeIPv6 && len(u.body) > 0 && (u.body[0] == ndRouterAdvert || u.body[0] == ndRedirect):
		return RouterAdvert
	case u.proto == protoUDP && u.group:
		return groupUDP(h, u.port())
	}
	return Ordinary
}

// groupUDP goes by the numbers of IANA's registry of ports.
func groupUDP(h Header, port uint16) Service {
	switch port {
	case 1985, 2029, 3222: // HSRP, HSRP over IPv6, GLBP
		return FHRPHello
	case 67, 68, 546, 547:
		if h.Dst.Group() {
			return DHCP
		}
	}
	return Ordinary
}

// VirtualRouter tells whether m belongs to a group of routers, not to one
// machine: VRRP and CARP (RFC 9568, section 7.3), HSRP 1 and 2, HSRP over IPv6,
// GLBP.
func (m MAC) VirtualRouter() bool {
	switch {
	case m[0] == 0 && m[1] == 0 && m[2] == 0x5e && m[3] == 0 && (m[4] == 1 || m[4] == 2):
		return true
	case m[0] == 0 && m[1] == 0 && m[2] == 0x0c:
		return m[3] == 0x07 && m[4] == 0xac || m[3] == 0x9f && m[4]&0xf0 == 0xf0
	case m[0] == 0 && m[1] == 0x05 && m[2] == 0x73 && m[3] == 0xa0:
		return m[4]&0xf0 == 0
	}
	return m[0] == 0 && m[1] == 0x07 && m[2] == 0xb4
}
