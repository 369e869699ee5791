package l2ext

import (
	"fmt"
	"slices"
	"testing"

	"github.com/longhaul-project/longhaul/l2ext/fast"
)

// expressManager is a manager that does not run, with segments in the mode that it shares with b.
func expressManager(t testing.TB, segments int) *Manager {
	m, err := New(Config{Site: "a", Host: sinkHost{}, Carrier: sinkCarrier{}})
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[uint32]*segment)
	for i := range segments {
		vni := uint32(i + 1)
		all[vni] = m.keepOrMake(nil, Segment{Name: fmt.Sprint("s", vni), VNI: vni, Mode: SecureFast, Sites: []string{"b"}})
	}
	m.state.Store(&all)
	first := firstExpress(all)
	m.first.Store(&first)
	return m
}

func TestFirstExpress(t *testing.T) {
	all := make(map[uint32]*segment)
	for vni, sites := range map[uint32][]string{1: nil, 2: {"c"}, 3: {"b", "c"}, 4: {"b"}} {
		all[vni] = &segment{Segment: Segment{VNI: vni, Mode: SecureFast, Sites: sites}}
	}
	all[1].Mode = Secure
	first := firstExpress(all)
	if len(first) != 3 || first[""] != all[2] || first["b"] != all[3] || first["c"] != all[2] {
		t.Errorf("first: %v", first)
	}
}

// BenchmarkStranger: what a datagram of nobody costs.
func BenchmarkStranger(b *testing.B) {
	for _, segments := range []int{1, 1000} {
		b.Run(fmt.Sprintf("segments=%d", segments), func(b *testing.B) {
			m := expressManager(b, segments)
			d := slices.Concat([]byte{0x1c, 1, 0, 0, 1, 2, 3, 4}, make([]byte, fast.Overhead))
			b.SetBytes(int64(len(d)))
			b.ReportAllocs()
			for b.Loop() {
				m.HandleExpress(d, len(d))
			}
			if got := m.segments()[1].counts[DropForged].Load(); got < uint64(b.N) {
				b.Errorf("%d of %d were counted", got, b.N)
			}
		})
	}
}
