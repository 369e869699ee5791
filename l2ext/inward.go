package l2ext

import (
	"errors"
	"fmt"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/frag"
)

// errStranger says that a site sends what it has no right to.
var errStranger = errors.New("l2ext: not on the segment")

// errMode says that a site carries a segment in another way than this one.
var errMode = errors.New("l2ext: frame of another mode")

// HandleDatagram takes a datagram of frames from a site, steps 6 and 7 of the
// map. It borrows b, and may change it. What is wrong with it is counted, and returned for a log;
// nothing that a peer sends makes it panic.
func (m *Manager) HandleDatagram(site string, b []byte) error {
	now := time.Now()
	h, n, err := frag.Parse(b)
	if err != nil {
		return fmt.Errorf("datagram from %s: %w", site, err)
	}
	seg, err := m.origin(site, h.VNI, Secure)
	if err != nil {
		return fmt.Errorf("frame from %s, VNI %d: %w", site, h.VNI, err)
	}
	p := m.peer(site)
	if p == nil {
		seg.counts.add(DropNoSegment, 1)
		return fmt.Errorf("frame from %s, VNI %d: %w", site, h.VNI, errStranger)
	}
	p.rx.Lock()
	defer p.rx.Unlock()
	frame, err := p.rejoin.Add(now, h, b[n:])
	if err != nil {
		seg.counts.add(DropMalformed, 1)
		return fmt.Errorf("datagram from %s: %w", site, err)
	}
	if frame != nil {
		i := inward{m: m, seg: seg, from: site, peer: p, redirected: h.Redirected}
		i.frame(now, parcel{frame: frame})
	}
	return nil
}

// origin finds the segment of a frame that a site has sent in a mode. It fails, and
// counts the frame if the segment is known, when the site has no right to it. The errors
// are made once: a peer that is wrong may be so with every frame.
func (m *Manager) origin(site string, vni uint32, mode Mode) (seg *segment, err error) {
	seg = m.segments()[vni]
	switch {
	case seg == nil:
		return nil, errStranger
	case seg.in[site] == nil:
		seg.counts.add(DropNoSegment, 1)
		return seg, errStranger
	case seg.Mode != mode || seg.ways.refuses(site):
		seg.counts.add(DropMode, 1)
		return seg, errMode
	}
	return seg, nil
}

// inward is one frame from another site.
type inward struct {
	m          *Manager
	seg        *segment
	from       string
	peer       *peer
	redirected bool
}

func (i inward) frame(now time.Time, x parcel) {
	if i.seg.vlans != nil {
		var ok bool
		if x, ok = i.seg.fromWAN(x); !ok {
			return
		}
	}
	frame := x.frame
	i.seg.taps.see(now, frame, true)
	if i.takeEcho(now, frame) {
		return
	}
	h, class, ok := i.seg.judge(now, x, i.seg.in[i.from])
	if !ok {
		return
	}
	if !i.redirected && !i.admit(now, h) { // what was redirected has its source anywhere
		return
	}
	if i.refuseTooBig(now, h, x) {
		return
	}
	if class != ether.Unicast {
		i.seg.objections.expect(now, i.from, h, frame)
		if i.seg.fromTunnel(i.m, now, i.from, h, frame) {
			i.deliver(h, x)
		}
		return
	}
	switch site, b := i.seg.lookup(h.Dst); {
	case site == i.m.cfg.Site:
		if !b.parked || !i.seg.park(h.Dst, x, route(i.redirected)) {
			i.deliver(h, x)
		}
	case b.coming && site == i.from && i.seg.parkEarly(now, h.Dst, x):
	case site == "":
		if drop, ok := i.seg.in[i.from].allow(now, class, x.packets()); !ok {
			i.seg.counts.add(drop, 1)
			return
		}
		i.deliver(h, x)
	case b.parked && i.seg.park(h.Dst, x, route(i.redirected)): // it is going back, behind those that waited
	case b.left && now.Sub(b.since) < MoveGrace && !i.redirected:
		i.seg.counts.add(Redirected, 1)
		i.peer.scratch = i.m.send(i.seg, site, x, sending{header: h, redirected: true, scratch: i.peer.scratch})
	default:
		i.seg.counts.add(DropHorizon, 1)
	}
}

// deliver gives the frame to the bridge. The segment size is lowered on this
// way, too: the other site may have a longer datagram than we have.
func (i inward) deliver(h ether.Header, x parcel) {
	x.from = i.seg.endpoint[i.from]
	if i.seg.Mode == Secure && ether.IsSYN(h, x.frame) { // else the link is not asked: that costs as much as all the rest
		if max := i.m.cfg.Carrier.MaxDatagram(i.from); max > frag.HeaderLen && ether.ClampMSS(h, x.frame, max-frag.HeaderLen) {
			i.seg.counts.add(Clamped, 1)
		}
	}
	var err error
	if i.peer.packet, err = i.m.toLAN(i.seg, x, i.peer.packet); err != nil {
		i.seg.counts.add(DropCarrier, 1)
		return
	}
	i.seg.counts.add(Received, 1)
	i.seg.counts.add(ReceivedBytes, len(x.frame))
}
