package l2ext

import (
	"testing"
	"time"
)

// TestStaleSightings has the host report hosts of two segments before it gets to know that
// one of them is on another LAN now: of that one they are forgotten, of the other not.
func TestStaleSightings(t *testing.T) {
	m, err := New(Config{Site: "a", Host: &sinkHost{}, Carrier: sinkCarrier{}})
	if err != nil {
		t.Fatal(err)
	}
	moved, same := m.keepOrMake(nil, Segment{Name: "moved", VNI: 100}), m.keepOrMake(nil, Segment{Name: "same", VNI: 200})
	m.state.Store(&map[uint32]*segment{100: moved, 200: same})
	now := time.Unix(1000, 0)
	moved.table.see(now, MAC{2, 0, 0, 0, 0, 1}, false)
	for _, vni := range []uint32{100, 200, 100} {
		m.seen <- Sighting{VNI: vni, MAC: vm}
	}
	m.letStrangersGo(now, map[*segment]bool{moved: true})
	for mac, b := range moved.table.byMAC {
		if !b.withdrawn() {
			t.Errorf("%v is bound still", mac)
		}
	}
	if b := same.table.byMAC[vm]; b == nil || b.withdrawn() {
		t.Errorf("the host of the other segment: %+v", b)
	}
}
