package wanem

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// datagram is a message of one UDP packet, or, with a size, of many.
func datagram(v6 bool, port uint16, payload []byte, size int) []byte {
	ip := 20
	if v6 {
		ip = 40
	}
	msg := make([]byte, ipAt+ip+udpHeader)
	msg[0] = needsChecksum
	binary.LittleEndian.PutUint16(msg[atStart:], uint16(etherLen+ip))
	binary.LittleEndian.PutUint16(msg[atCheck:], 6)
	binary.BigEndian.PutUint16(msg[virtioHeader+12:], etherIPv4)
	copy(msg[ipAt:], []byte{0x45, 2, 0, 0, 0x12, 0xff, 0x40, 0, 64, UDP, 0, 0, 10, 1, 0, 1, 10, 1, 0, 2})
	if v6 {
		binary.BigEndian.PutUint16(msg[virtioHeader+12:], etherIPv6)
		copy(msg[ipAt:], []byte{0x60, 0, 0, 0, 0, 0, UDP, 64, 0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xfd, 1})
	}
	binary.BigEndian.PutUint16(msg[ipAt+ip:], port)
	msg = append(msg, payload...)
	if size > 0 {
		msg[atGSO] = gsoUDP
		binary.LittleEndian.PutUint16(msg[atHead:], uint16(etherLen+ip+udpHeader))
		binary.LittleEndian.PutUint16(msg[atSize:], uint16(size))
	}
	finish(msg, ipAt+ip)
	return msg
}

// parts splits msg; nil if it is one packet.
func parts(t *testing.T, msg []byte) (packets [][]byte) {
	t.Helper()
	split(msg, func() []byte { return make([]byte, 2000) }, func(p []byte, n int) {
		if len(p) != n {
			t.Fatalf("a packet of %d bytes found a buffer of 2000 too small", n)
		}
		packets = append(packets, p)
	})
	return packets
}

// rightIP tells whether IPv4's checksum is right (RFC 1071, section 1).
func rightIP(msg []byte) bool {
	return binary.BigEndian.Uint16(msg[virtioHeader+12:]) != etherIPv4 || fold(msg[ipAt:ipAt+20], 0) == 0xffff
}

// TestSplit: each packet is what the kernel would have made of the message, and all
// together are the message again.
func TestSplit(t *testing.T) {
	payload := bytes.Repeat([]byte("0123456789"), 350)
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprint("v6=", v6), func(t *testing.T) {
			msg := datagram(v6, 443, payload, 1000)
			got := parts(t, msg)
			if len(got) != 4 {
				t.Fatalf("%d packets of 3500 bytes at 1000 each", len(got))
			}
			for i, p := range got {
				want := datagram(v6, 443, payload[1000*i:min(1000*(i+1), len(payload))], 0)
				if !v6 {
					binary.BigEndian.PutUint16(want[ipAt+4:], 0x12ff+uint16(i))
					finish(want, ipAt+20)
				}
				if !bytes.Equal(p, want) || !rightIP(p) {
					t.Errorf("packet %d is\n%x, want\n%x", i, p[:60], want[:60])
				}
			}
			if n := joinable(got); n != 4 {
				t.Fatalf("%d of 4 packets can be joined", n)
			}
			if again := join(nil, got); !bytes.Equal(again, msg) {
				t.Errorf("joined they are\n%x, not\n%x", again[:60], msg[:60])
			}
		})
	}
}

// TestJoinable: what is not one flow, or has a packet between that is shorter or
// longer, is not joined over it.
func TestJoinable(t *testing.T) {
	full, short := make([]byte, 1000), make([]byte, 500)
	plain := func(port uint16, payload []byte) []byte { return datagram(false, port, payload, 0) }
	changed := func(at int, v byte) []byte {
		p := plain(1, full)
		p[at] = v
		return p
	}
	many := make([][]byte, 100)
	for i := range many {
		many[i] = plain(1, full)
	}
	for name, tt := range map[string]struct {
		packets [][]byte
		want    int
	}{
		"one":               {[][]byte{plain(1, full)}, 1},
		"three":             {[][]byte{plain(1, full), plain(1, full), plain(1, full)}, 3},
		"a short one ends":  {[][]byte{plain(1, full), plain(1, short), plain(1, full)}, 2},
		"of short ones":     {[][]byte{plain(1, short), plain(1, short), plain(1, full)}, 2},
		"another port":      {[][]byte{plain(1, full), plain(2, full)}, 1},
		"IPv6":              {[][]byte{plain(1, full), datagram(true, 1, full, 0)}, 1},
		"a mark of ECN":     {[][]byte{plain(1, full), changed(ipAt+1, 3)}, 1},
		"another TTL":       {[][]byte{plain(1, full), changed(ipAt+8, 63)}, 1},
		"a fragment":        {[][]byte{plain(1, full), changed(ipAt+6, 0x20)}, 1},
		"TCP":               {[][]byte{plain(1, full), changed(ipAt+9, TCP)}, 1},
		"finished":          {[][]byte{plain(1, full), changed(0, 0)}, 1},
		"no payload":        {[][]byte{plain(1, full), plain(1, nil)}, 1},
		"more than 64 KiB":  {many, 65},
		"joined before":     {[][]byte{datagram(false, 1, make([]byte, 2000), 1000), plain(1, full)}, 1},
		"a runt":            {[][]byte{make([]byte, 12), plain(1, full)}, 1},
		"another MAC":       {[][]byte{plain(1, full), changed(virtioHeader, 9)}, 1},
		"a wrong length":    {[][]byte{plain(1, full), changed(ipAt+3, 9)}, 1},
		"another address":   {[][]byte{plain(1, full), changed(ipAt+19, 9)}, 1},
		"an option":         {[][]byte{plain(1, full), changed(ipAt, 0x46)}, 1},
		"an odd checksum":   {[][]byte{plain(1, full), changed(atCheck, 16)}, 1},
		"a start elsewhere": {[][]byte{plain(1, full), changed(atStart, 30)}, 1},
	} {
		if got := joinable(tt.packets); got != min(tt.want, maxSegments) {
			t.Errorf("%s: %d can be joined, want %d", name, got, tt.want)
		}
	}
}

// TestSplitWithoutBuffers: what there is no room for is counted, and nothing else.
func TestSplitWithoutBuffers(t *testing.T) {
	for name, lend := range map[string]func() []byte{
		"none":      func() []byte { return nil },
		"too small": func() []byte { return make([]byte, 500) },
	} {
		refused := 0
		split(datagram(false, 1, make([]byte, 3500), 1000), lend, func(p []byte, n int) {
			if len(p) > 0 {
				t.Errorf("%s: a packet of %d bytes", name, len(p))
			}
			refused += n - ipAt - 20 - udpHeader
		})
		if refused != 3500 {
			t.Errorf("%s: %d of 3500 bytes refused", name, refused)
		}
	}
}

// FuzzSplit: no message does harm, what is split is as long as its parts, and
// they can be joined again.
func FuzzSplit(f *testing.F) {
	f.Add(datagram(false, 1, make([]byte, 3500), 1000))
	f.Add(datagram(true, 1, make([]byte, 3500), 1000))
	f.Add(datagram(false, 1, make([]byte, 1000), 0))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) > maxMessage {
			return
		}
		var packets [][]byte
		payload := 0
		head := udpAt(msg) + udpHeader
		if !split(msg, func() []byte { return make([]byte, maxMessage) }, func(p []byte, _ int) {
			packets, payload = append(packets, p), payload+len(p)-head
		}) {
			return
		}
		if payload != len(msg)-head {
			t.Fatalf("%d bytes of payload became %d", len(msg)-head, payload)
		}
		if len(packets) > 0 && joinable(packets) < min(len(packets), maxSegments) {
			t.Fatalf("%d of %d packets can be joined again", joinable(packets), len(packets))
		}
	})
}
