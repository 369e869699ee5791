package ether

import (
	"bytes"
	"testing"
)

// tcpFrame is a frame of TCP from port 1000 to port 80, with flags.
func tcpFrame(v6 bool, flags byte) []byte {
	tcp := unhex("03e8 0050 00000001 00000000 5000 0000 0000 0000")
	tcp[13] = flags
	if v6 {
		return append(ipv6("0000000000aa", "fe800000000000000000000000000002", protoTCP, ""), tcp...)
	}
	return append(ipv4("0000000000aa", "0a000002", protoTCP, ""), tcp...)
}

func TestFlowOf(t *testing.T) {
	change := func(frame []byte, at int, b byte) []byte {
		frame = bytes.Clone(frame)
		frame[at] = b
		return frame
	}
	v4, v6 := tcpFrame(false, 0x10), tcpFrame(true, 0x10)
	behindTag := append(append(bytes.Clone(v4[:12]), 0x81, 0, 0, 7), v4[12:]...)
	for _, tt := range []struct {
		name     string
		frame    []byte
		ok, open bool
		key      int // its length in bytes
	}{
		{"IPv4", v4, true, false, 12},
		{"IPv4, SYN", tcpFrame(false, 0x02), true, true, 12},
		{"IPv4, VLAN", behindTag, true, false, 12},
		{"IPv4, may not be cut", change(v4, HeaderLen+6, 0x40), true, false, 12},
		{"IPv6", v6, true, false, 36},
		{"IPv6, SYN and ACK", tcpFrame(true, 0x12), true, true, 36},
		{"the first fragment", change(v4, HeaderLen+6, 0x20), false, false, 0},
		{"a later fragment", change(v4, HeaderLen+7, 1), false, false, 0},
		{"UDP", change(v4, HeaderLen+9, protoUDP), false, false, 0},
		{"UDP over IPv6", change(v6, HeaderLen+6, protoUDP), false, false, 0},
		{"IPv6 with extensions", change(v6, HeaderLen+6, extDest), false, false, 0},
		{"ARP", arpRequest, false, false, 0},
	} {
		h, err := Parse(tt.frame)
		if err != nil {
			t.Fatal(err)
		}
		f, ok := FlowOf(h, tt.frame)
		if ok != tt.ok || f.Open != tt.open || len(f.Key()) != tt.key {
			t.Errorf("%s: got %t, open %t, key %x", tt.name, ok, f.Open, f.Key())
		}
		for i := h.Payload; ok && i < len(tt.frame); i++ {
			if f, ok := FlowOf(h, tt.frame[:i]); ok {
				t.Errorf("%s, cut at %d: %x", tt.name, i, f.Key())
			}
		}
	}
}

// TestFlowKey: a key changes with each address and port, and with nothing else.
func TestFlowKey(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		frame := tcpFrame(v6, 0x10)
		addrs, ports := HeaderLen+12, HeaderLen+20
		if v6 {
			addrs, ports = HeaderLen+8, HeaderLen+ipv6Len
		}
		h, _ := Parse(frame)
		want, _ := FlowOf(h, frame)
		for i := h.Payload + 1; i < len(frame); i++ {
			other := bytes.Clone(frame)
			other[i] ^= 0x80
			f, ok := FlowOf(h, other)
			if !ok {
				continue // not TCP any more
			}
			part := i >= addrs && i < ports+4
			if bytes.Equal(f.Key(), want.Key()) == part {
				t.Errorf("IPv6 %t, byte %d: key %x", v6, i, f.Key())
			}
		}
	}
}

func FuzzFlowOf(f *testing.F) {
	f.Add(tcpFrame(false, 2))
	f.Add(tcpFrame(true, 2))
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, err := Parse(frame)
		if err != nil {
			return
		}
		if flow, ok := FlowOf(h, frame); ok && len(flow.Key()) != 12 && len(flow.Key()) != 36 {
			t.Errorf("%x: key %x", frame, flow.Key())
		}
	})
}
