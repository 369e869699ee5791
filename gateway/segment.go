package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/pcap"
)

// SegmentPolicy says what of a segment crosses to other sites, and where its
// guests' gateway is. What is empty is the default.
type SegmentPolicy struct {
	Home       string   `json:"home,omitempty" yaml:"home" doc:"site at which the rest of the network finds the segment's hosts" maxLength:"63"`
	Gateway    string   `json:"gateway,omitempty" yaml:"gateway" doc:"where the guests' default gateway is: home, at the home site (the default), or anycast, one with the same addresses at each site" enum:"home,anycast"`
	GatewayMAC string   `json:"gateway_mac,omitempty" yaml:"gateway_mac" doc:"MAC of the anycast gateways; not needed for that of a virtual router"`
	GatewayIPs []string `json:"gateway_ips,omitempty" yaml:"gateway_ips" doc:"addresses of the anycast gateways"`
	HostRoute  []string `json:"host_route,omitempty" yaml:"host_route" doc:"command that makes a route to a guest that is here and away from home; it is called with arrive or depart, segment, MAC and IP, and must bear to make what is there and to take away what is not. Only in the config"`

	Unknown       string        `json:"unknown,omitempty" yaml:"unknown" doc:"unicast for a MAC that nobody knows: drop (the default) or limited" enum:"drop,limited"`
	Multicast     string        `json:"multicast,omitempty" yaml:"multicast" doc:"where multicast goes: listeners (the default), flood (that of mode direct) or link-local" enum:"listeners,flood,link-local"`
	RouterAdverts string        `json:"router_adverts,omitempty" yaml:"router_adverts" doc:"IPv6 router advertisements: carry (the default with a gateway at home) or local" enum:"carry,local"`
	DHCP          string        `json:"dhcp,omitempty" yaml:"dhcp" doc:"DHCP that is not unicast: carry (the default with a gateway at home) or local" enum:"carry,local"`
	FHRP          string        `json:"fhrp,omitempty" yaml:"fhrp" doc:"hellos of VRRP, HSRP, GLBP and CARP: local (the default) or carry" enum:"carry,local"`
	Streams       string        `json:"streams,omitempty" yaml:"streams" doc:"whether TCP connections cross by reliable streams: auto, while the line loses packets (the default), on or off" enum:"auto,on,off"`
	Limits        SegmentLimits `json:"limits,omitzero" yaml:"limits" doc:"frames a second that are not for one known host; one LAN port may send half of them"`
}

// SegmentLimits bound the frames that are not for one known host, in frames a
// second.
type SegmentLimits struct {
	Resolve   int `json:"resolve,omitempty" yaml:"resolve" doc:"ARP and neighbour discovery, 100 by default" minimum:"0" maximum:"1000000"`
	Broadcast int `json:"broadcast,omitempty" yaml:"broadcast" doc:"other broadcast, 50 by default" minimum:"0" maximum:"1000000"`
	Multicast int `json:"multicast,omitempty" yaml:"multicast" doc:"500 by default" minimum:"0" maximum:"1000000"`
	Unknown   int `json:"unknown,omitempty" yaml:"unknown" doc:"unicast for a MAC that nobody knows, 500 by default" minimum:"0" maximum:"1000000"`
}

// UnstretchRequest asks for the end of a segment at this site.
type UnstretchRequest struct {
	Force bool `json:"force,omitempty" doc:"cut even if hosts depend on it"`
}

// Unstretched says what became of an UnstretchRequest.
type Unstretched struct {
	Name       string      `json:"name" doc:"the segment"`
	Cut        bool        `json:"cut" doc:"it ends here now"`
	Dependents []Dependent `json:"dependents" doc:"hosts that depend, or depended, on it"`
	Unheard    []string    `json:"unheard,omitempty" doc:"sites that cannot be asked; there may be more hosts that depend on it"`
}

// Dependent is a host for which a segment is stretched.
type Dependent struct {
	MAC  string   `json:"mac" doc:"MAC address"`
	IPs  []string `json:"ips,omitempty" doc:"IP addresses seen with it"`
	Site string   `json:"site" doc:"where it is"`
	Why  string   `json:"why" doc:"why it depends on the segment"`
}

// Policy is the policy as l2ext takes it. ErrInvalid.
func (p SegmentPolicy) Policy() (l2ext.Policy, error) {
	out := l2ext.Policy{
		Home: p.Home, HostRoutes: len(p.HostRoute) > 0, Gateway: l2ext.Gateway(p.Gateway),
		Unknown: l2ext.Unknown(p.Unknown), Multicast: l2ext.Multicast(p.Multicast),
		RouterAdverts: l2ext.Crossing(p.RouterAdverts), DHCP: l2ext.Crossing(p.DHCP), FHRP: l2ext.Crossing(p.FHRP),
		Streams: l2ext.Streaming(p.Streams),
		Limits:  l2ext.Limits(p.Limits),
	}
	if p.GatewayMAC != "" {
		mac, err := net.ParseMAC(p.GatewayMAC)
		if err != nil || len(mac) != len(out.GatewayMAC) {
			return out, fmt.Errorf("gateway_mac %q is no Ethernet address: %w", p.GatewayMAC, ErrInvalid)
		}
		out.GatewayMAC = l2ext.MAC(mac)
	}
	for _, text := range p.GatewayIPs {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return out, fmt.Errorf("gateway_ips: %w: %w", err, ErrInvalid)
		}
		out.GatewayIPs = append(out.GatewayIPs, ip)
	}
	return out, nil
}

// Check refuses a policy that means nothing. ErrInvalid.
func (p SegmentPolicy) Check() error {
	policy, err := p.Policy()
	if err != nil {
		return err
	}
	if err := policy.Check(); err != nil {
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	return nil
}

// UnstretchSegment ends a segment at this site when no host depends on it any
// more, as all its sites say, or when it is forced.
func (l *Layer2) UnstretchSegment(ctx context.Context, name string, r UnstretchRequest) (Unstretched, error) {
	for _, v := range l.m.Segments() {
		if v.Name != name {
			continue
		}
		out := Unstretched{Name: name, Dependents: []Dependent{}}
		for _, d := range v.Dependents(l.site) {
			out.Dependents = append(out.Dependents, Dependent{MAC: d.MAC.String(), IPs: texts(d.IPs), Site: d.Site, Why: d.Why})
		}
		out.Unheard = slices.DeleteFunc(v.Unheard, func(site string) bool { return l.node.Link(site) == nil }) // they have never been here
		if len(out.Dependents)+len(out.Unheard) > 0 && !r.Force {
			return out, nil
		}
		if err := l.RemoveSegment(ctx, name); err != nil {
			return out, err
		}
		out.Cut = true
		return out, nil
	}
	return Unstretched{}, fmt.Errorf("segment %q: %w", name, ErrNotFound)
}

func texts(ips []netip.Addr) (all []string) {
	for _, ip := range ips {
		all = append(all, ip.String())
	}
	return all
}

// CaptureRequest bounds a capture of a segment's frames.
type CaptureRequest struct {
	Snap   int // bytes kept of each frame; 0 means all
	Frames int // ends after so many; 0 means no limit
	Only   string
	Bytes  int64 // ends before the file is longer; 0 means no limit
}

// What a CaptureRequest may be limited to.
const (
	CaptureOut = "out" // frames of this site, as they come to the gateway
	CaptureIn  = "in"  // frames of other sites
)

var errEnough = errors.New("gateway: as many frames as were asked for")

// CaptureSegment writes the frames of a segment as a pcap file, with a call of
// write for each part, until ctx ends, write fails or there are enough. ErrNotFound:
// there is no such segment; then nothing was written.
func (l *Layer2) CaptureSegment(ctx context.Context, name string, r CaptureRequest, write func([]byte) error) error {
	if _, err := l.Segment(ctx, name); err != nil {
		return err
	}
	snap := uint32(r.Snap)
	if r.Snap <= 0 {
		snap = 1 << 16
	}
	if err := write(pcap.AppendHeader(nil, snap)); err != nil {
		return err
	}
	seen, total := 0, int64(pcap.HeaderLen)
	var buf []byte
	missed, err := l.m.Capture(ctx, name, l2ext.CaptureOptions{Snap: int(snap)}, func(c l2ext.Captured) error {
		if c.Inward && r.Only == CaptureOut || !c.Inward && r.Only == CaptureIn {
			return nil
		}
		buf = pcap.AppendFrame(buf[:0], c.At, c.Frame, c.Len)
		if total += int64(len(buf)); r.Bytes > 0 && total > r.Bytes {
			return errEnough
		}
		if err := write(buf); err != nil {
			return err
		}
		if seen++; seen == r.Frames {
			return errEnough
		}
		return nil
	})
	if missed > 0 {
		l.log.Warn("capture was too slow for some frames", "segment", name, "missed", missed)
	}
	if err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("capturing segment %s: %w", name, err)
	}
	return nil
}

// addWay tells by which sites a host's traffic enters and leaves, and what that
// costs.
func (l *Layer2) addWay(b *Binding, v l2ext.View) {
	p := v.Path(b.Site)
	b.Egress, b.Ingress = p.Egress, p.Ingress
	if p.Egress == "" || p.Ingress == "" {
		return
	}
	var total time.Duration
	for _, site := range []string{p.Egress, p.Ingress} {
		rtt, ok := l.rtt(v, b.Site, site)
		if !ok {
			return
		}
		total += rtt / 2
	}
	ms := float64(total.Microseconds()) / 1000
	b.AddedRTT = &ms
}

// rtt is the round trip between two sites, if this gateway knows it: of two others by what
// one of them has told.
func (l *Layer2) rtt(v l2ext.View, a, b string) (rtt time.Duration, ok bool) {
	switch {
	case a == b:
		return 0, true
	case a == l.site:
		return l.trip(b)
	case b == l.site:
		return l.trip(a)
	}
	return v.RTT(a, b)
}

// trip is the round trip to another site.
func (l *Layer2) trip(site string) (rtt time.Duration, ok bool) {
	link := l.node.Link(site)
	if link == nil {
		return 0, false
	}
	s := link.State()
	return s.RTT, s.Up
}
