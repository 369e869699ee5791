package l2ext

import (
	"fmt"
	"slices"
	"testing"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// announcedHost notes who is announced in its LANs.
type announcedHost struct {
	sinkHost
	announced []string // segment and MAC
}

func (h *announcedHost) WritePacket(b []byte) error {
	p, _, err := vxlan.Parse(b)
	if err != nil {
		return err
	}
	f, err := ether.Parse(p.Frame)
	h.announced = append(h.announced, fmt.Sprint(p.VNI, f.Src))
	return err
}

// TestUntoldIsBounded tells of hosts again and again, while the loop gets to nothing else:
// few wait, all are announced in their order, and those of a segment that has been removed are left out.
func TestUntoldIsBounded(t *testing.T) {
	h := &announcedHost{}
	m, err := New(Config{Site: "a", Host: h, Carrier: sinkCarrier{}})
	if err != nil {
		t.Fatal(err)
	}
	first, second := m.keepOrMake(nil, Segment{Name: "first", VNI: 1}), m.keepOrMake(nil, Segment{Name: "second", VNI: 2})
	m.state.Store(&map[uint32]*segment{1: first, 2: second})
	var want []string
	tell := func(seg *segment, n int) {
		var told []*moved
		for range n {
			mac := MAC{2, 0, 0, byte(seg.VNI), byte(len(want) >> 8), byte(len(want))}
			told = append(told, &moved{mac: mac})
			want = append(want, fmt.Sprint(seg.VNI, mac))
		}
		m.tellLAN(seg, told)
		if len(m.untold) > maxUntold {
			t.Errorf("%d hosts wait", len(m.untold))
		}
	}
	tell(first, 1)
	if len(h.announced) != 1 {
		t.Errorf("of one host %d are announced at once", len(h.announced))
	}
	for range 2 * maxUntold / announce.MaxMACs {
		tell(first, announce.MaxMACs)
	}
	tell(second, 2*maxUntold)
	tell(first, 1)
	waiting := len(m.untold)
	m.state.Store(&map[uint32]*segment{1: m.keepOrMake(nil, Segment{Name: "first", VNI: 1})})
	for range waiting {
		m.tellSome()
	}
	last := len(want) - 1
	want = append(want[:len(want)-waiting], want[last]) // the others were of the second
	if len(m.untold) != 0 || !slices.Equal(h.announced, want) {
		t.Errorf("%d hosts were announced of %d, %d wait", len(h.announced), len(want), len(m.untold))
	}
}
