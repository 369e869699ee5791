package vxlan

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
)

var arp = unhex("ffffffffffff525400000009" + "0806" + "0001080006040001525400000009c0a80001000000000000c0a80002")

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

func TestAppend(t *testing.T) {
	p := Packet{VNI: 100, From: FirstSite, To: Self, Frame: arp}
	want := unhex(`60000000 003a 11 40
		fe800000000000000000000000000010 fe800000000000000000000000000001
		39c5 39c5 003a 0000  08000000 00006400`)
	want = append(want, arp...)
	got := p.Append(nil)
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%x, want\n%x", got, want)
	}
	back, n, err := Parse(got)
	if err != nil || n != len(got) || back.VNI != 100 || back.From != FirstSite || back.To != Self || !bytes.Equal(back.Frame, arp) {
		t.Errorf("Parse: %+v, %d, %v", back, n, err)
	}
	for i := range got {
		if _, _, err := Parse(got[:i]); !errors.Is(err, ErrShort) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// kernelPackets were captured from a TUN under a VXLAN device of Linux 6.18.
func kernelPackets(t testing.TB) [][]byte {
	raw, err := os.ReadFile("testdata/kernel.hex")
	if err != nil {
		t.Fatal(err)
	}
	var ps [][]byte
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			ps = append(ps, unhex(line))
		}
	}
	return ps
}

func TestParseKernel(t *testing.T) {
	for i, b := range kernelPackets(t) {
		p, n, err := Parse(b)
		if err != nil || n != len(b) || p.VNI != 100 || p.From != Self {
			t.Errorf("packet %d: %+v, %d, %v", i, p, n, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := Packet{VNI: 1, From: Self, To: Everyone, Frame: arp}.Append(nil)
	for _, tt := range []struct {
		name string
		at   int
		to   byte
	}{
		{"IPv4", 0, 0x45}, {"not UDP", 6, 58}, {"foreign source", 8, 0x20}, {"endpoint 0", 39, 0},
		{"other port", 42, 0}, {"UDP length", 45, 0x10}, {"flags", 48, 0x0c},
	} {
		b := bytes.Clone(good)
		b[tt.at] = tt.to
		if p, _, err := Parse(b); !errors.Is(err, ErrOther) {
			t.Errorf("%s: %+v, %v", tt.name, p, err)
		}
	}
}

func TestFromAddr(t *testing.T) {
	for _, s := range []string{"::", "fe80::", "fe80::1:1", "10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"} {
		if e, ok := FromAddr(netip.MustParseAddr(s)); ok {
			t.Errorf("%s is endpoint %d", s, e)
		}
	}
	for _, e := range []Endpoint{Self, Everyone, FirstSite, 0xffff} {
		if got, ok := FromAddr(e.Addr()); !ok || got != e {
			t.Errorf("endpoint %d came back as %d, %t", e, got, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range kernelPackets(f) {
		f.Add(b)
	}
	f.Add(Packet{VNI: MaxVNI, From: 0xffff, To: Self, Frame: arp}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, n, err := Parse(b)
		if err != nil {
			return
		}
		// The kernel chooses flow label, ports and checksum; the rest must survive.
		again := p.Append(nil)
		if len(again) != n {
			t.Fatalf("%x took %d bytes and is written in %d", b, n, len(again))
		}
		q, _, err := Parse(again)
		if err != nil || q.VNI != p.VNI || q.From != p.From || q.To != p.To || !bytes.Equal(q.Frame, p.Frame) {
			t.Errorf("%+v came back as %+v, %v", p, q, err)
		}
	})
}

func BenchmarkParseAppend(b *testing.B) {
	in := Packet{VNI: 100, From: Self, To: Everyone, Frame: make([]byte, 1514)}.Append(nil)
	var out []byte
	b.SetBytes(int64(len(in) - Overhead))
	b.ReportAllocs()
	for b.Loop() {
		p, _, err := Parse(in)
		if err != nil {
			b.Fatal(err)
		}
		out = p.Append(out[:0])
	}
}
