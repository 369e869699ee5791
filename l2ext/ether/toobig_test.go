package ether

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// long makes the frame of a packet with n bytes of payload.
func long(v6 bool, n int, flags uint16, proto byte) []byte {
	if v6 {
		f := ipv6("0000000000aa", "fe800000000000000000000000000002", proto, "")
		binary.BigEndian.PutUint16(f[HeaderLen+4:], uint16(n))
		return append(f, bytes.Repeat([]byte{128}, n)...)
	}
	f := ipv4("0000000000aa", "0a000002", proto, "")
	binary.BigEndian.PutUint16(f[HeaderLen+2:], uint16(20+n))
	binary.BigEndian.PutUint16(f[HeaderLen+6:], flags)
	return append(f, bytes.Repeat([]byte{8}, n)...)
}

func TestTooBig(t *testing.T) {
	icmpError := long(false, 1600, flagDF, protoICMP)
	icmpError[HeaderLen+20] = 3
	icmp6Error := long(true, 1600, 0, protoICMPv6)
	icmp6Error[HeaderLen+40] = 1
	group := long(false, 1600, flagDF, protoUDP)
	group[0] = 1
	nobody := long(false, 1600, flagDF, protoUDP)
	clear(nobody[HeaderLen+12 : HeaderLen+16])
	padded := append(long(false, 100, flagDF, protoUDP), make([]byte, 2000)...)
	for _, tt := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"IPv4", long(false, 1481, flagDF, protoUDP), true},
		{"IPv4 that fits", long(false, 1480, flagDF, protoUDP), false},
		{"IPv4 that may be cut", long(false, 1481, 0, protoUDP), false},
		{"a later fragment", long(false, 1481, flagDF|1, protoUDP), false},
		{"a ping", long(false, 1481, flagDF, protoICMP), true},
		{"an ICMP error", icmpError, false},
		{"to a group", group, false},
		{"from nobody", nobody, false},
		{"padding", padded, false},
		{"IPv6", long(true, 1461, 0, protoUDP), true},
		{"IPv6 that fits", long(true, 1460, 0, protoUDP), false},
		{"an ICMPv6 error", icmp6Error, false},
		{"ARP", append(bytes.Clone(arpRequest), make([]byte, 2000)...), false},
	} {
		h, err := Parse(tt.frame)
		if err != nil {
			t.Fatal(err)
		}
		if got := TooBig(h, tt.frame, 1500); got != tt.want {
			t.Errorf("%s: got %t", tt.name, got)
		}
	}
}

func TestAppendTooBig(t *testing.T) {
	v4 := long(false, 1600, flagDF, protoUDP)
	h, _ := Parse(v4)
	got := AppendTooBig(nil, h, v4, 1500)
	want := unhex(`525400000009 0000000000aa 0800  45c00240 0000 4000 40 01 23fb 0a000002 0a000001  0304`)
	if !bytes.HasPrefix(got, want) || len(got) != HeaderLen+576 {
		t.Errorf("got %x, want %x", got[:len(want)], want)
	}
	ip := got[HeaderLen:]
	if checksum(0, ip[:20]) != 0xffff || checksumAny(0, ip[20:]) != 0xffff {
		t.Error("a checksum is wrong")
	}
	if !bytes.Equal(ip[20:22], []byte{3, 4}) || binary.BigEndian.Uint16(ip[26:]) != 1500 || !bytes.HasPrefix(v4[HeaderLen:], ip[28:]) {
		t.Errorf("ICMP is %x", ip[20:60])
	}
	v6 := long(true, 1601, 0, protoUDP)
	h, _ = Parse(v6)
	ip = AppendTooBig(nil, h, v6, 1400)[HeaderLen:]
	length := binary.BigEndian.Uint16(ip[4:])
	sum := checksum(checksum(0, ip[8:40]), []byte{0, 0, byte(length >> 8), byte(length), 0, 0, 0, protoICMPv6})
	if checksumAny(sum, ip[40:]) != 0xffff || len(ip) != 1280 || int(length) != len(ip)-40 {
		t.Errorf("checksum adds up to %#x, %d bytes", checksumAny(sum, ip[40:]), len(ip))
	}
	if ip[40] != 2 || binary.BigEndian.Uint32(ip[44:]) != 1400 || !bytes.HasPrefix(v6[HeaderLen:], ip[48:]) {
		t.Errorf("ICMPv6 is %x", ip[40:60])
	}
	if !bytes.Equal(ip[8:24], v6[HeaderLen+24:HeaderLen+40]) || !bytes.Equal(ip[24:40], v6[HeaderLen+8:HeaderLen+24]) {
		t.Error("the addresses are wrong")
	}
}

// FuzzTooBig: an answer is never answered, and is well formed.
func FuzzTooBig(f *testing.F) {
	f.Add(long(false, 600, flagDF, protoUDP), uint16(576))
	f.Add(long(true, 1600, 0, protoUDP), uint16(1400))
	f.Fuzz(func(t *testing.T, b []byte, mtu uint16) {
		h, err := Parse(b)
		if err != nil || mtu < 576 || !TooBig(h, b, int(mtu)) {
			return
		}
		answer := AppendTooBig(nil, h, b, int(mtu))
		back, err := Parse(answer)
		if err != nil || back.Dst != h.Src || back.Payload != h.Payload || len(answer) > back.Payload+1280 || len(answer) > len(b)+48 {
			t.Fatalf("%x is answered with %x, %v", b, answer, err)
		}
		if TooBig(back, answer, 0) {
			t.Errorf("%x would be answered", answer)
		}
	})
}
