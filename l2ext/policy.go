package l2ext

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/probe"
)

// Policy says what of a segment crosses to other sites, beside the frames for
// known hosts. Its zero value is the default.
type Policy struct {
	// Limits of this segment; a zero one is that of the manager.
	Limits Limits

	// Unknown is what happens to unicast for a MAC without a binding.
	Unknown Unknown

	// Multicast says to which sites multicast goes.
	Multicast Multicast

	// Gateway says where the guests' default gateway is.
	Gateway Gateway

	// Home is the site at which the rest of the network finds the segment's
	// hosts, and where its gateway is with GatewayHome. "" means that nobody has
	// said.
	Home string

	// HostRoutes has Config.Route called for each address that is here, away
	// from Home.
	HostRoutes bool

	// GatewayMAC and GatewayIPs are what the gateways of all sites have in
	// common, with GatewayAnycast. Nothing from, for or about them crosses, and
	// no binding is made of them: each site's own gateway has them. They may
	// be left out where the MAC is that of a virtual router.
	GatewayMAC MAC
	GatewayIPs []netip.Addr

	// RouterAdverts, DHCP and FHRP say whether these cross. "" goes by
	// Gateway: with one at home, router advertisements and DHCP cross, as
	// guests that have moved still need them, and with one at each site they
	// do not. FHRP are the hellos of VRRP, HSRP, GLBP and CARP: "" keeps them at
	// their site, and with a gateway at each site also all frames of the
	// virtual routers.
	RouterAdverts, DHCP, FHRP Crossing

	// Streams says whether TCP connections cross by streams.
	Streams Streaming
}

// Unknown says what happens to unicast for a MAC without a binding.
type Unknown string

// What may happen to it.
const (
	UnknownDrop    Unknown = "drop"    // the default: nobody has heard of the host, and a storm is the usual reason
	UnknownLimited Unknown = "limited" // it goes to all sites, within Limits.Unknown
)

// Multicast says to which sites multicast goes. Groups that are local to the
// link always go to all.
type Multicast string

// Where multicast may go.
const (
	// MulticastListeners is the default but in mode Direct: to the sites at
	// which somebody listens, as soon as a router on the segment asks for
	// reports, and to all before that, as a bridge does. In mode Direct a site
	// gets a group within some two seconds after its first host there joins.
	MulticastListeners Multicast = "listeners"
	MulticastFlood     Multicast = "flood"      // to all sites; the default in mode Direct
	MulticastLinkLocal Multicast = "link-local" // only groups that are local to the link
)

// Gateway says where the guests' default gateway is.
type Gateway string

// Where it may be.
const (
	GatewayHome    Gateway = "home"    // the default: at one site
	GatewayAnycast Gateway = "anycast" // at each site one with the same addresses
)

// Crossing says whether something crosses.
type Crossing string

// Whether it does.
const (
	Cross Crossing = "carry"
	Local Crossing = "local"
)

// maxGatewayIPs is more than a gateway has on one segment.
const maxGatewayIPs = 16

// Check refuses a policy that has a word which means nothing.
func (p Policy) Check() error {
	switch {
	case !slices.Contains([]Unknown{"", UnknownDrop, UnknownLimited}, p.Unknown):
		return fmt.Errorf("unknown %q: drop or limited", p.Unknown)
	case !slices.Contains([]Multicast{"", MulticastListeners, MulticastFlood, MulticastLinkLocal}, p.Multicast):
		return fmt.Errorf("multicast %q: listeners, flood or link-local", p.Multicast)
	case !slices.Contains([]Gateway{"", GatewayHome, GatewayAnycast}, p.Gateway):
		return fmt.Errorf("gateway %q: home or anycast", p.Gateway)
	case !slices.Contains([]Streaming{"", StreamsAuto, StreamsOn, StreamsOff}, p.Streams):
		return fmt.Errorf("streams %q: auto, on or off", p.Streams)
	}
	for what, c := range map[string]Crossing{"router_adverts": p.RouterAdverts, "dhcp": p.DHCP, "fhrp": p.FHRP} {
		if !slices.Contains([]Crossing{"", Cross, Local}, c) {
			return fmt.Errorf("%s %q: carry or local", what, c)
		}
	}
	if len(p.Home) > announce.MaxSite || strings.ContainsFunc(p.Home, odd) {
		return fmt.Errorf("home %q: a site has at most %d bytes of a-z, 0-9 and -", p.Home, announce.MaxSite)
	}
	if p.HostRoutes && p.Home == "" {
		return fmt.Errorf("host routes need a home: routes are for guests that are away from it")
	}
	if p.GatewayMAC != (MAC{}) && !p.GatewayMAC.Host() {
		return fmt.Errorf("gateway MAC %v is no host's", p.GatewayMAC)
	}
	if len(p.GatewayIPs) > maxGatewayIPs {
		return fmt.Errorf("%d addresses of the gateway: at most %d", len(p.GatewayIPs), maxGatewayIPs)
	}
	if l := p.Limits; min(l.Resolve, l.Broadcast, l.Multicast, l.Unknown) < 0 {
		return fmt.Errorf("limits %+v: must not be negative", l)
	}
	return nil
}

// CarriedBy refuses what a mode cannot do: only in Secure TCP connections cross by
// streams.
func (p Policy) CarriedBy(mode Mode) error {
	if p.Streams == StreamsOn && mode.orDefault() != Secure {
		return fmt.Errorf("streams %s needs mode %s: in mode %s no connection crosses by streams", p.Streams, Secure, mode)
	}
	return nil
}

// withDefaults fills in what is not said.
func (p Policy) withDefaults(l Limits, mode Mode) Policy {
	multicast := MulticastListeners
	if mode == Direct {
		multicast = MulticastFlood
	}
	p.Limits = p.Limits.or(l)
	p.Unknown = cmp.Or(p.Unknown, UnknownDrop)
	p.Multicast = cmp.Or(p.Multicast, multicast)
	p.Gateway = cmp.Or(p.Gateway, GatewayHome)
	p.Streams = cmp.Or(p.Streams, StreamsAuto)
	auto := Cross
	if p.Gateway == GatewayAnycast {
		auto = Local
	}
	p.RouterAdverts = cmp.Or(p.RouterAdverts, auto)
	p.DHCP = cmp.Or(p.DHCP, auto)
	return p
}

// keeps tells why the policy keeps a frame at its site; ok is false if it does
// not.
func (p Policy) keeps(h ether.Header, frame []byte) (why Count, ok bool) {
	if probe.Is(frame) {
		return DropForbidden, true
	}
	if p.Gateway == GatewayAnycast && p.aboutGateway(h, frame) {
		return DropPolicy, true
	}
	switch ether.ServiceOf(h, frame) {
	case ether.RouterAdvert:
		return DropPolicy, p.RouterAdverts == Local
	case ether.DHCP:
		return DropPolicy, p.DHCP == Local
	case ether.FHRPHello:
		return DropPolicy, p.FHRP != Cross
	}
	return 0, false
}

// aboutGateway tells what belongs to each site's own gateway.
func (p Policy) aboutGateway(h ether.Header, frame []byte) bool {
	if p.isGateway(h.Src) || p.isGateway(h.Dst) {
		return true
	}
	if len(p.GatewayIPs) == 0 {
		return false
	}
	sender, target := ether.About(h, frame)
	return p.isGatewayIP(sender) || p.isGatewayIP(target)
}

// isGatewayIP tells whether an address is that of a gateway which is at each site,
// whoever else claims it.
func (p Policy) isGatewayIP(ip netip.Addr) bool {
	return p.Gateway == GatewayAnycast && slices.Contains(p.GatewayIPs, ip)
}

// binds tells whether a MAC can be bound to a site: it is a host's, and neither of
// a gateway of ours nor of the gateway of the guests that is at each site.
func (p Policy) binds(m MAC) bool {
	return m.Host() && !probe.IsSource(m) && !probe.IsGateway(m) && !p.isGateway(m)
}

// isGateway tells whether a MAC is that of a gateway which is at each site.
func (p Policy) isGateway(m MAC) bool {
	return p.Gateway == GatewayAnycast && (p.GatewayMAC == m && m != MAC{} || p.FHRP != Cross && m.VirtualRouter())
}

// admit drops what the policy or a limit keeps away. It is the end of judge.
func (s *segment) admit(now time.Time, h ether.Header, x parcel, lim *limiter) (class ether.Class, ok bool) {
	class = ether.ClassOf(h, x.frame)
	if why, kept := s.Policy.keeps(h, x.frame); kept {
		s.counts.add(why, 1)
		return class, false
	}
	if class == ether.Unicast {
		return class, true
	}
	if s.loop.isShut(now) {
		s.counts.add(DropShut, 1)
		return class, false
	}
	if drop, ok := lim.allow(now, class, x.packets()); !ok {
		s.counts.add(drop, 1)
		return class, false
	}
	return class, true
}
