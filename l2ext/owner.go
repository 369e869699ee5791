package l2ext

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// A MAC has one owner: frames with its address as their source are carried from
// the site that owns it, and from no other. So a VM that was started twice
// confuses only the LAN of its twin.

// ErrNoMAC says that a segment does not know a MAC.
var ErrNoMAC = errors.New("l2ext: MAC is not known")

// admit tells whether a frame from this site's LAN may go on, and learns from it
// what it returns. Addresses behind a VLAN tag are those of another network.
func (m *Manager) admit(now time.Time, seg *segment, h ether.Header, frame []byte) (claim ether.Claim, ok bool) {
	if h.Payload == ether.HeaderLen {
		claim, _ = ether.Snoop(h, frame)
	}
	seg.mu.RLock()
	b := seg.table.byMAC[h.Src]
	ours := b.allows(m.cfg.Site)
	last := b.leftJustNow(now)
	fresh := ours && !seg.table.knows(h.Src, claim) || !ours && (claim.Announced || !last)
	if b != nil && b.hear(now, h.Type) {
		fresh = true
	}
	ours = ours || last
	seg.mu.RUnlock()
	if fresh {
		select {
		case m.seen <- Sighting{VNI: seg.VNI, MAC: h.Src, IP: claim.IP, Announced: claim.Announced, Router: claim.Router, speaks: h.Type != ether.TypeRARP}:
		default: // the loop is busy; the next frame tells it again
		}
	}
	if !ours {
		seg.counts.add(Conflicts, 1)
		seg.counts.add(DropOwner, 1)
	}
	return claim, ours
}

// admit tells whether the frame's source is where it comes from. Frames that
// were on their way when their host moved come from where it was.
func (i inward) admit(now time.Time, h ether.Header) bool {
	i.seg.mu.RLock()
	b := i.seg.table.byMAC[h.Src]
	ok := b.allows(i.from) || b.from == i.from && now.Sub(b.since) < MoveGrace
	owner := i.seg.table.site(h.Src)
	i.seg.mu.RUnlock()
	if ok {
		return true
	}
	i.seg.counts.add(Conflicts, 1)
	i.seg.counts.add(DropOwner, 1)
	if last := i.seg.alarmed.Load(); now.UnixNano()-last > int64(alarmEvery) && i.seg.alarmed.CompareAndSwap(last, now.UnixNano()) {
		odd := fmt.Sprintf("MAC %v of site %s sends from %s as well; its frames from there are dropped", h.Src, owner, i.from)
		i.m.noteOdd(now, i.seg, "segment is odd", odd, twin{h.Src, i.from})
	}
	return false
}

// A twin is what sends from a site that does not own its MAC.
type twin struct {
	mac  MAC
	from string
}

// explained tells that it was none: the site owns the MAC by now. After a restart a
// frame of a VM may arrive before the binding that tells of its move.
func (t *table) explained(w twin) bool {
	b := t.byMAC[w.mac]
	return w.from != "" && b != nil && !b.withdrawn() && b.rec.Site == w.from
}

// alarmEvery keeps a flood of foreign frames from writing alarms.
const alarmEvery = time.Second

// allows tells whether a MAC with this binding, which may be nil, can send from
// a site: nobody else owns it.
func (b *binding) allows(site string) bool {
	return b == nil || b.withdrawn() || b.rec.Site == site
}

// leftJustNow tells whether the MAC's last frames from this site may still be
// on their way.
func (b *binding) leftJustNow(now time.Time) bool {
	return b != nil && b.left && now.Sub(b.since) < settleTime
}

// ErrUntold says that a site could not be told what an operator has ordered.
var ErrUntold = errors.New("l2ext: site not told")

// Clear forgets, here and at all sites of the segment, that a MAC has moved too
// often: an operator has found its twin. It then goes where it is next seen. ErrUntold: it is
// cleared here, and still frozen at a site that the error names.
func (m *Manager) Clear(ctx context.Context, name string, mac MAC) error {
	return m.call(ctx, func() error {
		for _, seg := range m.segments() {
			if seg.Name != name {
				continue
			}
			if !m.clear(seg, []announce.MAC{mac}) {
				return fmt.Errorf("clearing %v on segment %s: %w", mac, name, ErrNoMAC)
			}
			return m.tellCleared(seg, mac)
		}
		return fmt.Errorf("clearing %v on segment %s: %w", mac, name, ErrNoSegment)
	})
}

// clear is Clear at this site; ok is false when none of the MACs is known.
func (m *Manager) clear(seg *segment, macs []announce.MAC) (ok bool) {
	seg.mu.Lock()
	defer seg.mu.Unlock()
	for _, mac := range macs {
		if b := seg.table.byMAC[MAC(mac)]; b != nil && !b.withdrawn() {
			b.moves, b.frozen, b.fence = nil, time.Time{}, time.Time{}
			ok = true
		}
	}
	if ok {
		seg.odd = "" // it comes back if it was about another
	}
	return ok
}

// refuse tells operators of a claim that is not granted.
func (m *Manager) refuse(now time.Time, seg *segment, mac MAC) {
	seg.counts.add(Fenced, 1)
	seg.mu.RLock()
	b := seg.table.byMAC[mac]
	site, frozen := b.rec.Site, now.Before(b.frozen)
	seg.mu.RUnlock()
	if frozen {
		m.setOdd(now, seg, fmt.Sprintf("MAC %v is claimed at this site and at %s in turn; it stays at %s for %.0f minutes, or until it is cleared", mac, site, site, freezeTime.Minutes()))
		return
	}
	m.setOdd(now, seg, fmt.Sprintf("MAC %v of site %s sends at this site as well; its frames from here are dropped", mac, site))
}

// bringHome binds a MAC that moves too often to where the last job has left it.
func (t *table) bringHome(now time.Time, b *binding) verdict {
	if b.home == "" || b.home == b.rec.Site {
		return fenced
	}
	frozen := b.frozen
	t.set(now, b, announce.Record{
		MAC: b.rec.MAC, Cause: announce.Moved, Router: b.rec.Router, Seq: b.rec.Seq + 1, Site: b.home, Job: b.homeJob, IPs: slices.Clone(b.rec.IPs),
	})
	b.frozen = frozen
	return broughtHome
}
