package ether

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// ipv4 makes a frame that carries body over IPv4.
func ipv4(dstMAC, dst string, proto byte, body string) []byte {
	return unhex(dstMAC + "525400000009 0800 45000000 00000000 01" + fmt.Sprintf("%02x", proto) + "0000 0a000001" + dst + body)
}

// ipv6 likewise; next are its extension headers, whose first has number proto.
func ipv6(dstMAC, dst string, proto byte, body string) []byte {
	return unhex(dstMAC + "525400000009 86dd 60000000 0000" + fmt.Sprintf("%02x", proto) + "01 fe800000000000005054 00fffe000009" + dst + body)
}

const (
	all6    = "ff020000000000000000000000000001"
	vrrp6   = "ff020000000000000000000000000012"
	dhcp6   = "ff020000000000000000000000010002"
	routers = "ff020000000000000000000000000016"
)

func TestServiceOf(t *testing.T) {
	for _, tt := range []struct {
		name  string
		frame []byte
		want  Service
	}{
		{"router advertisement", ipv6("333300000001", all6, 58, "86 00 0000"), RouterAdvert},
		{"redirect to a host", ipv6("525400000001", "fe800000000000000000000000000001", 58, "89 00 0000"), RouterAdvert},
		{"advertisement behind an extension header", ipv6("333300000001", all6, 60, "3a00000000000000 86 00 0000"), RouterAdvert},
		{"advertisement in a first fragment", ipv6("333300000001", all6, 44, "3a00000100000001 86 00 0000"), RouterAdvert},
		{"neighbour advertisement", advert, Ordinary},
		{"VRRP", ipv4("01005e000012", "e0000012", 112, "31"), FHRPHello},
		{"VRRP over IPv6", ipv6("333300000012", vrrp6, 112, "31"), FHRPHello},
		{"HSRP", ipv4("01005e000002", "e0000002", 17, "07c107c100000000"), FHRPHello},
		{"GLBP", ipv4("01005e000066", "e0000066", 17, "0c960c9600000000"), FHRPHello},
		{"port 1985 of a host", ipv4("525400000001", "0a000002", 17, "07c107c100000000"), Ordinary},
		{"DHCP request", ipv4("ffffffffffff", "ffffffff", 17, "0044004300000000"), DHCP},
		{"DHCP answer", ipv4("ffffffffffff", "ffffffff", 17, "0043004400000000"), DHCP},
		{"DHCP renewal", ipv4("525400000001", "0a000002", 17, "0044004300000000"), Ordinary},
		{"DHCPv6", ipv6("333300010002", dhcp6, 17, "0222022300000000"), DHCP},
		{"ARP", arpRequest, Ordinary},
		{"later fragment", unhex("ffffffffffff525400000009 0800 45000000 00000010 0111 0000 0a000001 ffffffff 0044004300000000"), Ordinary},
	} {
		h, err := Parse(tt.frame)
		if err != nil {
			t.Fatal(err)
		}
		if got := ServiceOf(h, tt.frame); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
		for i := range tt.frame {
			if h, err := Parse(tt.frame[:i]); err == nil {
				ServiceOf(h, tt.frame[:i])
				MembershipOf(h, tt.frame[:i])
			}
		}
	}
}

func TestVirtualRouter(t *testing.T) {
	for mac, want := range map[MAC]bool{
		{0, 0, 0x5e, 0, 1, 9}:          true,
		{0, 0, 0x5e, 0, 2, 9}:          true,
		{0, 0, 0x0c, 0x07, 0xac, 1}:    true,
		{0, 0, 0x0c, 0x9f, 0xf0, 1}:    true,
		{0, 5, 0x73, 0xa0, 0, 1}:       true,
		{0, 7, 0xb4, 0, 1, 1}:          true,
		{0, 0, 0x0c, 0x12, 0x34, 0x56}: false,
		{0, 0, 0x5e, 0, 3, 9}:          false,
		vm:                             false,
	} {
		if got := mac.VirtualRouter(); got != want {
			t.Errorf("%v: got %t", mac, got)
		}
	}
}

func TestMembershipOf(t *testing.T) {
	g1, g2 := MAC{1, 0, 0x5e, 1, 2, 3}, MAC{0x33, 0x33, 0, 2, 0, 3} // 239.1.2.3, ff1e::2:3
	const v6 = "ff1e0000000000000000000000020003"
	for _, tt := range []struct {
		name  string
		frame []byte
		want  Membership
		ok    bool
	}{
		{"query", ipv4("01005e000001", "e0000001", 2, "1164 0000 00000000"), Membership{Query: true, All: true}, true},
		{"query for one group", ipv4("01005e010203", "ef010203", 2, "1164 0000 ef010203"), Membership{Query: true}, true},
		{"report v1", ipv4("01005e010203", "ef010203", 2, "1200 0000 ef010203"), Membership{Join: []MAC{g1}}, true},
		{"report v2", ipv4("01005e010203", "ef010203", 2, "1600 0000 ef010203"), Membership{Join: []MAC{g1}}, true},
		{"leave", ipv4("01005e000002", "e0000002", 2, "1700 0000 ef010203"), Membership{Leave: []MAC{g1}}, true},
		{"report v3", ipv4("01005e000016", "e0000016", 2, "2200 0000 0000 0002  04000000ef010203  03000000ef010203"),
			Membership{Join: []MAC{g1}, Leave: []MAC{g1}}, true},
		{"report v3 with a source", ipv4("01005e000016", "e0000016", 2, "2200 0000 0000 0001  05000001ef0102030a000001"), Membership{Join: []MAC{g1}}, true},
		{"report v3 that lies", ipv4("01005e000016", "e0000016", 2, "2200 0000 0000 ffff  0400ffffef010203"), Membership{Join: []MAC{g1}}, true},
		{"mDNS needs no report", ipv4("01005e0000fb", "e00000fb", 2, "1600 0000 e00000fb"), Membership{}, true},
		{"MLD query", ipv6("333300000001", all6, 0, "3a00050200000000 8200 0000 0000 0000"+strings.Repeat("0", 32)), Membership{Query: true, All: true}, true},
		{"MLD query for one group", ipv6("333300000001", all6, 0, "3a00050200000000 8200 0000 0000 0000"+v6), Membership{Query: true}, true},
		{"MLD query that is cut", ipv6("333300000001", all6, 0, "3a00050200000000 8200 0000 0000 0000"), Membership{}, false},
		{"MLD report", ipv6("333300010003", v6, 0, "3a00050200000000 8300 0000 0000 0000"+v6), Membership{Join: []MAC{g2}}, true},
		{"MLD done", ipv6("333300000002", all6, 0, "3a00050200000000 8400 0000 0000 0000"+v6), Membership{Leave: []MAC{g2}}, true},
		{"MLDv2 report", ipv6("333300000016", routers, 0, "3a00050200000000 8f00 0000 0000 0001 04000000"+v6), Membership{Join: []MAC{g2}}, true},
		{"ARP", arpRequest, Membership{}, false},
	} {
		h, _ := Parse(tt.frame)
		got, ok := MembershipOf(h, tt.frame)
		if ok != tt.ok || got.Query != tt.want.Query || got.All != tt.want.All || !slices.Equal(got.Join, tt.want.Join) || !slices.Equal(got.Leave, tt.want.Leave) {
			t.Errorf("%s: got %+v, %t, want %+v, %t", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzService(f *testing.F) {
	f.Add(ipv6("333300000016", routers, 0, "3a00050200000000 8f00 0000 0000 0001 04000000"+all6))
	f.Add(ipv4("01005e000016", "e0000016", 2, "2200 0000 0000 0002  04000000ef010203  03000000ef010203"))
	f.Add(ipv6("333300000001", all6, 44, "3a00000100000001 86 00 0000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Parse(b)
		if err != nil {
			return
		}
		ServiceOf(h, b)
		m, _ := MembershipOf(h, b)
		if len(m.Join)+len(m.Leave) > maxGroups {
			t.Errorf("%d groups", len(m.Join)+len(m.Leave))
		}
		for _, g := range append(m.Join, m.Leave...) {
			if !g.Group() || g.LinkLocalGroup() {
				t.Errorf("%x names %v", b, g)
			}
		}
	})
}
