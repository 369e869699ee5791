package frame

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func id(b byte) (x ID) {
	for i := range x {
		x[i] = b
	}
	return x
}

// vectors are real frames and their exact bytes, in hex with spaces. They are
// also in testdata/control.txt, for other implementations.
var vectors = []struct {
	frame Frame
	hex   string
}{
	{Hello{Bulk, id(1), id(2), id(3), "a", "a1", "0.1", "mpls"},
		"01 000043 03" + strings.Repeat("01", 16) + strings.Repeat("02", 16) + strings.Repeat("03", 16) + "0001 61 0002 6131 0003 302e31 0004 6d706c73"},
	{Commit{id(2), 7}, "02 000018" + strings.Repeat("02", 16) + "0000000000000007"},
	{Refuse{RefuseBusy, "wait"}, "03 000007 01 0004 77616974"},
	{Open{Channel: 1, Kind: 258, Forward: ClassBulk, Back: ClassUrgent, Header: []byte("hdr")}, "04 00000f 0000000000000001 0102 02 01 686472"},
	{Ack{Channel: 1, Flags: FlagFin, Received: 9, Done: 8, Window: 1 << 20},
		"05 000021 0000000000000001 01 0000000000000009 0000000000000008 0000000000100000"},
	{Fin{1, 0}, "06 000010 0000000000000001 0000000000000000"},
	{Reset{1, "no"}, "07 00000c 0000000000000001 0002 6e6f"},
	{ResetAck{2}, "08 000008 0000000000000002"},
	{Gone{3}, "09 000008 0000000000000003"},
	{Resume{Ack{Channel: 1, Received: 2, Done: 1, Window: 3}, []Range{{4, 4}, {6, 9}}},
		"0a 000043 0000000000000001 00 0000000000000002 0000000000000001 0000000000000003 0002" +
			"0000000000000004 0000000000000004 0000000000000006 0000000000000009"},
	{ResumeEnd{5}, "0b 000008 0000000000000005"},
	{Ping{1, 3}, "0c 00000b 0000000000000001 000000"},
	{Pong{1}, "0d 000008 0000000000000001"},
	{Grow{16}, "0e 000001 10"},
	{Fallback{"cc", "udp"}, "0f 000009 0002 6363 0003 756470"},
	{Advance{32 << 20}, "10 000008 0000000002000000"},
	{Unknown{200, []byte("new")}, "c8 000003 6e6577"},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestControl(t *testing.T) {
	for _, tt := range vectors {
		want := unhex(t, tt.hex)
		enc := tt.frame.Append([]byte("before"))[6:]
		if !bytes.Equal(enc, want) {
			t.Errorf("%#v is written\n%x, want\n%x", tt.frame, enc, want)
		}
		f, n, err := Parse(append(bytes.Clone(enc), "after"...))
		if err != nil || n != len(enc) || !reflect.DeepEqual(f, tt.frame) {
			t.Errorf("%x is parsed as %#v, %d bytes, %v", enc, f, n, err)
		}
		for i := range enc {
			if _, _, err := Parse(enc[:i]); !errors.Is(err, ErrShort) {
				t.Errorf("%T cut at %d: %v", tt.frame, i, err)
			}
		}
		if _, known := tt.frame.(Unknown); known {
			continue
		}
		// A body that is too short for its type is not short: more bytes do not help.
		for i := HeadLen; i < len(enc); i++ {
			cut := bytes.Clone(enc[:i])
			cut[1], cut[2], cut[3] = 0, byte((i-HeadLen)>>8), byte(i-HeadLen)
			f, _, err := Parse(cut)
			if err == nil && !bytes.Equal(f.Append(nil), cut) {
				t.Errorf("%x parses, but is written %x", cut, f.Append(nil))
			}
			if err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("%T with a body of %d: %v", tt.frame, i-HeadLen, err)
			}
		}
	}
}

func TestVectors(t *testing.T) {
	var want strings.Builder
	for _, v := range vectors {
		want.WriteString(hex.EncodeToString(v.frame.Append(nil)) + "\n")
	}
	name := filepath.Join("testdata", "control.txt")
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want.String() {
		t.Errorf("%s is not what is written now:\n%s", name, want.String())
	}
}

func TestMalformed(t *testing.T) {
	for _, tt := range []struct{ name, hex string }{
		{"type 0", "00 000000"},
		{"body too long", "01 010041"},
		{"hello of no role", "01 000037 00" + strings.Repeat("00", 48) + "0000 0000 0000"},
		{"hello of no site", "01 000037 01" + strings.Repeat("00", 48) + "0000 0000 0000"},
		{"str beyond the body", "03 000007 01 0005 77616974"},
		{"channel 0", "08 000008 0000000000000000"},
		{"more than a gone", "09 000009 0000000000000003 00"},
		{"class 3", "04 00000c 0000000000000001 0102 03 01"},
		{"done beyond received", "05 000021 0000000000000001 00 0000000000000001 0000000000000002 0000000000000000"},
		{"flag 2", "05 000021 0000000000000001 02 0000000000000001 0000000000000001 0000000000000000"},
		{"ranges that touch", "0a 000033 0000000000000001 00 0000000000000002 0000000000000001 0000000000000003 0001 0000000000000003 0000000000000004"},
		{"range that ends first", "0a 000033 0000000000000001 00 0000000000000002 0000000000000001 0000000000000003 0001 0000000000000009 0000000000000004"},
		{"fewer ranges", "0a 000033 0000000000000001 00 0000000000000002 0000000000000001 0000000000000003 0002 0000000000000009 000000000000000a"},
		{"padding", "0c 000009 0000000000000001 01"},
	} {
		if f, _, err := Parse(unhex(t, tt.hex)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %#v, %v", tt.name, f, err)
		}
	}
}

func TestLimits(t *testing.T) {
	b := Open{Channel: 1, Forward: 1, Back: 1, Header: make([]byte, MaxHeader)}.Append(nil)
	if _, n, err := Parse(b); err != nil || n != len(b) {
		t.Errorf("largest header: %v", err)
	}
	long := Reset{1, strings.Repeat("x", 5000)}.Append(nil)
	if f, _, err := Parse(long); err != nil || len(f.(Reset).Reason) != MaxText {
		t.Errorf("long reason: %v", err)
	}
	r := Resume{Ack: Ack{Channel: 1}}
	for i := range uint64(2 * MaxRanges) {
		r.Ranges = append(r.Ranges, Range{2*i + 2, 2*i + 2})
	}
	if f, _, err := Parse(r.Append(nil)); err != nil || len(f.(Resume).Ranges) != MaxRanges {
		t.Errorf("many ranges: %v", err)
	}
}

func TestPreface(t *testing.T) {
	for _, tt := range []struct {
		p   Preface
		hex string
	}{
		{Preface{Use: Control}, "4c48 02 01 00 00"},
		{Preface{Use: Data}, "4c48 02 02 00 00"},
		{Preface{Use: Raw, Proto: 7}, "4c48 02 03 07 00"},
	} {
		enc := tt.p.Append(nil)
		if !bytes.Equal(enc, unhex(t, tt.hex)) {
			t.Errorf("%+v is written %x", tt.p, enc)
		}
		if p, n, err := ParsePreface(enc); p != tt.p || n != PrefaceLen || err != nil {
			t.Errorf("%x is parsed as %+v, %d, %v", enc, p, n, err)
		}
		for i := range enc {
			if _, _, err := ParsePreface(enc[:i]); !errors.Is(err, ErrShort) {
				t.Errorf("cut at %d: %v", i, err)
			}
		}
	}
	for _, bad := range []string{"47", "4c49", "4c4801", "4c48 02 00 00 00", "4c48 02 04 00 00", "4c48 02 02 01 00", "4c48 02 03 01 01"} {
		if _, _, err := ParsePreface(unhex(t, bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestChunk(t *testing.T) {
	c := Chunk{Channel: 1, Seq: 2, Total: 100_000, Offset: Cell, Len: 2 * Cell}
	enc := c.Append(nil)
	if want := unhex(t, "01 02 a08d06 01 8020"); !bytes.Equal(enc, want) || c.HeadLen() != len(want) {
		t.Errorf("written %x, want %x", enc, want)
	}
	for i := range enc {
		if _, _, err := ParseChunk(enc[:i]); !errors.Is(err, ErrShort) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	for _, tt := range []struct {
		name string
		c    Chunk
		ok   bool
	}{
		{"inner", c, true},
		{"whole", Chunk{1, 1, 5, 0, 5}, true},
		{"empty message", Chunk{1, 1, 0, 0, 0}, true},
		{"last cells", Chunk{1, 1, Cell + 1, Cell, 1}, true},
		{"largest", Chunk{1, 1, MaxMessage, MaxMessage - MaxChunk, MaxChunk}, true},
		{"channel 0", Chunk{0, 1, 5, 0, 5}, false},
		{"seq 0", Chunk{1, 0, 5, 0, 5}, false},
		{"message too long", Chunk{1, 1, MaxMessage + 1, 0, Cell}, false},
		{"chunk too long", Chunk{1, 1, MaxMessage, 0, MaxChunk + Cell}, false},
		{"beyond the end", Chunk{1, 1, 5, 0, 6}, false},
		{"wraps", Chunk{1, 1, 5, 1<<32 - Cell, Cell}, false},
		{"half a cell", Chunk{1, 1, 2 * Cell, 0, 5}, false},
		{"empty chunk", Chunk{1, 1, 5, 0, 0}, false},
	} {
		got, n, err := ParseChunk(tt.c.Append(nil))
		if tt.ok && (got != tt.c || n != tt.c.HeadLen() || err != nil) || !tt.ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
	largest := Chunk{math.MaxUint64, math.MaxUint64, MaxMessage, 0, MaxChunk}
	if n := len(largest.Append(nil)); n > MaxChunkHead || n != largest.HeadLen() {
		t.Errorf("a header of %d bytes, told as %d", n, largest.HeadLen())
	}
	for _, bad := range []string{
		"8100 02 a08d06 01 8020", "01 02 a08d06 8100 8020", // more bytes than it takes
		"ffffffffffffffffff02 02 05 00 05", "80808080808080808080", "01 02 80808080808080808080", "01 02 05 00 80808080808080808080", // no end
		"80808080808080808000 80808080808080808000 80808080808080808000 80808080808080808000 80808080808080808080",
		"01 02 ffffffff7f 00 05", "01 02 05 ffffffffffffffffff01 05", "01 02 05 00 ffffff7f", // too large
	} {
		if c, _, err := ParseChunk(unhex(t, bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", bad, c, err)
		}
	}
}

func FuzzControl(f *testing.F) {
	for _, v := range vectors {
		f.Add(v.frame.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, n, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrShort) && !errors.Is(err, ErrMalformed) {
				t.Errorf("%x: %v", b, err)
			}
			return
		}
		if enc := x.Append(nil); !bytes.Equal(enc, b[:n]) {
			t.Errorf("%x parses, but is written %x", b[:n], enc)
		}
	})
}

func FuzzChunk(f *testing.F) {
	f.Add(Chunk{1, 2, 100_000, Cell, Cell}.Append(nil))
	f.Add(Preface{Use: Raw, Proto: 3}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, n, err := ParseChunk(b)
		if err == nil && (n != c.HeadLen() || !bytes.Equal(c.Append(nil), b[:n])) {
			t.Errorf("%x parses, but is written %x", b[:n], c.Append(nil))
		}
		if len(b) >= MaxChunkHead && errors.Is(err, ErrShort) {
			t.Errorf("%x is too short", b)
		}
		if p, n, err := ParsePreface(b); err == nil && !bytes.Equal(p.Append(nil), b[:n]) {
			t.Errorf("%x parses, but is written %x", b[:n], p.Append(nil))
		}
	})
}
