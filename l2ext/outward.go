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
	express *expressOut // of the reader of a port in mode secure-fast; nil for others
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
	if seg.Mode == Direct {
		o.direct(now, seg, p.Frame)
		return
	}
	o.frame(now, seg, parcel{frame: p.Frame, flooded: p.To == vxlan.Everyone})
}

// frame takes one frame of the LAN.
func (o *outward) frame(now time.Time, seg *segment, x parcel) {
	if seg.vlans != nil {
		var ok bool
		if seg, x, ok = seg.ofLAN(x); !ok {
			return
		}
	}
	seg.taps.see(now, x.frame, false)
	if o.m.takeProbe(now, seg, x.frame) || seg.isEcho(o.m, now, x.frame) {
		return
	}
	if o.local(now, seg, x) {
		return // not from its owner, or it has its answer
	}
	h, class, ok := seg.judge(now, x, seg.out)
	if !ok {
		return
	}
	seg.members.fromLAN(now, o.m.cfg.Site, h, x.frame)
	if o.refuseTooBig(now, seg, h, x) {
		return
	}
	if class != ether.Unicast {
		o.flood(now, seg, h, x)
		return
	}
	switch site, b := seg.lookup(h.Dst); site {
	case "":
		o.flood(now, seg, h, x)
	case o.m.cfg.Site:
		if b.parked && seg.Mode == SecureFast { // flooded is a guess there, and the kernel has an entry for the MAC
			x.flooded = false
		}
		if b.parked && !x.flooded && seg.park(h.Dst, x, straight) {
			return
		}
		o.giveBack(seg, x)
	default:
		if b.parked && seg.park(h.Dst, x, straight) {
			return // its MAC is going back, and it behind those that waited
		}
		o.send(seg, site, h, x)
	}
}

// judge drops what may not cross.
func (s *segment) judge(now time.Time, x parcel, lim *limiter) (h ether.Header, class ether.Class, ok bool) {
	h, err := ether.Parse(x.frame)
	if err != nil || !h.Src.Host() {
		s.counts.add(DropMalformed, 1)
		return h, 0, false
	}
	if h.Forbidden() {
		s.counts.add(DropForbidden, 1)
		return h, 0, false
	}
	class, ok = s.admit(now, h, x, lim)
	return h, class, ok
}

// flood sends a frame to all sites of the segment. Unicast to an unknown host
// is limited here, and not before: most unicast is known.
func (o *outward) flood(now time.Time, seg *segment, h ether.Header, x parcel) {
	class := ether.ClassOf(h, x.frame)
	if class == ether.Unicast {
		if seg.Policy.Unknown == UnknownDrop || seg.loop.isShut(now) {
			seg.counts.add(DropUnknown, 1)
			return
		}
		if drop, ok := seg.out.allow(now, class, x.packets()); !ok {
			seg.counts.add(drop, 1)
			return
		}
	}
	for _, site := range seg.audience(now, class, h, x.frame) {
		o.send(seg, site, h, x)
	}
}

func (o *outward) send(seg *segment, site string, h ether.Header, x parcel) {
	if o.express != nil {
		o.express.add(seg, site, x)
		return
	}
	o.scratch = o.m.send(seg, site, x, sending{header: h, scratch: o.scratch})
}

// giveBack returns to the LAN a frame for a host that is here. When the kernel
// meant it for another site, the host has come home while the frame was on its
// way to us. Otherwise it is a copy of a frame that the bridge has flooded to
// all ports, and the host has got its own.
func (o *outward) giveBack(seg *segment, x parcel) {
	if x.flooded {
		seg.counts.add(DropLocal, 1)
		return
	}
	var err error
	if o.back, err = o.m.toLAN(seg, x, o.back); err != nil {
		seg.counts.add(DropCarrier, 1)
		return
	}
	seg.counts.add(Returned, 1)
}

// sending says how a frame is sent.
type sending struct {
	header     ether.Header
	redirected bool
	released   bool   // it was parked here, and follows its MAC
	scratch    []byte // to build datagrams in
}

// send sends a frame to one site: by a stream, or as a datagram, in parts if it must be. It may lower the
// segment size in a TCP SYN, and returns the scratch buffer.
func (m *Manager) send(seg *segment, site string, x parcel, s sending) []byte {
	if seg.ways.refuses(site) {
		seg.counts.add(DropMode, 1)
		return s.scratch
	}
	if seg.Mode == SecureFast {
		m.sendExpress(seg, site, x, s)
		return s.scratch
	}
	frame := x.frame
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
