package l2ext

import (
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/frag"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// outward takes frames from this site's LAN to other sites. It belongs to the
// goroutine that reads the carrier.
type outward struct {
	m       *Manager
	scratch []byte
	back    []byte
}

// packet takes one packet of the carrier, steps 3 to 5 of the map. It may
// change b.
func (o *outward) packet(now time.Time, b []byte) {
	p, _, err := vxlan.Parse(b)
	if err != nil {
		return // the kernel's own, such as a router solicitation
	}
	seg := o.m.segments()[p.VNI]
	if seg == nil {
		return // just removed
	}
	seg.taps.see(now, p.Frame, false)
	if seg.Mode == Direct {
		o.direct(now, seg, p.Frame)
		return
	}
	if o.m.takeProbe(now, seg, p.Frame) || seg.isEcho(o.m, now, p.Frame) {
		return
	}
	if o.local(now, seg, p.Frame) {
		return // not from its owner, or it has its answer
	}
	h, class, ok := seg.judge(now, p.Frame, seg.out)
	if !ok {
		return
	}
	seg.members.fromLAN(now, o.m.cfg.Site, h, p.Frame)
	if o.refuseTooBig(now, seg, h, p.Frame) {
		return
	}
	if class != ether.Unicast {
		o.flood(now, seg, class, h, p.Frame)
		return
	}
	switch site, b := seg.lookup(h.Dst); site {
	case "":
		o.flood(now, seg, class, h, p.Frame)
	case o.m.cfg.Site:
		if b.parked && p.To != vxlan.Everyone && seg.park(h.Dst, p.Frame, straight) {
			return
		}
		o.giveBack(seg, p)
	default:
		o.send(seg, site, h, p.Frame)
	}
}

// judge drops what may not cross.
func (s *segment) judge(now time.Time, frame []byte, lim *limiter) (h ether.Header, class ether.Class, ok bool) {
	h, err := ether.Parse(frame)
	if err != nil || !h.Src.Host() {
		s.counts.add(DropMalformed, 1)
		return h, 0, false
	}
	if h.Forbidden() {
		s.counts.add(DropForbidden, 1)
		return h, 0, false
	}
	class, ok = s.admit(now, h, frame, lim)
	return h, class, ok
}

// flood sends a frame to all sites of the segment. Unicast to an unknown host
// is limited here, and not before: most unicast is known.
func (o *outward) flood(now time.Time, seg *segment, class ether.Class, h ether.Header, frame []byte) {
	if class == ether.Unicast {
		if seg.Policy.Unknown == UnknownDrop || seg.loop.isShut(now) {
			seg.counts.add(DropUnknown, 1)
			return
		}
		if drop, ok := seg.out.allow(now, class); !ok {
			seg.counts.add(drop, 1)
			return
		}
	}
	for _, site := range seg.audience(now, class, h, frame) {
		o.send(seg, site, h, frame)
	}
}

func (o *outward) send(seg *segment, site string, h ether.Header, frame []byte) {
	o.scratch = o.m.send(seg, site, frame, sending{header: h, scratch: o.scratch})
}

// giveBack returns to the LAN a frame for a host that is here. When the kernel
// meant it for another site, the host has come home while the frame was on its
// way to us. Otherwise it is a copy of a frame that the bridge has flooded to
// all ports, and the host has got its own.
func (o *outward) giveBack(seg *segment, p vxlan.Packet) {
	if p.To == vxlan.Everyone {
		seg.counts.add(DropLocal, 1)
		return
	}
	p.From, p.To = vxlan.Everyone, vxlan.Self
	o.back = p.Append(o.back[:0])
	if err := o.m.cfg.Host.WritePacket(o.back); err != nil {
		seg.counts.add(DropCarrier, 1)
		return
	}
	seg.counts.add(Returned, 1)
}

// sending says how a frame is sent.
type sending struct {
	header     ether.Header
	redirected bool
	scratch    []byte // to build datagrams in
}

// send sends a frame to one site: by a stream, or as a datagram, in parts if it must be. It may lower the
// segment size in a TCP SYN, and returns the scratch buffer.
func (m *Manager) send(seg *segment, site string, frame []byte, s sending) []byte {
	if seg.ways.refuses(site) {
		seg.counts.add(DropMode, 1)
		return s.scratch
	}
	p := m.peer(site)
	if m.stream(seg, p, frame, s) {
		return s.scratch
	}
	max := m.cfg.Carrier.MaxDatagram(site)
	if p == nil || max <= frag.HeaderLen {
		seg.counts.add(DropPeerDown, 1)
		return s.scratch
	}
	if ether.ClampMSS(s.header, frame, max-frag.HeaderLen) {
		seg.counts.add(Clamped, 1)
	}
	parts := frag.Parts(len(frame), max)
	if parts == 0 {
		seg.counts.add(DropTooLong, 1)
		return s.scratch
	}
	head := frag.Header{VNI: seg.VNI, ID: uint16(p.frames.Add(1)), Parts: uint8(parts), Redirected: s.redirected}
	buf := slices.Grow(s.scratch[:0], max)
	for i := range parts {
		head.Part = uint8(i)
		buf = append(head.Append(buf[:0]), frag.Piece(frame, i, parts)...)
		if err := m.cfg.Carrier.SendFrame(site, buf); err != nil {
			seg.counts.add(DropCarrier, 1)
			return buf
		}
	}
	if parts > 1 {
		seg.counts.add(Fragmented, 1)
	}
	seg.counts.add(Sent, 1)
	seg.counts.add(SentBytes, len(frame))
	return buf
}
