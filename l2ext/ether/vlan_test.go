package ether

import (
	"bytes"
	"testing"
)

// macs begin the frames of these tests.
var macs = []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}

func withMACs(b ...byte) []byte { return append(bytes.Clone(macs), b...) }

func TestVID(t *testing.T) {
	for name, tt := range map[string]struct {
		frame  []byte
		vid    uint16
		ok     bool
		tagged bool
	}{
		"untagged":            {withMACs(8, 0, 0x45), 0, true, false},
		"of a VLAN":           {withMACs(0x81, 0, 0, 100, 8, 0, 0x45), 100, true, true},
		"with priority 7":     {withMACs(0x81, 0, 0xe0, 100, 8, 0), 100, true, true},
		"with DEI":            {withMACs(0x81, 0, 0x1f, 0xfe, 8, 0), 4094, true, true},
		"priority only":       {withMACs(0x81, 0, 0x60, 0, 8, 0), 0, true, true},
		"of a provider":       {withMACs(0x88, 0xa8, 0, 100, 0x81, 0, 0, 7, 8, 0), 0, false, true},
		"of a provider, old":  {withMACs(0x91, 0, 0, 100, 8, 0), 0, false, true},
		"cut behind its type": {withMACs(0x81, 0, 0, 100, 8), 0, false, true},
		"cut in its type":     {withMACs(0x81), 0, false, false},
		"nothing":             {nil, 0, false, false},
	} {
		if vid, ok := VID(tt.frame); vid != tt.vid || ok != tt.ok {
			t.Errorf("%s: VLAN %d, %t, want %d, %t", name, vid, ok, tt.vid, tt.ok)
		}
		if got := Tagged(tt.frame); got != tt.tagged {
			t.Errorf("%s: tagged: %t, want %t", name, got, tt.tagged)
		}
	}
}

func TestTagAndUntag(t *testing.T) {
	frame := withMACs(8, 0, 0x45, 0, 0, 60)
	tagged := AppendTagged([]byte("before"), frame, 100)
	if want := append([]byte("before"), withMACs(0x81, 0, 0, 100, 8, 0, 0x45, 0, 0, 60)...); !bytes.Equal(tagged, want) {
		t.Fatalf("tagged: % x, want % x", tagged, want)
	}
	b := tagged[len("before"):]
	got := Untag(b)
	if !bytes.Equal(got, frame) {
		t.Errorf("untagged: % x, want % x", got, frame)
	}
	if &got[0] != &b[TagLen] {
		t.Error("it was copied elsewhere")
	}
}

// FuzzVLAN: whatever has a tag that can be read loses it, and what has got one has it.
func FuzzVLAN(f *testing.F) {
	f.Add(withMACs(8, 0, 0x45), uint16(100))
	f.Add(withMACs(0x81, 0, 0xe0, 100, 8, 0), uint16(4094))
	f.Add(withMACs(0x88, 0xa8, 0, 100, 0x81, 0, 0, 7, 8, 0), uint16(1))
	f.Fuzz(func(t *testing.T, frame []byte, vid uint16) {
		vid = min(vid, MaxVID)
		before, ok := VID(frame)
		if ok && Tagged(frame) {
			plain := Untag(bytes.Clone(frame))
			if want := append(bytes.Clone(frame[:12]), frame[16:]...); !bytes.Equal(plain, want) {
				t.Errorf("% x without its tag: % x", frame, plain)
			}
		}
		if before != 0 && !Tagged(frame) {
			t.Errorf("% x is of VLAN %d without a tag", frame, before)
		}
		if len(frame) < HeaderLen {
			return
		}
		tagged := AppendTagged(nil, frame, vid)
		if got, ok := VID(tagged); got != vid || !ok {
			t.Errorf("% x is of VLAN %d, %t, want %d", tagged, got, ok, vid)
		}
		if got := Untag(tagged); !bytes.Equal(got, frame) {
			t.Errorf("% x tagged and untagged: % x", frame, got)
		}
	})
}
