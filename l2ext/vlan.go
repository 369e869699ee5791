package l2ext

import (
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/fast"
)

// A segment may be one VLAN of its bridge (Segment.VLAN). Its frames have a tag in the
// LAN, and none between the sites, each of which has a VLAN of its own for it: the
// gateway takes the tag off as the first thing, and puts it on as the last. So nothing
// in between knows of tags, nor does a capture. What the tag says of priority ends here.
//
// Segments of one bridge are its VLANs, and one may be what has no tag. A bridge that
// does not filter VLANs forwards by the MAC alone and has one entry for it, so that a
// frame for a host that several of them know, such as a router, may come by the port
// of another: it is the tag that counts. Of a frame that is flooded each port gets a
// copy, and only its own segment's takes it.

// vlansOf finds the segments of each bridge by VLAN. A segment that has its bridge to
// itself, without tags, has none: all that the bridge has is its own, as it is.
func vlansOf(segments map[uint32]*segment) {
	byBridge := make(map[string]map[uint16]*segment)
	for _, s := range segments {
		if byBridge[s.Bridge] == nil {
			byBridge[s.Bridge] = make(map[uint16]*segment)
		}
		byBridge[s.Bridge][s.VLAN] = s
	}
	for _, s := range segments {
		if all := byBridge[s.Bridge]; len(all) > 1 || s.VLAN != 0 {
			s.vlans = all
		}
	}
}

// shares tells whether other segments are on the same bridge.
func (s *segment) shares() bool { return len(s.vlans) > 1 }

// ofLAN finds the segment of a frame that has come by the port of s, and takes its tag
// off. It drops what is of no segment, and copies of what is another's.
func (s *segment) ofLAN(x parcel) (*segment, parcel, bool) {
	vid, ok := ether.VID(x.frame)
	of := s
	if vid != s.VLAN {
		of = s.vlans[vid]
		ok = ok && of != nil && s.sentHere(x.frame)
	}
	if ok && of.VLAN != 0 {
		x = x.untagged()
		ok = len(x.frame) >= ether.HeaderLen && !ether.Tagged(x.frame) // a tag below would be the outer one at another site
	}
	if !ok {
		s.counts.add(DropVLAN, 1)
	}
	return of, x, ok
}

// sentHere tells whether a bridge has sent a frame to this segment's port alone: it has
// an entry for one host.
func (s *segment) sentHere(frame []byte) bool {
	dst := MAC(frame[:6])
	if dst.Group() {
		return false
	}
	site, b := s.lookup(dst)
	return site != "" && (b.parked || s.endpoint[site] != 0)
}

// fromWAN drops frames of other sites that have a tag: they would be those of another
// VLAN here. One that has only a priority is taken without it where it gets a tag.
func (s *segment) fromWAN(x parcel) (parcel, bool) {
	vid, ok := ether.VID(x.frame)
	if ok && vid == 0 && s.VLAN != 0 && ether.Tagged(x.frame) {
		x = x.untagged()
		ok = !ether.Tagged(x.frame)
	}
	if !ok || vid != 0 {
		s.counts.add(DropVLAN, 1)
		return x, false
	}
	return x, true
}

// untagged is the parcel without its frame's tag. It changes the frame in place.
func (x parcel) untagged() parcel {
	if x.message == nil {
		x.frame = ether.Untag(x.frame)
		return x
	}
	own, err := parcelOf(fast.Cut(x.message, ether.MACsLen, ether.TagLen))
	if err != nil {
		return parcel{} // a frame of no length, which nobody takes
	}
	own.flooded, own.from = x.flooded, x.from
	return own
}

// asTagged is asMessage with the tag of a VLAN in the frame.
func (x parcel) asTagged(vid uint16, scratch []byte) (message []byte) {
	if x.message == nil {
		return ether.AppendTagged(fast.Plain(scratch[:0]), x.frame, vid)
	}
	tag := ether.Tag(vid)
	return fast.AppendWith(scratch[:0], x.message, ether.MACsLen, tag[:]...)
}

// pointOthers makes entries of other segments of the bridge again. Where the bridge has
// one entry for a MAC, it has just been taken away from all of them.
func (m *Manager) pointOthers(seg *segment, entries []Entry) {
	for _, other := range seg.vlans {
		if other == seg {
			continue
		}
		var again []Entry
		other.mu.RLock()
		for _, e := range entries {
			if b := other.table.byMAC[e.MAC]; e.Site == 0 && b != nil {
				if own, ok := other.entry(e.MAC, b); ok {
					again = append(again, own)
				}
			}
		}
		other.mu.RUnlock()
		if len(again) == 0 {
			continue
		}
		if err := m.cfg.Host.Point(other.VNI, again); err != nil {
			m.dirty = true
			m.log.Warn("forwarding entries not programmed; will be tried again", "segment", other.Name, "err", err)
		}
	}
}
