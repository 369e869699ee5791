package fast

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// tag is a header that these tests add where a VLAN tag is.
var tag = []byte{0x81, 0, 0, 100}

func TestHeaders(t *testing.T) {
	for _, tt := range []struct {
		name          string
		msg           []byte
		length, start int // with the header
	}{
		{"plain", undone(0, 0, 0, 0, 0, 0, 26), 0, 0},
		{"checksum", undone(1, 0, 0, 0, 34, 16, 32), 0, 38},
		{"TCP", undone(1, 1, 66, 1448, 34, 16, 32+14480), 70, 38},
		{"UDP", undone(1, 5, 42, 1200, 34, 6, 8+12000), 46, 38},
	} {
		before := bytes.Clone(tt.msg)
		b := AppendWith([]byte("x"), tt.msg, 12, tag...)
		if !bytes.Equal(tt.msg, before) {
			t.Errorf("%s: the message itself has changed", tt.name)
		}
		msg := b[1:]
		o, frame, err := SplitMessage(msg)
		if err != nil {
			t.Errorf("%s: with a tag: %v", tt.name, err)
			continue
		}
		if want := append(append(bytes.Clone(before[10:22]), tag...), before[22:]...); b[0] != 'x' || !bytes.Equal(frame, want) {
			t.Errorf("%s: the frame with a tag: % x", tt.name, frame[:40])
		}
		if got := int(binary.LittleEndian.Uint16(msg[2:])); got != tt.length || o.Start != tt.start {
			t.Errorf("%s: with a tag: %d bytes of headers, transport at %d, want %d, %d", tt.name, got, o.Start, tt.length, tt.start)
		}
		was, _, _ := SplitMessage(before)
		if o.Segments(frame) != was.Segments(before[10:]) {
			t.Errorf("%s: the tag makes %d packets of it", tt.name, o.Segments(frame))
		}
		back := Cut(msg, 12, len(tag))
		binary.LittleEndian.PutUint16(back[2:], binary.LittleEndian.Uint16(before[2:])) // a hint: the kernel's is without the tag
		if !bytes.Equal(back, before) {
			t.Errorf("%s: without it again:\n% x, want\n% x", tt.name, back[:60], before[:60])
		}
	}
}

// TestCutTooMuch: a transport's header in what was cut is refused, and headers are no
// longer than what is left.
func TestCutTooMuch(t *testing.T) {
	if _, _, err := SplitMessage(Cut(undone(1, 0, 0, 0, 16, 2, 32), 12, 4)); err == nil {
		t.Error("a checksum in the Ethernet header was passed")
	}
	msg := Cut(undone(1, 1, 34+32+100, 90, 34, 16, 32+100), 12, 4)
	if got := int(binary.LittleEndian.Uint16(msg[2:])); got != 34+32+100-4 {
		t.Errorf("%d bytes of headers in a frame of %d", got, len(msg)-OffloadLen)
	}
}

// FuzzHeaders: a message that SplitMessage has passed is none that breaks anything.
func FuzzHeaders(f *testing.F) {
	f.Add(undone(0, 0, 0, 0, 0, 0, 26))
	f.Add(undone(1, 1, 66, 1448, 34, 16, 32+2000))
	f.Add(undone(1, 0, 0, 0, 14, 2, 32))
	f.Fuzz(func(t *testing.T, msg []byte) {
		_, frame, err := SplitMessage(msg)
		if err != nil || len(msg)+len(tag) > MaxMessage {
			return
		}
		with := AppendWith(nil, msg, 12, tag...)
		o, tagged, err := SplitMessage(with)
		if err != nil {
			t.Fatalf("% x with a tag: %v", msg[:OffloadLen], err)
		}
		if want := append(append(bytes.Clone(frame[:12]), tag...), frame[12:]...); !bytes.Equal(tagged, want) {
			t.Errorf("% x with a tag: % x", frame[:14], tagged[:18])
		}
		again, back, err := SplitMessage(Cut(with, 12, len(tag)))
		if err != nil || !bytes.Equal(back, frame) || again.Start > o.Start {
			t.Errorf("% x without it again: %v", msg[:OffloadLen], err)
		}
	})
}
