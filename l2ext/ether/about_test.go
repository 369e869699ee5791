package ether

import (
	"net/netip"
	"slices"
	"testing"
)

func TestAbout(t *testing.T) {
	for _, tt := range []struct {
		name           string
		frame          []byte
		sender, target string
	}{
		{"ARP request", arpRequest, "192.168.0.1", "192.168.0.2"},
		{"tagged", tagged, "192.168.0.1", "192.168.0.2"},
		{"solicitation", solicit, "fe80::5054:ff:fe00:9", "fe80::2"},
		{"advertisement", advert, "fe80::5054:ff:fe00:9", "fe80::5054:ff:fe00:9"},
		{"advertisement behind options", behindOptions(advert), "fe80::5054:ff:fe00:9", "fe80::5054:ff:fe00:9"},
	} {
		h, _ := Parse(tt.frame)
		sender, target := About(h, tt.frame)
		if sender != netip.MustParseAddr(tt.sender) || target != netip.MustParseAddr(tt.target) {
			t.Errorf("%s: got %v, %v", tt.name, sender, target)
		}
		for i := range tt.frame {
			if h, err := Parse(tt.frame[:i]); err == nil {
				About(h, tt.frame[:i])
			}
		}
	}
	for name, frame := range map[string][]byte{"BPDU": bpdu, "IPv4": long(false, 100, 0, protoUDP), "IPv6": long(true, 100, 0, protoUDP)} {
		h, _ := Parse(frame)
		if sender, target := About(h, frame); sender.IsValid() || target.IsValid() {
			t.Errorf("%s: got %v, %v", name, sender, target)
		}
	}
}

// behindOptions puts destination options between the headers of a frame of IPv6 without a tag.
func behindOptions(frame []byte) []byte {
	options := []byte{frame[HeaderLen+6], 0, 1, 4, 0, 0, 0, 0}
	out := slices.Insert(slices.Clone(frame), HeaderLen+ipv6Len, options...)
	out[HeaderLen+5] += byte(len(options))
	out[HeaderLen+6] = extDest
	return out
}
