package frag

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func TestAppend(t *testing.T) {
	for _, tt := range []struct {
		h    Header
		want string
	}{
		{Header{VNI: 100, ID: 0x1234, Parts: 1}, "0100123400006400"},
		{Header{VNI: 100, ID: 7, Part: 1, Parts: 2, Redirected: true}, "0101000700006411"},
		{Header{VNI: 0xffffff, ID: 0xffff, Part: 15, Parts: 16}, "0100ffffffffffff"},
	} {
		enc := tt.h.Append(nil)
		if got := fmt.Sprintf("%x", enc); got != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.h, got, tt.want)
		}
		if h, n, err := Parse(enc); err != nil || n != HeaderLen || h != tt.h {
			t.Errorf("%+v came back as %+v, %d, %v", tt.h, h, n, err)
		}
		for i := range enc {
			if _, _, err := Parse(enc[:i]); !errors.Is(err, ErrShort) {
				t.Errorf("cut at %d: %v", i, err)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, b := range [][]byte{
		{2, 0, 0, 1, 0, 0, 100, 0},    // version
		{1, 2, 0, 1, 0, 0, 100, 0},    // flags
		{1, 0, 0, 1, 0, 0, 100, 0x10}, // part 1 of 1
	} {
		if h, _, err := Parse(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%x: %+v, %v", b, h, err)
		}
	}
}

func TestParts(t *testing.T) {
	for _, tt := range []struct{ frame, max, want int }{
		{60, 1243, 1}, {1235, 1243, 1}, {1236, 1243, 2}, {1514, 1415, 2}, {1518, 1243, 2},
		{9018, 1243, 8}, {MaxFrame + 1, 1415, 0}, {0, 1415, 0}, {100, HeaderLen, 0}, {1000, 20, 0},
	} {
		if got := Parts(tt.frame, tt.max); got != tt.want {
			t.Errorf("%d bytes in datagrams of %d: %d parts, want %d", tt.frame, tt.max, got, tt.want)
		}
	}
}

// cut makes the datagrams of a frame.
func cut(frame []byte, id uint16, max int) (out [][]byte) {
	parts := Parts(len(frame), max)
	for i := range parts {
		h := Header{VNI: 5, ID: id, Part: uint8(i), Parts: uint8(parts)}
		out = append(out, append(h.Append(nil), Piece(frame, i, parts)...))
	}
	return out
}

// TestReassemble cuts frames of every length and brings them through a network
// that reorders, doubles and loses.
func TestReassemble(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	now := time.Unix(0, 0)
	var r Reassembler
	var whole, lost int
	for n := 14; n <= MaxFrame; n += 1 + rnd.IntN(20) {
		frame := make([]byte, n)
		for i := range frame {
			frame[i] = byte(rnd.Uint32())
		}
		grams := cut(frame, uint16(n), 1243)
		rnd.Shuffle(len(grams), func(i, j int) { grams[i], grams[j] = grams[j], grams[i] })
		lose := -1
		if rnd.IntN(10) == 0 && len(grams) > 1 {
			lose = rnd.IntN(len(grams))
		}
		var got []byte
		for i, g := range grams {
			if i == lose {
				continue
			}
			for range 1 + rnd.IntN(2) {
				h, k, err := Parse(g)
				if err != nil {
					t.Fatal(err)
				}
				f, err := r.Add(now, h, g[k:])
				if err != nil {
					t.Fatal(err)
				}
				if f != nil {
					got = bytes.Clone(f)
				}
			}
		}
		now = now.Add(time.Millisecond)
		switch {
		case lose >= 0:
			lost++
			if got != nil {
				t.Fatalf("frame of %d bytes is whole without part %d", n, lose)
			}
		case !bytes.Equal(got, frame):
			t.Fatalf("frame of %d bytes came out as %d bytes", n, len(got))
		default:
			whole++
		}
		if r.Held() > MaxHeld {
			t.Fatalf("%d bytes held", r.Held())
		}
	}
	if whole == 0 || lost == 0 {
		t.Errorf("%d whole, %d lost: the test tests nothing", whole, lost)
	}
}

// TestBounds sends first halves only: memory stays bounded, and time clears it.
func TestBounds(t *testing.T) {
	now := time.Unix(0, 0)
	var r Reassembler
	part := make([]byte, 1200)
	for id := range 100_000 {
		if f, err := r.Add(now, Header{ID: uint16(id), Parts: 2}, part); f != nil || err != nil {
			t.Fatalf("half a frame gave %d bytes, %v", len(f), err)
		}
		if r.Held() > MaxHeld || len(r.open) > 60 || len(r.order) > 60 {
			t.Fatalf("%d bytes in %d frames are held", r.Held(), len(r.open))
		}
	}
	now = now.Add(Timeout + 1)
	r.Add(now, Header{ID: 1, Part: 1, Parts: 2}, part)
	if r.Held() != len(part) || r.Lost() != 100_000 {
		t.Errorf("after the timeout: %d bytes held, %d lost", r.Held(), r.Lost())
	}
}

// TestTinyParts sends parts of one byte: what is kept is bounded by number.
func TestTinyParts(t *testing.T) {
	var r Reassembler
	for id := range 1 << 16 {
		r.Add(time.Unix(0, 0), Header{ID: uint16(id), Parts: 2}, []byte{1})
		if len(r.open) > maxOpen || len(r.order) > 3*maxOpen {
			t.Fatalf("%d frames are open, %d remembered", len(r.open), len(r.order))
		}
	}
}

// TestOneLateFrame leaves one frame open while many others pass.
func TestOneLateFrame(t *testing.T) {
	now := time.Unix(0, 0)
	var r Reassembler
	r.Add(now, Header{ID: 0, Parts: 2}, []byte{1})
	for id := range 10_000 {
		for part := range uint8(2) {
			r.Add(now, Header{ID: uint16(id%1000 + 1), Part: part, Parts: 2}, []byte{part})
		}
		if len(r.order) > 50 {
			t.Fatalf("%d frames are remembered", len(r.order))
		}
	}
	if f, _ := r.Add(now, Header{ID: 0, Part: 1, Parts: 2}, []byte{2}); !bytes.Equal(f, []byte{1, 2}) {
		t.Errorf("the late frame came out as %x", f)
	}
}

// TestLies sends parts that do not belong together.
func TestLies(t *testing.T) {
	now := time.Unix(0, 0)
	var r Reassembler
	add := func(h Header, n int) error {
		f, err := r.Add(now, h, make([]byte, n))
		if f != nil && err != nil {
			t.Errorf("both a frame and %v", err)
		}
		return err
	}
	add(Header{ID: 1, Part: 0, Parts: 2}, 10)
	if err := add(Header{ID: 1, Part: 1, Parts: 2}, 11); !errors.Is(err, ErrFormat) {
		t.Errorf("a last part longer than the first: %v", err)
	}
	add(Header{ID: 2, Part: 0, Parts: 3}, 10)
	add(Header{ID: 2, Part: 1, Parts: 3}, 9)
	if err := add(Header{ID: 2, Part: 2, Parts: 3}, 9); !errors.Is(err, ErrFormat) {
		t.Errorf("unequal parts: %v", err)
	}
	add(Header{ID: 3, Part: 0, Parts: 2}, 9000)
	if err := add(Header{ID: 3, Part: 1, Parts: 2}, 9000); !errors.Is(err, ErrFormat) {
		t.Errorf("too long a frame: %v", err)
	}
	if err := add(Header{ID: 4, Parts: 1}, 0); !errors.Is(err, ErrFormat) {
		t.Errorf("an empty part: %v", err)
	}
	if r.Held() != 0 {
		t.Errorf("%d bytes are held", r.Held())
	}
}

func FuzzParse(f *testing.F) {
	for _, g := range cut(make([]byte, 1514), 9, 1243) {
		f.Add(g)
	}
	f.Add(Header{VNI: 1, Parts: 1, Redirected: true}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := Parse(b)
		if err == nil && !bytes.Equal(h.Append(nil), b[:n]) {
			t.Errorf("%x parses, but is written %x", b[:n], h.Append(nil))
		}
	})
}

// FuzzReassemble feeds a stream of datagrams, each with its length before it.
func FuzzReassemble(f *testing.F) {
	var seed []byte
	for _, g := range append(cut(make([]byte, 200), 1, 100), cut(make([]byte, 60), 2, 100)...) {
		seed = append(append(seed, byte(len(g))), g...)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Reassembler
		now := time.Unix(0, 0)
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			g := b[1 : 1+n]
			b = b[1+n:]
			if h, k, err := Parse(g); err == nil {
				if frame, _ := r.Add(now, h, g[k:]); len(frame) > MaxFrame {
					t.Fatalf("a frame of %d bytes", len(frame))
				}
			}
			now = now.Add(time.Duration(n) * time.Millisecond)
			if r.Held() > MaxHeld || r.Held() < 0 {
				t.Fatalf("%d bytes held", r.Held())
			}
		}
	})
}

func BenchmarkReassemble(b *testing.B) {
	grams := cut(make([]byte, 1514), 1, 1415)
	var r Reassembler
	now := time.Unix(0, 0)
	b.SetBytes(1514)
	b.ReportAllocs()
	for b.Loop() {
		for _, g := range grams {
			h, k, err := Parse(g)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := r.Add(now, h, g[k:]); err != nil {
				b.Fatal(err)
			}
		}
	}
}
