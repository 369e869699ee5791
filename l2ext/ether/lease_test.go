package ether

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
)

// dhcp is what a server at 10.0.0.1 sends to give vm the address 10.0.0.77.
func dhcp(options ...byte) []byte {
	b := slices.Concat(vm[:], []byte{2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 1, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 77, 0, 67, 0, 68, 1, 0, 0, 0})
	d := make([]byte, dhcpLen)
	d[0], d[1], d[2] = 2, 1, 6
	copy(d[16:], []byte{10, 0, 0, 77})
	copy(d[28:], vm[:])
	copy(d[236:], []byte{0x63, 0x82, 0x53, 0x63})
	return slices.Concat(b, d, options)
}

func TestLease(t *testing.T) {
	ack := dhcp(0, 54, 4, 10, 0, 0, 1, 53, 1, 5, 255)
	lease := func(b []byte) (MAC, netip.Addr, bool) {
		h, err := Parse(b)
		if err != nil {
			return MAC{}, netip.Addr{}, false
		}
		return Lease(h, b)
	}
	if mac, ip, ok := lease(ack); !ok || mac != vm || ip != netip.MustParseAddr("10.0.0.77") {
		t.Errorf("leased %v to %v, %t", ip, mac, ok)
	}
	for i := range ack[:len(ack)-1] {
		if _, _, ok := lease(ack[:i]); ok {
			t.Errorf("cut at %d it is a lease", i)
		}
	}
	for name, change := range map[string]func(b []byte){
		"IPv6":     func(b []byte) { b[12], b[13] = 0x86, 0xdd },
		"TCP":      func(b []byte) { b[23] = 6 },
		"fragment": func(b []byte) { b[21] = 1 },
		"client":   func(b []byte) { b[35] = 68 },
		"relay":    func(b []byte) { b[37] = 67 },
		"request":  func(b []byte) { b[42] = 1 },
		"cookie":   func(b []byte) { b[42+236] = 0 },
		"offer":    func(b []byte) { b[len(b)-2] = 2 },
		"nothing":  func(b []byte) { copy(b[42+16:], []byte{0, 0, 0, 0}) },
		"no host":  func(b []byte) { b[42+28] = 1 },
	} {
		b := bytes.Clone(ack)
		change(b)
		if mac, ip, ok := lease(b); ok {
			t.Errorf("%s: leased %v to %v", name, ip, mac)
		}
	}
	if _, _, ok := lease(dhcp(255, 53, 1, 5)); ok {
		t.Error("what follows the end counts")
	}
}
