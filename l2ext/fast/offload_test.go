package fast

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// undone is a message whose frame has an IPv4 header and n bytes from there on.
func undone(flags, gso byte, length, size, start, at, n int) []byte {
	m := []byte{flags, gso}
	for _, v := range []int{length, size, start, at} {
		m = binary.LittleEndian.AppendUint16(m, uint16(v))
	}
	m = append(m, make([]byte, 14+20+n)...)
	if n > 12 {
		m[OffloadLen+34+12] = 8 << 4 // a TCP header of 32 bytes
	}
	return m
}

func TestSplitMessage(t *testing.T) {
	for _, tt := range []struct {
		name              string
		msg               []byte
		ok                bool
		segments, longest int
	}{
		{"plain", undone(0, 0, 0, 0, 0, 0, 26), true, 1, 60},
		{"checksum", undone(1, 0, 0, 0, 34, 16, 32), true, 1, 66},
		{"TCP", undone(1, 1, 66, 1448, 34, 16, 32+14480), true, 10, 66 + 1448},
		{"TCP, one more byte", undone(1, 1, 66, 1448, 34, 16, 32+14481), true, 11, 66 + 1448},
		{"TCP of IPv6, ECN", undone(1, 0x84, 66, 1448, 34, 16, 32+2000), true, 2, 66 + 1448},
		{"UDP", undone(1, 5, 42, 1200, 34, 6, 8+12000), true, 10, 42 + 1200},
		{"too short", undone(0, 0, 0, 0, 0, 0, 26)[:23], false, 0, 0},
		{"no such flag", undone(8, 0, 0, 0, 0, 0, 26), false, 0, 0},
		{"no such segmentation", undone(1, 3, 66, 1448, 34, 16, 3000), false, 0, 0},
		{"ECN of nothing", undone(1, 0x80, 66, 1448, 34, 16, 3000), false, 0, 0},
		{"checksum beyond the end", undone(1, 0, 0, 0, 34, 31, 32), false, 0, 0},
		{"checksum in the Ethernet header", undone(1, 0, 0, 0, 2, 2, 32), false, 0, 0},
		{"segments without a checksum", undone(0, 1, 66, 1448, 34, 16, 3000), false, 0, 0},
		{"single bytes", undone(1, 1, 66, 1, 34, 16, 3000), false, 0, 0},
		{"header longer than the frame", undone(1, 1, 4000, 1448, 34, 16, 3000), false, 0, 0},
		{"no room for the transport's header", undone(1, 1, 34, 1448, 34, 10, 12), false, 0, 0},
	} {
		o, frame, err := SplitMessage(tt.msg)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %+v, %v", tt.name, o, err)
			continue
		}
		if err == nil && (o.Segments(frame) != tt.segments || o.Longest(frame) != tt.longest || !bytes.Equal(frame, tt.msg[OffloadLen:])) {
			t.Errorf("%s: %d segments, the longest of %d; want %d, %d", tt.name, o.Segments(frame), o.Longest(frame), tt.segments, tt.longest)
		}
	}
}

func FuzzSplitMessage(f *testing.F) {
	f.Add(undone(1, 1, 66, 1448, 34, 16, 3000))
	f.Add(undone(1, 5, 42, 1200, 34, 6, 3000))
	f.Fuzz(func(t *testing.T, msg []byte) {
		o, frame, err := SplitMessage(msg)
		if err != nil {
			return
		}
		n, longest := o.Segments(frame), o.Longest(frame)
		if n < 1 || n > len(frame)/minSegment+1 || longest > len(frame) {
			t.Errorf("%x: %d segments, the longest of %d bytes", msg[:OffloadLen], n, longest)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(Record{Kind: Whole, VNI: 5, Body: message(60, 1)}.Append(nil))
	f.Add(Record{Kind: Piece, VNI: 5, ID: 9, Total: 6000, Offset: 700, Body: message(60, 1)}.Append(nil))
	f.Add(Record{Kind: Hello, Heard: 99}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n, err := Parse(b)
		if err == nil && r.Kind != Padding && !bytes.Equal(r.Append(nil), b[:n]) {
			t.Errorf("%x parses, but is written %x", b[:n], r.Append(nil))
		}
	})
}

// FuzzJoiner: whatever pieces say, a message that comes out was there byte for byte.
func FuzzJoiner(f *testing.F) {
	f.Add([]byte{1, 0, 30, 1, 30, 30})
	f.Add([]byte{1, 0, 60, 2, 0, 60, 1, 30, 10})
	f.Fuzz(func(t *testing.T, b []byte) {
		const total = 60
		var j Joiner
		there := make(map[uint32]*[total]bool)
		for ; len(b) >= 3; b = b[3:] {
			r := Record{Kind: Piece, ID: uint32(b[0] % 8), Total: total, Offset: int(b[1]) % total}
			r.Body = make([]byte, 1+int(b[2])%(total-r.Offset))
			msg, err := j.Add(r)
			if err != nil {
				continue
			}
			if there[r.ID] == nil {
				there[r.ID] = new([total]bool)
			}
			for i := range r.Body {
				there[r.ID][r.Offset+i] = true
			}
			if msg != nil && *there[r.ID] != allThere {
				t.Fatalf("message %d came out with holes", r.ID)
			}
			if msg != nil {
				delete(there, r.ID)
			}
		}
	})
}

// FuzzJoinerOpens: what was sealed and comes in any order, with holes and twice, comes
// out byte for byte, wherever it was opened to.
func FuzzJoinerOpens(f *testing.F) {
	f.Add([]byte{0, 0, 40, 0, 40, 40, 0, 80, 40})
	f.Add([]byte{0x80, 0, 40, 1, 0, 40, 0x81, 40, 60, 0, 40, 80, 1, 100, 20})
	f.Fuzz(func(t *testing.T, b []byte) {
		const total = 120
		s, o := ends(t)
		var j Joiner
		check := func(r Record, msg []byte) {
			for i, c := range msg {
				if c != byte(r.ID)*121+byte(i) {
					t.Fatalf("message %d is wrong at %d", r.ID, i)
				}
			}
			if msg != nil && len(msg) != total {
				t.Fatalf("message %d has %d bytes", r.ID, len(msg))
			}
		}
		var records []byte
		for counter := uint64(0); len(b) >= 3; b = b[3:] {
			r := Record{Kind: Piece, VNI: 1, ID: uint32(b[0] % 8), Total: total, Offset: int(b[1]) % total}
			for i := range 1 + int(b[2])%(total-r.Offset) {
				r.Body = append(r.Body, byte(r.ID)*121+byte(r.Offset+i))
			}
			if records = r.Append(records); b[0]&0x80 != 0 && len(records) < 1000 {
				continue // the next is in the same datagram
			}
			d := make([]byte, len(records)+Overhead)
			s.seal(d, records, counter, new([ivLen]byte))
			counter++
			records = records[:0]
			last, msg, rest, err := j.Open(o, d)
			if err != nil {
				t.Fatal(err)
			}
			check(last, msg)
			for len(rest) > 0 {
				r, n, err := Parse(rest)
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
				msg, _ := j.Add(r)
				check(r, msg)
			}
		}
	})
}

var allThere = func() (all [60]bool) {
	for i := range all {
		all[i] = true
	}
	return all
}()

// FuzzOpen: what comes from the network costs an error.
func FuzzOpen(f *testing.F) {
	s, err := NewSealer(secret, way, 1)
	if err != nil {
		f.Fatal(err)
	}
	var tmp [ivLen]byte
	d := make([]byte, 100)
	s.seal(d, d[HeaderLen:len(d)-TagLen], 0, &tmp)
	f.Add(d)
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := NewOpener(secret, way)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Index(b); err != nil {
			return
		}
		if _, err := o.Open(bytes.Clone(b)); err == nil && !bytes.Equal(b, d) {
			t.Errorf("%x opens", b)
		}
	})
}
