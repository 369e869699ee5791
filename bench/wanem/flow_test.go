package wanem

import (
	"encoding/json"
	"net/netip"
	"testing"
)

// frame builds an Ethernet frame with an IPv4 header.
func frame(proto byte, frag uint16, payload ...byte) []byte {
	b := make([]byte, 12, 64)
	b = append(b, 0x08, 0x00, 0x45, 0, 0, 40, 0, 0, byte(frag>>8), byte(frag), 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
	return append(b, payload...)
}

func TestFlowOf(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	v6 := append(make([]byte, 12), 0x86, 0xdd, 0x60, 0, 0, 0, 0, 4, 17, 64)
	v6 = append(append(v6, netip.MustParseAddr("fd00::1").AsSlice()...), netip.MustParseAddr("fd00::2").AsSlice()...)
	v6 = append(v6, 0x12, 0xb5, 0, 7)
	tests := []struct {
		name string
		b    []byte
		want Flow
	}{
		{"empty", nil, Flow{}},
		{"arp", append(make([]byte, 12), 0x08, 0x06), Flow{EtherType: 0x0806}},
		{"udp", frame(UDP, 0, 0x12, 0xb5, 0, 7), Flow{0x0800, UDP, a, b, 4789, 7}},
		{"tcp, do not fragment", frame(TCP, 0x4000, 0, 22, 1, 2), Flow{0x0800, TCP, a, b, 22, 258}},
		{"icmp", frame(ICMP, 0, 8, 0, 1, 1), Flow{0x0800, ICMP, a, b, 0, 0}},
		{"later fragment", frame(UDP, 0x00b9, 1, 2, 3, 4), Flow{0x0800, UDP, a, b, 0, 0}},
		{"udp cut short", frame(UDP, 0, 1, 2, 3), Flow{0x0800, UDP, a, b, 0, 0}},
		{"ipv6", v6, Flow{0x86dd, UDP, netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 4789, 7}},
		{"ip cut short", frame(UDP, 0)[:20], Flow{EtherType: 0x0800}},
	}
	for _, tt := range tests {
		if got := flowOf(tt.b); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// FuzzFlowOf: any frame has a flow, and none panics.
func FuzzFlowOf(f *testing.F) {
	f.Add(frame(TCP, 0, 0, 22, 1, 2))
	f.Add(frame(UDP, 0x2000, 1))
	f.Add(append(make([]byte, 12), 0x86, 0xdd))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := flowOf(b); got.Src.IsValid() != got.Dst.IsValid() || got.String() == "" {
			t.Errorf("%x: %v", b, got)
		}
	})
}

func TestCountersJSON(t *testing.T) {
	l := NewLine(Profile{}, 1, 128)
	for _, b := range [][]byte{frame(TCP, 0, 0, 22, 1, 2), frame(UDP, 0, 0, 53, 1, 2)} {
		l.Arrive(0, append(l.Buffer()[:0], b...), 0)
	}
	want := l.Counters()
	enc, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Counters
	if err := json.Unmarshal(enc, &got); err != nil {
		t.Fatal(err)
	}
	if got.In != want.In || got.Sum(func(f Flow) bool { return f.Between(TCP, 22) }) != (Count{1, 38}) || len(got.Flows) != 2 {
		t.Errorf("%s became %+v", enc, got)
	}
}
