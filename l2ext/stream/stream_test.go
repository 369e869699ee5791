package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"
)

func TestAppend(t *testing.T) {
	for _, tt := range []struct {
		h    Header
		want string
	}{
		{Header{VNI: 100, Len: 60}, "00000064003c"},
		{Header{VNI: maxVNI, Len: MaxFrame, Redirected: true}, "01ffffff2400"},
		{Header{VNI: 1, Len: MinFrame}, "00000001000e"},
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
	begin := AppendBegin(nil)
	if got := fmt.Sprintf("%x", begin); got != "4c460100" {
		t.Errorf("begins with %s", got)
	}
	for i := range begin {
		if _, err := ParseBegin(begin[:i]); !errors.Is(err, ErrShort) {
			t.Errorf("cut at %d: %v", i, err)
		}
		wrong := bytes.Clone(begin)
		wrong[i] ^= 0x40
		if _, err := ParseBegin(wrong); !errors.Is(err, ErrFormat) {
			t.Errorf("%x: %v", wrong, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, b := range [][]byte{
		{2, 0, 0, 1, 0, 60},         // flags
		{0, 0, 0, 0, 0, 60},         // no VNI
		{0, 0, 0, 1, 0, 0},          // empty
		{0, 0, 0, 1, 0, 13},         // shorter than its header
		{0, 0, 0, 1, 0x24, 1},       // longer than MaxFrame
		{0, 0, 0, 1, 0xff, 0xff, 0}, // much longer
	} {
		if h, _, err := Parse(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%x: %+v, %v", b, h, err)
		}
	}
}

// written is a stream of frames of every kind of length.
func written() (b []byte, frames [][]byte) {
	b = AppendBegin(nil)
	for i, n := range []int{MinFrame, 60, 1514, MaxFrame, 100} {
		frames = append(frames, bytes.Repeat([]byte{byte(i + 1)}, n))
		b = append(Header{VNI: uint32(i + 1), Len: n, Redirected: i%2 != 0}.Append(b), frames[i]...)
	}
	return b, frames
}

func TestReader(t *testing.T) {
	b, frames := written()
	for name, in := range map[string]io.Reader{
		"at once":     bytes.NewReader(b),
		"by the byte": iotest.OneByteReader(bytes.NewReader(b)),
		"in halves":   iotest.HalfReader(bytes.NewReader(b)),
	} {
		r := NewReader(in)
		for i, want := range frames {
			h, got, err := r.Next()
			if err != nil || !bytes.Equal(got, want) || h.VNI != uint32(i+1) || h.Redirected != (i%2 != 0) {
				t.Fatalf("%s, frame %d: %+v, %d bytes, %v", name, i, h, len(got), err)
			}
		}
		if _, _, err := r.Next(); err != io.EOF {
			t.Errorf("%s, at the end: %v", name, err)
		}
	}
}

// TestReaderCut cuts a stream everywhere: what comes out is a beginning of what
// was written, and the end is told apart.
func TestReaderCut(t *testing.T) {
	b, frames := written()
	whole := map[int]int{0: 0, BeginLen: 0} // where a stream may end, and after how many frames
	for at, i := BeginLen, 0; i < len(frames); i++ {
		at += HeaderLen + len(frames[i])
		whole[at] = i + 1
	}
	for n := range len(b) + 1 {
		r, got := NewReader(bytes.NewReader(b[:n])), 0
		var err error
		for err == nil {
			var frame []byte
			if _, frame, err = r.Next(); err == nil {
				if !bytes.Equal(frame, frames[got]) {
					t.Fatalf("cut at %d: frame %d is wrong", n, got)
				}
				got++
			}
		}
		want, ends := whole[n]
		switch {
		case ends && (err != io.EOF || got != want):
			t.Errorf("ended at %d: %d frames, %v", n, got, err)
		case !ends && !errors.Is(err, ErrShort):
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func TestReaderFails(t *testing.T) {
	broken := errors.New("broken")
	if _, _, err := NewReader(iotest.ErrReader(broken)).Next(); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	long := append(AppendBegin(nil), 0, 0, 0, 1, 0xff, 0xff)
	if _, _, err := NewReader(bytes.NewReader(long)).Next(); !errors.Is(err, ErrFormat) {
		t.Errorf("a frame that is too long: %v", err)
	}
	if _, _, err := NewReader(bytes.NewReader([]byte("GET / HTTP/1.1"))).Next(); !errors.Is(err, ErrFormat) {
		t.Errorf("another protocol: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Header{VNI: 100, Len: 1514}.Append(nil))
	f.Add(Header{VNI: 100, Len: 60, Redirected: true}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := Parse(b)
		if err == nil && !bytes.Equal(h.Append(nil), b[:n]) {
			t.Errorf("%x parses, but is written %x", b[:n], h.Append(nil))
		}
	})
}

// FuzzReader: what is read from any bytes is, written again, a beginning of them.
func FuzzReader(f *testing.F) {
	b, _ := written()
	f.Add(b)
	f.Add(b[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, out := NewReader(bytes.NewReader(b)), AppendBegin(nil)
		for {
			h, frame, err := r.Next()
			if err != nil {
				break
			}
			out = append(h.Append(out), frame...)
		}
		if len(out) > BeginLen && !bytes.HasPrefix(b, out) {
			t.Errorf("%x was read as %x", b, out)
		}
	})
}
