package l2ext

import (
	"fmt"
	"testing"
	"time"
)

// TestParkingOfManySegments parks frames for many MACs of many segments: what all keep together is bounded, with what
// each is kept in, and comes back when the frames are taken out, or their segment goes.
func TestParkingOfManySegments(t *testing.T) {
	const segments, macs, frames, least = 8, 4, 100, 14
	m, err := New(Config{Site: "b", Host: &sinkHost{}, Carrier: sinkCarrier{}})
	if err != nil {
		t.Fatal(err)
	}
	const room = segments * macs * frames / 2 // of all
	m.parking.most = room * (least + frameCost)
	mac := func(i int) MAC { return MAC{2, 0, 0, 0, 0, byte(i)} }
	now, all := time.Now(), make(map[uint32]*segment)
	kept := func() (n int) {
		for _, s := range all {
			n += int(s.counts[Parked].Load())
		}
		return n
	}
	for vni := range uint32(segments) {
		s := m.keepOrMake(nil, Segment{Name: fmt.Sprint(vni), VNI: vni, Sites: []string{"a"}})
		all[vni] = s
		for i := range macs {
			s.lot.open(now, mac(i))
			for range frames {
				if !s.park(mac(i), parcel{frame: make([]byte, least)}, straight) {
					t.Fatal("not taken")
				}
			}
		}
	}
	if n := kept(); n != room || all[segments-1].counts[DropParked].Load() != macs*frames {
		t.Errorf("%d frames are kept", n)
	}
	all[0].empty([]MAC{mac(0), mac(1)}, func(parcel) {})
	if used := int(m.parking.used.Load()); used != (room-2*frames)*(least+frameCost) {
		t.Errorf("%d bytes are used", used)
	}
	for vni, s := range all {
		switch vni % 2 {
		case 0:
			endLots(map[uint32]*segment{vni: s}, nil)
		default:
			if next, lost := s.lot.emptied(); len(next.byMAC) != macs || vni == 1 && lost != macs*frames {
				t.Errorf("segment %d: %d MACs, %d lost", vni, len(next.byMAC), lost)
			}
		}
		s.lot.open(now, mac(0)) // who still has the old one
		if s.park(mac(0), parcel{frame: make([]byte, least)}, straight) {
			t.Errorf("segment %d: taken, and nobody will give it back", vni)
		}
	}
	if used := m.parking.used.Load(); used != 0 {
		t.Errorf("in the end %d bytes are used", used)
	}
}
