package ether

import (
	"bytes"
	"net/netip"
	"testing"
)

// Answers as Linux gives them to arpRequest and solicit.
var (
	arpAnswer = unhex("525400000009 02000000000a 0806 0001080006040002 02000000000a c0a80002 525400000009 c0a80001")
	ndAnswer  = unhex(`525400000009 02000000000a 86dd 60000000 0020 3a ff fe800000000000000000000000000002 fe80000000000000505400fffe000009
		8800 48b5 e0000000 fe800000000000000000000000000002 0201 02000000000a`)
)

func TestAsked(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("fe80::2")
	me4, me6 := netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("fe80::5054:ff:fe00:9")
	for _, tt := range []struct {
		name  string
		frame []byte
		want  Question
		ok    bool
	}{
		{"request", arpRequest, Question{Target: v4, Sender: me4}, true},
		{"probe", arpProbe, Question{Target: v4, Probe: true}, true},
		{"solicitation", solicit, Question{Target: v6, Sender: me6}, true},
		{"duplicate detection", dadSolicit, Question{Target: me6, Probe: true}, true},
		{"tagged", tagged, Question{}, false},
		{"for another", arpForeign, Question{}, false},
		{"gratuitous", garp, Question{}, false},
		{"rarp", rarp, Question{}, false},
		{"advertisement", advert, Question{}, false},
		{"bpdu", bpdu, Question{}, false},
	} {
		h, err := Parse(tt.frame)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := Asked(h, tt.frame); ok != tt.ok || ok && got != tt.want {
			t.Errorf("%s: asked %+v, %t", tt.name, got, ok)
		}
		for i := HeaderLen; i < len(tt.frame); i++ {
			if got, ok := Asked(h, tt.frame[:i]); ok && got != tt.want {
				t.Errorf("%s cut at %d: asked %+v", tt.name, i, got)
			}
		}
	}
}

// verifiesICMP tells whether ICMPv6's checksum is right.
func verifiesICMP(frame []byte) bool {
	icmp := frame[HeaderLen+ipv6Len:]
	sum := checksum(checksum(0, frame[HeaderLen+8:HeaderLen+ipv6Len]), []byte{0, 0, 0, byte(len(icmp)), 0, 0, 0, protoICMPv6})
	return checksum(sum, icmp) == 0xffff
}

func TestAppendReply(t *testing.T) {
	r := Replier{MAC: MAC{2, 0, 0, 0, 0, 0xa}, Asker: vm, Router: true}
	for _, tt := range []struct{ ask, want []byte }{{arpRequest, arpAnswer}, {solicit, ndAnswer}} {
		h, _ := Parse(tt.ask)
		q, ok := Asked(h, tt.ask)
		if got := q.AppendReply(nil, r); !ok || !bytes.Equal(got, tt.want) {
			t.Errorf("%+v is answered\n%x, want\n%x", q, got, tt.want)
		}
	}
	if !verifiesICMP(ndAnswer) {
		t.Error("the checksum is wrong")
	}
	h, _ := Parse(ndAnswer)
	if c, ok := Snoop(h, ndAnswer); !ok || !c.Router || c.Announced {
		t.Errorf("the answer tells %+v, %t", c, ok)
	}
	r.Router = false
	hq, _ := Parse(solicit)
	q, _ := Asked(hq, solicit)
	if f := q.AppendReply(nil, r); f[58] != 0x60 {
		t.Errorf("flags of a host that is no router: %#x", f[58])
	}
}

// TestAppendQuestion: the frames are those that Linux sends.
func TestAppendQuestion(t *testing.T) {
	for _, want := range [][]byte{arpRequest, arpProbe} {
		h, _ := Parse(want)
		q, _ := Asked(h, want)
		if got := AppendQuestion(nil, vm, q); !bytes.Equal(got, want) {
			t.Errorf("%+v is asked\n%x, want\n%x", q, got, want)
		}
	}
	for _, f := range [][]byte{solicit, dadSolicit} {
		h, _ := Parse(f)
		q, _ := Asked(h, f)
		got := AppendQuestion(nil, vm, q)
		h, err := Parse(got)
		if again, ok := Asked(h, got); err != nil || !ok || again != q || !verifiesICMP(got) || ClassOf(h, got) != Resolve {
			t.Errorf("%+v is asked %x", q, got)
		}
	}
}
