package l2ext

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/probe"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// In mode Direct the kernel carries the frames, by a VXLAN device over the
// underlay. The gateway sees only what it has to: frames for VMs that are paused
// here, and the echoes by which it finds out whether the underlay works. They come
// by the port of mode Secure, which is there in both modes: in this one it is
// the gateway's own plug in the bridge, and no other frame is flooded into it.
// What hosts of the LAN tell of themselves, and loop probes, are heard at the
// LAN ports (Host.Watch).

// Underlay is how the kernel carries a segment in mode Direct.
type Underlay struct {
	Local      netip.Addr // of this machine
	Self       MAC        // the gateway itself: frames for it come to the carrier
	Sites      []UnderlaySite
	Neighbours []Neighbour // what the kernel answers for, when hosts of the LAN ask
	Listeners  Listeners   // where multicast goes
	Shut       bool        // broadcast and multicast are shut, because of a loop

	// Adopted: the gateway has started not long ago, and does not know yet all that the kernel
	// may be carrying since an earlier one has died.
	Adopted Adopted
}

// UnderlaySite is another site on the underlay.
type UnderlaySite struct {
	Site vxlan.Endpoint
	Addr netip.Addr // of its machine
	MAC  MAC        // of its gateway
}

// Neighbour is an address of a host.
type Neighbour struct {
	IP     netip.Addr
	MAC    MAC
	Router bool // it is an IPv6 router
}

// Traffic is what the kernel has carried of a segment in mode Direct since its
// device was made.
type Traffic struct {
	Sent, SentBytes         uint64
	Received, ReceivedBytes uint64
	Foreign                 uint64 // frames dropped because another site owns their source
}

// underlay is the wish for a segment, nil in other modes.
func (m *Manager) underlay(now time.Time, seg *segment) *Underlay {
	if seg.Mode != Direct {
		return nil
	}
	u := &Underlay{Local: m.cfg.Underlay, Self: probe.GatewayOf(seg.VNI, m.cfg.Site), Shut: seg.loop.isShut(now), Listeners: seg.listeners(now, m.cfg.Site), Adopted: m.adopted(now, seg)}
	seg.sends, seg.adopted = u.Listeners, u.Adopted.summary()
	for site, addr := range seg.ways.agreed() {
		u.Sites = append(u.Sites, UnderlaySite{Site: seg.endpoint[site], Addr: addr, MAC: probe.GatewayOf(seg.VNI, site)})
	}
	seg.mu.RLock()
	defer seg.mu.RUnlock()
	for ip, mac := range seg.table.byIP {
		if seg.Policy.isGatewayIP(ip) {
			continue // for that one no other site speaks
		}
		if b := seg.table.byMAC[mac]; b != nil && !b.withdrawn() && (b.rec.Site == m.cfg.Site || seg.ways.up(now, b.rec.Site)) {
			u.Neighbours = append(u.Neighbours, Neighbour{IP: ip, MAC: mac, Router: b.rec.Router})
		}
	}
	return u
}

// askWays asks the sites that are due, and has the kernel follow what has
// changed: it answers no questions for hosts that cannot be reached.
func (m *Manager) askWays(now time.Time) {
	for _, seg := range m.segments() {
		if seg.Mode != Direct || !seg.isAttached() {
			continue
		}
		m.lookAtAdopted(now, seg)
		for _, q := range seg.ways.due(now, randomNumber) {
			m.inject(seg, q.frame(seg.VNI, m.cfg.Site, seg.ways.full))
		}
		for site, why := range seg.ways.turned(now) {
			m.dirty = true
			if why == "" && seg.ways.up(now, site) {
				m.log.Info("underlay works", "segment", seg.Name, "peer", site)
			} else {
				m.log.Error("underlay does not work", "segment", seg.Name, "peer", site, "problem", why)
			}
		}
	}
}

// randomNumber cannot be guessed by who sees none of our frames.
func randomNumber() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

// inject puts a frame into the bridge, by the gateway's own port.
func (m *Manager) inject(seg *segment, frame []byte) {
	p := vxlan.Packet{VNI: seg.VNI, From: vxlan.Everyone, To: vxlan.Self, Frame: frame}
	if err := m.cfg.Host.WritePacket(p.Append(nil)); err != nil {
		seg.counts.add(DropCarrier, 1)
	}
}

// direct takes a frame that the kernel has given to the gateway in mode Direct.
func (o *outward) direct(now time.Time, seg *segment, frame []byte) {
	if o.m.takeQuestion(now, seg, frame) {
		return
	}
	h, err := ether.Parse(frame)
	if err != nil || h.Dst.Group() {
		seg.counts.add(DropMalformed, 1)
		return
	}
	switch site, b := seg.lookup(h.Dst); {
	case b.parked && seg.park(h.Dst, parcel{frame: frame}, straight):
	case b.coming && site != o.m.cfg.Site && seg.parkEarly(now, h.Dst, parcel{frame: frame}):
	case site == o.m.cfg.Site: // it has been let go while the frame was on its way to us
		o.m.inject(seg, frame)
		seg.counts.add(Returned, 1)
	default:
		seg.counts.add(DropHorizon, 1)
	}
}

// takeQuestion takes a frame that is an echo of another gateway: a question is
// answered, an answer noted. One that names no gateway of the segment is from
// somebody else.
func (m *Manager) takeQuestion(now time.Time, seg *segment, frame []byte) bool {
	e, err := probe.ParseEcho(frame)
	if err != nil {
		return false
	}
	switch {
	case e.Dst != probe.GatewayOf(seg.VNI, m.cfg.Site):
	case e.Reply:
		if !seg.ways.answered(now, e) {
			m.echoes.answer(e.Number)
		}
	case seg.isGateway(e.Src) && seg.echoes.allow(now):
		e.Reply, e.Src, e.Dst = true, e.Dst, e.Src
		m.inject(seg, e.Append(nil))
	}
	return true
}

// isGateway tells the gateways of the other sites.
func (s *segment) isGateway(mac MAC) bool {
	for _, site := range s.Sites {
		if probe.GatewayOf(s.VNI, site) == mac {
			return true
		}
	}
	return false
}

// traffic adds to counts what only the kernel knows.
func (m *Manager) traffic(seg *segment, counts map[Count]uint64) {
	if seg.Mode != Direct {
		return
	}
	if t, ok := m.cfg.Host.Traffic(seg.VNI); ok {
		counts[Sent] += t.Sent
		counts[SentBytes] += t.SentBytes
		counts[Received] += t.Received
		counts[ReceivedBytes] += t.ReceivedBytes
		counts[DropOwner] += t.Foreign
		counts[Conflicts] += t.Foreign
	}
}
