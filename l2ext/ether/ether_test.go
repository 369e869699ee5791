package ether

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

var vm = MAC{0x52, 0x54, 0, 0, 0, 9}

// Frames as Linux and QEMU send them.
var (
	arpRequest = unhex("ffffffffffff 525400000009 0806 0001080006040001 525400000009 c0a80001 000000000000 c0a80002")
	arpProbe   = unhex("ffffffffffff 525400000009 0806 0001080006040001 525400000009 00000000 000000000000 c0a80002")
	arpForeign = unhex("ffffffffffff 525400000009 0806 0001080006040001 525400000008 c0a80001 000000000000 c0a80002")
	garp       = unhex("ffffffffffff 525400000009 0806 0001080006040002 525400000009 c0a80001 ffffffffffff c0a80001")
	rarp       = unhex("ffffffffffff 525400000009 8035 0001080006040003 525400000009 00000000 525400000009 00000000")
	tagged     = unhex("ffffffffffff 525400000009 8100 0064 0806 0001080006040001 525400000009 c0a80001 000000000000 c0a80002")
	solicit    = unhex(`3333ff000002 525400000009 86dd 60000000 0020 3a ff fe800000000000005054 00fffe000009 ff0200000000000000000001ff000002
		8700 0000 00000000 fe800000000000000000000000000002 0101 525400000009`)
	dadSolicit = unhex(`3333ff000009 525400000009 86dd 60000000 0018 3a ff 00000000000000000000000000000000 ff0200000000000000000001ff000009
		8700 0000 00000000 fe800000000000005054 00fffe000009`)
	advert = unhex(`333300000001 525400000009 86dd 60000000 0020 3a ff fe80000000000000505400fffe000009 ff020000000000000000000000000001
		8800 6886 20000000 fe80000000000000505400fffe000009 0201 525400000009`)
	bpdu = unhex("0180c2000000 525400000009 0026 424203 0000000000")
)

func TestSnoop(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("fe80::5054:ff:fe00:9")
	for _, tt := range []struct {
		name  string
		frame []byte
		want  Claim
		ok    bool
	}{
		{"request", arpRequest, Claim{IP: v4}, true},
		{"tagged", tagged, Claim{IP: v4}, true},
		{"probe", arpProbe, Claim{}, false},
		{"for another", arpForeign, Claim{}, false},
		{"gratuitous", garp, Claim{IP: v4, Announced: true}, true},
		{"rarp", rarp, Claim{Announced: true}, true},
		{"solicitation", solicit, Claim{IP: v6}, true},
		{"duplicate detection", dadSolicit, Claim{}, false},
		{"advertisement", advert, Claim{IP: v6, Announced: true}, true},
		{"bpdu", bpdu, Claim{}, false},
	} {
		h, err := Parse(tt.frame)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := Snoop(h, tt.frame)
		if ok != tt.ok || got != tt.want || h.Src != vm {
			t.Errorf("%s: got %+v, %t, want %+v, %t", tt.name, got, ok, tt.want, tt.ok)
		}
		for i := range tt.frame {
			if h, err := Parse(tt.frame[:i]); err == nil {
				if c, ok := Snoop(h, tt.frame[:i]); ok {
					t.Errorf("%s cut at %d tells %+v", tt.name, i, c)
				}
			}
		}
	}
}

func TestAppendAnnounce(t *testing.T) {
	for _, tt := range []struct {
		ip   netip.Addr
		want []byte
	}{
		{netip.MustParseAddr("192.168.0.1"), garp},
		{netip.Addr{}, rarp},
		{netip.MustParseAddr("fe80::5054:ff:fe00:9"), advert},
	} {
		if got := AppendAnnounce(nil, vm, tt.ip); !bytes.Equal(got, tt.want) {
			t.Errorf("%v: got\n%x, want\n%x", tt.ip, got, tt.want)
		}
	}
	b := AppendAnnounce(nil, vm, netip.MustParseAddr("2001:db8::1"))[HeaderLen:]
	sum := checksum(checksum(checksum(0, b[8:ipv6Len]), []byte{0, 0, b[4], b[5], 0, 0, 0, protoICMPv6}), b[ipv6Len:])
	if sum != 0xffff {
		t.Errorf("checksum adds up to %#x", sum)
	}
}

func TestForbiddenAndClass(t *testing.T) {
	frame := func(dst, kind string) []byte { return unhex(dst + "525400000009" + kind + strings.Repeat("00", 46)) }
	for _, tt := range []struct {
		name      string
		frame     []byte
		forbidden bool
		class     Class
	}{
		{"stp", bpdu, true, Multicast},
		{"lldp", frame("0180c200000e", "88cc"), true, Multicast},
		{"lldp to a host", frame("525400000001", "88cc"), true, Unicast},
		{"lacp", frame("0180c2000002", "8809"), true, Multicast},
		{"pause", frame("0180c2000001", "8808"), true, Multicast},
		{"cdp", frame("01000ccccccc", "0100"), true, Multicast},
		{"pvst", frame("01000ccccccd", "0100"), true, Multicast},
		{"ipv4 multicast", frame("01005e000001", "0800"), false, Multicast},
		{"ipv4 broadcast", frame("ffffffffffff", "0800"), false, AllHosts},
		{"unicast", frame("525400000001", "0800"), false, Unicast},
		{"arp", arpRequest, false, Resolve},
		{"tagged arp", tagged, false, Resolve},
		{"rarp", rarp, false, Resolve},
		{"nd", solicit, false, Resolve},
	} {
		h, err := Parse(tt.frame)
		if err != nil {
			t.Fatal(err)
		}
		if h.Forbidden() != tt.forbidden || ClassOf(h, tt.frame) != tt.class {
			t.Errorf("%s: forbidden %t, class %d", tt.name, h.Forbidden(), ClassOf(h, tt.frame))
		}
	}
}

// syn makes a TCP SYN with the given options and a right checksum.
func syn(v6 bool, options []byte, flags byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	tcp := binary.BigEndian.AppendUint32(nil, 0x30390050)
	tcp = append(tcp, 0, 0, 0, 1, 0, 0, 0, 0, byte(tcpLen+len(options))<<2, flags, 0xff, 0xff, 0, 0, 0, 0)
	tcp = append(tcp, options...)
	kind, ip := uint16(TypeIPv4), unhex("45000000 00004000 40060000 0a000001 0a000002")
	pseudo := []byte{0, protoTCP, 0, byte(len(tcp)), 10, 0, 0, 1, 10, 0, 0, 2}
	if v6 {
		kind, ip = TypeIPv6, append(unhex("60000000 0000 06 40"), make([]byte, 32)...)
		pseudo = []byte{0, 0, 0, byte(len(tcp)), 0, 0, 0, protoTCP}
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(checksum(checksum(0, pseudo), tcp)))
	return append(append(appendHeader(nil, vm, vm, kind), ip...), tcp...)
}

// verifies tells whether TCP's checksum is right.
func verifies(frame []byte, v6 bool) bool {
	tcp := frame[HeaderLen+20:]
	pseudo := []byte{0, protoTCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	if v6 {
		tcp = frame[HeaderLen+40:]
		pseudo = []byte{0, 0, 0, 0, 0, 0, 0, protoTCP}
	}
	pseudo[3] = byte(len(tcp))
	return checksum(checksum(0, pseudo), tcp) == 0xffff
}

func TestClampMSS(t *testing.T) {
	mss := func(n uint16) []byte { return binary.BigEndian.AppendUint16([]byte{2, 4}, n) }
	for _, tt := range []struct {
		name    string
		v6      bool
		options []byte
		flags   byte
		max     int
		want    uint16 // 0: unchanged
	}{
		{"IPv4", false, mss(1460), 2, 1235, 1181},
		{"IPv6", true, mss(1440), 2, 1235, 1161},
		{"SYN+ACK", false, mss(1460), 0x12, 1235, 1181},
		{"odd offset", false, append([]byte{1}, mss(1460)...), 2, 1235, 1181},
		{"after others", false, append([]byte{4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}, mss(1460)...), 2, 1407, 1353},
		{"small enough", false, mss(1181), 2, 1235, 0},
		{"no SYN", false, mss(1460), 0x10, 1235, 0},
		{"no option", false, nil, 2, 1235, 0},
		{"bad option", false, []byte{8, 1, 2, 4}, 2, 1235, 0},
		{"ended", false, append([]byte{0}, mss(1460)...), 2, 1235, 0},
		{"tiny", false, mss(1460), 2, 100, 0},
	} {
		frame := syn(tt.v6, tt.options, tt.flags)
		if !verifies(frame, tt.v6) {
			t.Fatalf("%s: the test's checksum is wrong", tt.name)
		}
		before := bytes.Clone(frame)
		h, _ := Parse(frame)
		changed := ClampMSS(h, frame, tt.max)
		if changed != (tt.want != 0) || changed == bytes.Equal(before, frame) {
			t.Errorf("%s: changed %t", tt.name, changed)
		}
		if changed && (!bytes.Contains(frame, mss(tt.want)) || !verifies(frame, tt.v6)) {
			t.Errorf("%s: got %x, want MSS %d; checksum right %t", tt.name, frame, tt.want, verifies(frame, tt.v6))
		}
	}
}

// TestClampMSSBehindMore has options of IPv4 and extension headers of IPv6 before the SYN. The segment size is what it is
// without them, as TCP counts it (RFC 6691, section 2).
func TestClampMSSBehindMore(t *testing.T) {
	mss := func(n uint16) []byte { return binary.BigEndian.AppendUint16([]byte{2, 4}, n) }
	ext := func(next byte, units byte) []byte { // a header of units times 8 bytes
		b := make([]byte, 8*int(units))
		b[0], b[1] = next, units-1
		return b
	}
	many := func(n int) (b []byte) {
		for range n - 1 {
			b = append(b, ext(extDest, 1)...)
		}
		return append(b, ext(protoTCP, 1)...)
	}
	for _, tt := range []struct {
		name  string
		v6    bool
		more  []byte
		first byte   // the next header of IPv6's own
		want  uint16 // 0: unchanged
	}{
		{"IPv4 with 4 bytes of options", false, []byte{1, 1, 1, 0}, 0, 1181},
		{"IPv4 with all its options", false, make([]byte, 40), 0, 1181},
		{"hop-by-hop", true, ext(protoTCP, 1), extHop, 1161},
		{"routing, long", true, ext(protoTCP, 3), extRouting, 1161},
		{"two", true, append(ext(extDest, 1), ext(protoTCP, 2)...), extHop, 1161},
		{"seven", true, many(7), extDest, 1161},
		{"too many", true, many(9), extDest, 0},
		{"one that is longer than the packet", true, []byte{protoTCP, 200, 0, 0, 0, 0, 0, 0}, extHop, 0},
		{"another protocol behind", true, ext(protoUDP, 1), extHop, 0},
		{"none behind", true, ext(noNext, 1), extHop, 0},
	} {
		frame := syn(tt.v6, mss(1460), 2)
		at := HeaderLen + 20
		if tt.v6 {
			at = HeaderLen + ipv6Len
			frame[HeaderLen+6] = tt.first
		} else {
			frame[HeaderLen] += byte(len(tt.more) / 4)
		}
		plain := bytes.Clone(frame)
		frame = slices.Insert(frame, at, tt.more...)
		before := bytes.Clone(frame)
		h, _ := Parse(frame)
		changed := ClampMSS(h, frame, 1235)
		if changed != (tt.want != 0) || changed == bytes.Equal(before, frame) {
			t.Errorf("%s: changed %t", tt.name, changed)
		}
		tcp := slices.Delete(bytes.Clone(frame), at, at+len(tt.more))
		if changed && (!bytes.Equal(frame[:at+len(tt.more)], before[:at+len(tt.more)]) || !bytes.Contains(tcp, mss(tt.want)) || !verifies(tcp, tt.v6)) {
			t.Errorf("%s: %x became %x, want MSS %d", tt.name, plain, tcp, tt.want)
		}
	}
}

// FuzzFrame: nothing panics, and a clamp changes the option and the checksum
// only.
func FuzzFrame(f *testing.F) {
	for _, b := range [][]byte{arpRequest, garp, rarp, tagged, solicit, dadSolicit, advert, bpdu, dhcp(53, 1, 5),
		syn(false, []byte{2, 4, 5, 0xb4}, 2), syn(true, []byte{1, 2, 4, 5, 0xb4}, 2)} {
		f.Add(b, 1235)
	}
	f.Fuzz(func(t *testing.T, b []byte, max int) {
		h, err := Parse(b)
		if err != nil {
			return
		}
		h.Forbidden()
		ClassOf(h, b)
		if c, ok := Snoop(h, b); ok && c.IP.IsValid() && !usable(c.IP) {
			t.Errorf("%x claims %v", b, c.IP)
		}
		if mac, ip, ok := Lease(h, b); ok && (!mac.Host() || !usable(ip)) {
			t.Errorf("%x leases %v to %v", b, ip, mac)
		}
		if q, ok := Asked(h, b); ok && (!usable(q.Target) || !q.Probe && !usable(q.Sender)) {
			t.Errorf("%x asks %+v", b, q)
		} else if _, target := About(h, b); ok && target != q.Target {
			t.Errorf("%x asks %+v, and is about %v", b, q, target)
		}
		before := bytes.Clone(b)
		changed := ClampMSS(h, b, max)
		differ := 0
		for i := range b {
			if b[i] != before[i] {
				differ++
			}
		}
		if differ > 4 || (!changed && differ > 0) {
			t.Errorf("%x became %x", before, b)
		}
		if changed && ClampMSS(h, b, max) {
			t.Errorf("%x is clamped twice", before)
		}
	})
}
