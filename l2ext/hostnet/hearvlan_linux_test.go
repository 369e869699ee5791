package hostnet

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestHearVLANs: the snooper hears the VLANs of segments, of those that come later, too,
// and takes nothing for a segment's that has another tag. One with only a priority is none.
func TestHearVLANs(t *testing.T) {
	ns := machine(t)
	lan, err := ns.Tap("lan0")
	check(t, err, ns.Bridge("br0", "lan0"))
	defer lan.Close()
	n := newNet(t, ns)
	seen := make(chan l2ext.Sighting)
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		_ = n.Watch(ctx, func(s l2ext.Sighting) {
			select {
			case seen <- s:
			case <-ctx.Done():
			}
		})
	})
	defer watching.Wait()
	defer cancel()
	say := func(mac byte, tags ...byte) {
		frame := ether.AppendAnnounce(nil, l2ext.MAC{2, 0, 0, 0, 0, mac}, ipOf(mac))
		_, err := lan.Write(slices.Insert(frame, ether.MACsLen, tags...))
		check(t, err)
	}
	const other, below, provider, priority, bare, first = 1, 2, 3, 4, 5, 9
	hears := func(step string, vids []uint16, last byte, tag ...byte) (vni uint32) {
		t.Helper()
		applied(t, n, inVLANs("br0", vids...)...)
		for deadline := time.Now().Add(l2exttest.Patience); time.Now().Before(deadline); {
			say(other, 0x81, 0, 0, 99)
			say(below, 0x81, 0, 0, 100, 0x81, 0, 0, 100)
			say(provider, 0x88, 0xa8, 0, 100)
			say(priority, 0x81, 0, 0xe0, 0)
			say(bare)
			say(last, tag...)
			for s, ok := next(seen); ok; s, ok = next(seen) {
				switch mac := s.MAC[5]; {
				case !s.IP.IsValid(), s.MAC[0] != 2, mac >= first && mac < last: // learned by the bridge, or of steps before
				case mac == last && s.IP == ipOf(last):
					return s.VNI
				case mac == last, (mac == bare || mac == priority) && slices.Contains(vids, 0):
				default:
					t.Errorf("%s: host %d was taken for one of the segment with VNI %d", step, mac, s.VNI)
				}
			}
		}
		t.Fatalf("%s: a host was not heard", step)
		return 0
	}
	if vni := hears("one", []uint16{100}, first, 0x81, 0, 0xe0, 100); vni != 100 {
		t.Errorf("it is on the segment with VNI %d", vni)
	}
	if vni := hears("another later", []uint16{100, 4094}, first+1, 0x81, 0, 0x0f, 0xfe); vni != 101 {
		t.Errorf("it is on the segment with VNI %d", vni)
	}
	if vni := hears("and one without", []uint16{100, 0}, first+2); vni != 101 {
		t.Errorf("it is on the segment with VNI %d", vni)
	}
	if vni := hears("with a priority only", []uint16{100, 0}, first+3, 0x81, 0, 0x60, 0); vni != 101 {
		t.Errorf("it is on the segment with VNI %d", vni)
	}
	if vni := hears("with no VLANs at all", []uint16{0}, first+4, 0x81, 0, 0x60, 0); vni != 100 {
		t.Errorf("it is on the segment with VNI %d", vni)
	}
}

// next waits a little for a sighting.
func next(seen chan l2ext.Sighting) (s l2ext.Sighting, ok bool) {
	select {
	case s = <-seen:
		return s, true
	case <-time.After(20 * time.Millisecond): // then it is asked for again
		return s, false
	}
}

func ipOf(mac byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, mac}) }

// TestSnoopFilters: the kernel takes the filter for as many VLANs as a machine may have.
func TestSnoopFilters(t *testing.T) {
	ns := machine(t)
	n := newNet(t, ns)
	f, err := n.openSnoop()
	check(t, err)
	defer f.Close()
	for _, many := range []int{0, 1, maxHeardVLANs, maxHeardVLANs + 1, 4094} {
		vids := make([]uint16, many)
		for i := range vids {
			vids[i] = uint16(i + 1)
		}
		if _, err := bpf.Assemble(snoopFilterFor(vids)); err != nil {
			t.Errorf("%d VLANs: %v", many, err)
		}
		if err := attachTo(f, snoopFilterFor(vids)); err != nil {
			t.Errorf("%d VLANs: %v", many, err)
		}
	}
}

// FuzzVIDIn: whatever stands beside a frame, a VLAN that can be is told, or none.
func FuzzVIDIn(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{36, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 8, 0, 0, 0, 0x51, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0, 0, 0, 14, 0, 100, 0xe0, 0, 0x81})
	f.Fuzz(func(t *testing.T, b []byte) {
		if vid := vidIn(b); vid > vidMask {
			t.Errorf("% x: VLAN %d", b, vid)
		}
	})
}
