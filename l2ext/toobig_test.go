package l2ext_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// udpFrame is a packet of n bytes, all told, from hostMAC to vmMAC.
func udpFrame(v6 bool, n int) []byte {
	b := append(bytes.Clone(vmMAC[:]), hostMAC[:]...)
	if v6 {
		src, dst := netip.MustParseAddr("fe80::7").As16(), netip.MustParseAddr("fe80::9").As16()
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, byte((n-40)>>8), byte(n-40), 17, 64)
		b = append(append(b, src[:]...), dst[:]...)
	} else {
		b = append(b, 8, 0, 0x45, 0, byte(n>>8), byte(n), 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 7, 10, 0, 0, 9)
	}
	return append(b, make([]byte, n-(len(b)-14))...)
}

// TestTooBigForIPv6 sends packets over a segment with an MTU that is less than IPv6 needs: its senders would not send shorter
// ones than 1280 bytes, whatever they are told, so that those cross.
func TestTooBigForIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		for s, m := range w.ms {
			seg := segment(s, []string{"a", "b"})
			seg.MTU = 1000
			check(t, m.Apply(t.Context(), []l2ext.Segment{seg}))
		}
		w.appear("b", "lan", vmMAC, "fe80::9")
		w.appear("a", "lan", hostMAC, "fe80::7")
		w.receive("a", "lan", vmMAC)
		w.receive("b", "lan", hostMAC)
		for _, tt := range []struct {
			name string
			v6   bool
			n    int
			told uint16 // MTU that the sender is told; 0: the packet crosses
		}{
			{"IPv4", false, 1000, 0},
			{"IPv4, too long", false, 1001, 1000},
			{"IPv6", true, 1280, 0},
			{"IPv6, too long", true, 1281, 1280},
		} {
			check(t, w.hosts["a"].Send("lan", udpFrame(tt.v6, tt.n)))
			w.settle()
			if got := w.receive("b", "lan", hostMAC); (len(got) == 1) != (tt.told == 0) {
				t.Errorf("%s: %d frames have crossed", tt.name, len(got))
			}
			var told uint16
			for _, f := range w.receive("a", "lan", vmMAC) {
				told = binary.BigEndian.Uint16(f[ether.HeaderLen+20+6:])
				if tt.v6 {
					told = binary.BigEndian.Uint16(f[ether.HeaderLen+40+6:])
				}
			}
			if told != tt.told {
				t.Errorf("%s: the sender is told MTU %d, want %d", tt.name, told, tt.told)
			}
		}
	})
}

// TestTooBigBehindTag has a host in a VLAN of a trunk that is stretched as it is: the answer comes in its VLAN.
func TestTooBigBehindTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		w.appear("b", "lan", vmMAC, "")
		w.appear("a", "lan", hostMAC, "")
		w.receive("a", "lan", vmMAC)
		w.receive("b", "lan", hostMAC)
		for _, v6 := range []bool{false, true} {
			check(t, w.hosts["a"].Send("lan", ether.AppendTagged(nil, udpFrame(v6, 1500), 7)))
			w.settle()
			if n := len(w.receive("b", "lan", hostMAC)); n != 1 {
				t.Errorf("IPv6 %t: %d full frames have crossed", v6, n)
			}
			check(t, w.hosts["a"].Send("lan", ether.AppendTagged(nil, udpFrame(v6, 1501), 7)))
			w.settle()
			if n := len(w.receive("b", "lan", hostMAC)); n != 0 {
				t.Errorf("IPv6 %t: %d frames that are too long have crossed", v6, n)
			}
			got := w.receive("a", "lan", vmMAC)
			if len(got) != 1 {
				t.Fatalf("IPv6 %t: %d answers", v6, len(got))
			}
			h, err := ether.Parse(got[0])
			vid, tagged := ether.VID(got[0])
			want, at, told := []byte{3, 4}, h.Payload+20, got[0][h.Payload+26:] // ICMP: type and code, offset, MTU
			if v6 {
				want, at, told = []byte{2, 0}, h.Payload+40, got[0][h.Payload+46:]
			}
			if err != nil || !tagged || vid != 7 || h.Dst != hostMAC || !bytes.Equal(got[0][at:at+2], want) || binary.BigEndian.Uint16(told) != 1500 {
				t.Errorf("IPv6 %t: the answer is % x", v6, got[0][:80])
			}
		}
	})
}
