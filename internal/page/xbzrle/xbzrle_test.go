package xbzrle

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

const size = 4096 // of a page, in bytes

// TestVectors are differences as xbzrle_encode_buffer makes them, and such as
// xbzrle_decode_buffer refuses.
func TestVectors(t *testing.T) {
	old := bytes.Repeat([]byte{7}, 64)
	change := func(at ...int) []byte {
		p := bytes.Clone(old)
		for _, i := range at {
			p[i] = 9
		}
		return p
	}
	for _, tc := range []struct {
		new  []byte
		want string
	}{
		{old, ""},
		{change(0), "000109"},
		{change(63), "3f0109"},
		{change(5, 6, 7, 8, 9), "05050909090909"},
		{change(8, 16), "080109" + "070109"},
	} {
		got := Append(nil, old, tc.new)
		if fmt.Sprintf("%x", got) != tc.want {
			t.Errorf("difference %x, want %s", got, tc.want)
		}
		back := make([]byte, len(old))
		if err := Apply(back, old, got); err != nil || !bytes.Equal(back, tc.new) {
			t.Errorf("%s: applied: %x, %v", tc.want, back, err)
		}
	}
	long := append(bytes.Repeat([]byte{1}, 200), bytes.Repeat([]byte{2}, 56)...)
	if got := Append(nil, make([]byte, 256), long); len(got) != 1+2+256 || got[1] != 0x80 || got[2] != 2 {
		t.Errorf("256 bytes: %x", got[:4])
	}
	for _, bad := range []string{"\x00", "\x01\x00", "\x01\x02\x03", "\x01\x01\x05\x00\x01\x05", "\x80\x80\x01", "\x3f\x02\x01\x01", "\x40\x01\x01", "\x01\x01\x05\x02"} {
		if err := Apply(make([]byte, 64), old, []byte(bad)); !errors.Is(err, ErrForm) {
			t.Errorf("%x: error %v", bad, err)
		}
	}
}

// FuzzApply checks that what applies is written again as it was, if it is what
// QEMU writes: every byte of it changes something.
func FuzzApply(f *testing.F) {
	f.Add([]byte("\x00\x01\x09"), uint64(1))
	f.Add([]byte("\x05\x05\x09\x09\x09\x09\x09\x80\x01\x01\x00"), uint64(2))
	f.Fuzz(func(t *testing.T, diff []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		old, new := make([]byte, size), make([]byte, size)
		for i := range old {
			old[i] = byte(r.IntN(3))
		}
		if Apply(new, old, diff) != nil {
			return
		}
		own, again := Append(nil, old, new), make([]byte, size)
		if err := Apply(again, old, own); err != nil || !bytes.Equal(again, new) {
			t.Fatalf("%x: %v", own, err)
		}
		if len(own) > 2*len(diff)+8 && len(diff) > 0 {
			t.Errorf("%d bytes for %d", len(own), len(diff))
		}
	})
}

// TestRandom compares with the plainest way to write a difference.
func TestRandom(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		old, new := make([]byte, size), make([]byte, size)
		for range r.IntN(1 << r.IntN(13)) {
			new[r.IntN(size)] = byte(r.IntN(2))
		}
		var want []byte
		for i := 0; i < size; {
			z := i
			for z < size && old[z] == new[z] {
				z++
			}
			n := z
			for n < size && old[n] != new[n] {
				n++
			}
			if n > z {
				want = append(leb(leb(want, z-i), n-z), new[z:n]...)
			}
			i = n
		}
		if got := Append(nil, old, new); !bytes.Equal(got, want) {
			t.Fatalf("seed %d: %x, want %x", seed, got, want)
		}
	}
}

func leb(b []byte, n int) []byte {
	if n < 0x80 {
		return append(b, byte(n))
	}
	return append(b, byte(n)|0x80, byte(n>>7))
}
