package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// messages are values with the bytes that they must have on the wire: what
// other versions of the gateway will have to read.
var messages = []struct {
	name string
	m    Message
	hex  string
}{
	{"zero pages", Message{Seq: 1, Store: 0x1122334455667788, Floor: 1, Raw: 900, Items: 100,
		Digest: [DigestSize]byte{1, 2, 15: 16}, Parts: [Columns]Part{Ops: {Raw, 4, []byte{0x26, 1, 0, 100}}}},
		"4c487262 01 00 01 1122334455667788 01 8407 64 01020000000000000000000000000010 01 04 04 00 00 00 26010064"},
	{"all columns, trip home", Message{Flags: Seal | Uses, Seq: 300, Store: 1, Floor: 2, Peer: 3, PeerFloor: 4, Raw: 8300, Items: 3,
		Parts: [Columns]Part{{Raw, 1, []byte{'o'}}, {LZ4, 9, []byte("d")}, {Zstd, 4096, []byte("ll")}, {Raw, 2, []byte("oo")}}},
		"4c487262 01 0a ac02 0000000000000001 02 0000000000000003 04 ec40 03 00000000000000000000000000000000" +
			" 010101 020901 03802002 010202 6f 64 6c6c 6f6f"},
	{"nothing", Message{}, "4c487262 01 00 00 0000000000000000 00 00 00 00000000000000000000000000000000 00 00 00 00"},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMessage(t *testing.T) {
	for _, tt := range messages {
		t.Run(tt.name, func(t *testing.T) {
			want := unhex(t, tt.hex)
			got := tt.m.Append(nil)
			if !bytes.Equal(got, want) {
				t.Fatalf("written\n%x, want\n%x", got, want)
			}
			if len(got) > tt.m.Len() {
				t.Errorf("Len is %d, but it takes %d", tt.m.Len(), len(got))
			}
			m, n, err := Parse(append(want, "more"...))
			if err != nil || n != len(want) {
				t.Fatalf("parsed %d of %d bytes: %v", n, len(want), err)
			}
			if fmt.Sprint(m) != fmt.Sprint(tt.m) {
				t.Errorf("parsed %+v, want %+v", m, tt.m)
			}
			for i := range want {
				if _, _, err := Parse(want[:i]); !errors.Is(err, ErrShort) {
					t.Errorf("cut at %d: error %v", i, err)
				}
			}
		})
	}
}

func TestRefusedMessages(t *testing.T) {
	part := func(c Codec, size int, data string) [Columns]Part {
		return [Columns]Part{Literals: {c, size, []byte(data)}}
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"another protocol", []byte("HTTP/1.1 200 OK"), "first bytes"},
		{"version 2", append(unhex(t, "4c487262 02"), make([]byte, 60)...), "version 2"},
		{"unknown flag", (&Message{Flags: 16}).Append(nil), "unknown flags"},
		{"raw size", (&Message{Raw: MaxRaw + 1}).Append(nil), "raw size"},
		{"items", (&Message{Items: MaxItems + 1}).Append(nil), "number of items"},
		{"unknown codec", (&Message{Raw: 9, Parts: part(lastCodec+1, 9, "a")}).Append(nil), "unknown codec 7"},
		{"fold as it was", (&Message{Raw: 9, Parts: part(Fold-1, 9, "a")}).Append(nil), "unknown codec 5"},
		{"column over raw", (&Message{Raw: 9, Parts: part(Zstd, 10, "a")}).Append(nil), "size of a column"},
		{"columns over raw", (&Message{Raw: 9, Parts: [Columns]Part{Literals: {LZ4, 9, []byte("a")}, Opaque: {LZ4, 1, nil}}}).Append(nil), "column 3"},
		{"sum over raw", (&Message{Raw: 9, Parts: [Columns]Part{Literals: {LZ4, 9, []byte("a")}, Opaque: {Raw, 1, []byte("a")}}}).Append(nil), "10 literal and opaque bytes"},
		{"longer compressed", (&Message{Raw: 9, Parts: part(Zstd, 2, "aaa")}).Append(nil), "wire size"},
		{"raw of other size", (&Message{Raw: 9, Parts: part(Raw, 3, "aa")}).Append(nil), "raw of 3 bytes in 2"},
		{"ops over items", (&Message{Raw: 9, Parts: [Columns]Part{Ops: {Zstd, 81, []byte("a")}}}).Append(nil), "size of a column"},
		{"long varint", unhex(t, "4c487262 01 00 8100"), "shortest varint"},
		{"floor", (&Message{Floor: MaxSegment + 1}).Append(nil), "floor"},
	} {
		if _, _, err := Parse(tt.b); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

var ops = []struct {
	o   Op
	hex string
}{
	{Op{Kind: Bytes, Count: 300}, "10 ac02"},
	{Op{Kind: Zero, Head: HeadPredicted, Addr: AddrNext, Count: 8192}, "25 8040"},
	{Op{Kind: Zero, Head: HeadOne, Addr: AddrJump, Jump: -3, Count: 1}, "2e 05"},
	{Op{Kind: Blank, Addr: AddrFar, Space: 2, Page: MaxPage, Count: 1}, "33 02 ffffffffffffff07 01"},
	{Op{Kind: Same, Head: HeadPredicted, Addr: AddrJump, Jump: 1, Count: 2}, "46 02 02"},
	{Op{Kind: Ref, Head: HeadOne, Addr: AddrNext, Ref: -1, Other: true, Count: 1}, "5d 03"},
	{Op{Kind: Ref, Count: 7, Ref: 5}, "50 07 14"},
	{Op{Kind: Literal, Head: HeadExplicit, HeadLen: 265, Addr: AddrNext, Count: 1}, "69 8902"},
	{Op{Kind: Passing, Head: HeadOne, Addr: AddrNext, Count: 1}, "7d"},
	{Op{Kind: DeltaSame, Head: HeadOne, Addr: AddrNext, Count: 1}, "8d"},
	{Op{Kind: DeltaRef, Head: HeadOne, Addr: AddrNext, Count: 1}, "9d 00"},
	{Op{Kind: Segment, Segment: 1000}, "a0 e807"},
	{Op{Kind: Table, Count: 1344}, "c0 c00a"},
	{Op{Kind: Elsewhere, Head: HeadPredicted, Addr: AddrNext, Count: 256}, "f5 8002"},
	{Op{Kind: Elsewhere, Count: 1}, "f0 01"},
	{Op{Kind: DeltaMany, Head: HeadOne, Addr: AddrNext, Count: 1, Ref: 5, Many: 1, More: [3]Base{{Ref: -1, Other: true}}}, "bd 01 14 03"},
	{Op{Kind: DeltaMany, Addr: AddrNext, Count: 1, Same: true, Many: 3, More: [3]Base{{Ref: 1}, {Ref: 2}, {Ref: 3}}}, "b1 07 04 08 0c"},
	{Op{Kind: XBZRLE, Head: HeadOne, Addr: AddrNext, Count: 1, Len: 300}, "dd ac02"},
	{Op{Kind: XBZRLE, Head: HeadExplicit, HeadLen: 9, Addr: AddrJump, Jump: 1, Count: 1, Ref: 1, Other: true}, "da 02 09 00 05"},
	{Op{Kind: Short, Count: 1, Len: 4095}, "e0 fe3f"},
	{Op{Kind: Short, Count: 1, Len: 64, Known: true, Ref: -1}, "e0 8101 02"},
	{Op{Kind: DeltaMany, Head: HeadExplicit, HeadLen: 9, Count: 1, Many: 1}, "b8 09 01 00 00"},
}

func TestOps(t *testing.T) {
	for _, tt := range ops {
		want := unhex(t, tt.hex)
		if got := tt.o.Append(nil); !bytes.Equal(got, want) {
			t.Errorf("%+v is written %x, want %x", tt.o, got, want)
		}
		o, n, err := ParseOp(append(want, 0xff))
		if err != nil || n != len(want) || o != tt.o {
			t.Errorf("%x parses as %+v, %d, %v; want %+v", want, o, n, err, tt.o)
		}
		for i := range want {
			if _, _, err := ParseOp(want[:i]); !errors.Is(err, ErrShort) {
				t.Errorf("%x cut at %d: error %v", want, i, err)
			}
		}
	}
	one := Op{Kind: Literal, Head: HeadPredicted, Addr: AddrNext, Count: 1}
	if got := one.Append(nil); !bytes.Equal(got, []byte{0x6d}) {
		t.Errorf("a run of one is written %x", got)
	}
}

func TestRefusedOps(t *testing.T) {
	for _, tt := range []struct{ hex, want string }{
		{"00", "unknown kind 0"},
		{"f0 00", "run of 0"},
		{"dc 00 00", "xbzrle without an address"},
		{"d1 05", "xbzrle without a head"},
		{"d5 05", "run of xbzrle"},
		{"dd 8120", "length of a difference"},
		{"ec 02", "short with a head"},
		{"e0 00", "short page of no bytes"},
		{"e0 8040", "length of a short page"},
		{"c4 08", "table with a head"},
		{"b5 01 00 00", "run of delta-many"},
		{"b1 00 00", "0 further bases"},
		{"b1 08 00", "8 further bases"},
		{"b0 05 00", "delta-many of the same address without an address"},
		{"14 05", "bytes with a head"},
		{"a1 05", "segment with a head or an address"},
		{"40 01", "same without an address"},
		{"80 01", "delta without an address"},
		{"22 00 01", "jump to the next page"},
		{"23 00 00 01", "jump to no block"},
		{"20 00", "run of 0"},
		{"24 01", "run of 1"},
		{"20 818001", "count"},
		{"28 00", "empty head"},
		{"28 8120", "length of a head"},
		{"10 8000", "shortest varint"},
	} {
		if _, _, err := ParseOp(unhex(t, tt.hex)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.hex, err, tt.want)
		}
	}
}

func TestClaim(t *testing.T) {
	c := Claim{Fingerprint: 0x1122334455667788, Hash: [HashSize]byte{1, 15: 16}}
	want := unhex(t, "1122334455667788 01000000000000000000000000000010")
	b := c.Append(nil)
	if got, err := ParseClaim(b); !bytes.Equal(b, want) || got != c || err != nil {
		t.Errorf("written %x, want %x; parsed %+v, %v", b, want, got, err)
	}
	for i := range want {
		if _, err := ParseClaim(want[:i]); !errors.Is(err, ErrShort) {
			t.Errorf("cut at %d: error %v", i, err)
		}
	}
}

func TestNames(t *testing.T) {
	for k := Kind(1); k <= lastKind; k++ {
		if strings.HasPrefix(k.String(), "kind") {
			t.Errorf("kind %d has no name", k)
		}
	}
	if got := fmt.Sprint(Kind(200), Codec(0), Raw, LZ4, Zstd, Press, Fold, Codec(9)); got != "kind 200 empty raw lz4 zstd press fold codec 9" {
		t.Errorf("got %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, tt := range messages {
		f.Add(unhex(f, tt.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, n, err := Parse(b)
		if err != nil {
			return
		}
		if got := m.Append(nil); !bytes.Equal(got, b[:n]) {
			t.Errorf("%x parses, but is written %x", b[:n], got)
		}
		size := 0
		for _, p := range m.Parts {
			size += p.Size
		}
		if size > 3*MaxRaw {
			t.Errorf("%d bytes of columns were let through", size)
		}
	})
}

func FuzzParseOp(f *testing.F) {
	for _, tt := range ops {
		f.Add(unhex(f, tt.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, n, err := ParseOp(b)
		if err != nil {
			return
		}
		if got := o.Append(nil); !bytes.Equal(got, b[:n]) {
			t.Errorf("%x parses, but is written %x", b[:n], got)
		}
	})
}
