package payload

import (
	"bytes"
	"compress/zlib"
	"errors"
	"io"
	"testing"
)

const size = 4096 // of a page, in bytes

// stored is a payload of pages that are not compressed.
func stored(s *Stored, pages []byte) (b []byte) {
	want := s.Overhead(len(pages)/size) + len(pages)
	for ; len(pages) > 0; pages = pages[size:] {
		b = append(s.AppendBlock(b), pages[:size]...)
	}
	if len(b) != want {
		panic("Overhead is wrong")
	}
	return b
}

// TestStored: what is stored expands to the pages, in several payloads.
func TestStored(t *testing.T) {
	pages := bytes.Repeat([]byte("0123456789abcdef"), 7*size/16)
	for name, tc := range map[string]struct {
		s *Stored
		e Expander
	}{"zlib": {StoredZlib(size), &Zlib{}}, "zstd": {StoredZstd(size), &Zstd{}}} {
		for _, n := range []int{1, 4, 2} {
			dst := make([]byte, n*size)
			if err := tc.e.Expand(dst, stored(tc.s, pages[:n*size])); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !bytes.Equal(dst, pages[:n*size]) {
				t.Errorf("%s: other pages", name)
			}
		}
		if err := tc.e.Expand(make([]byte, size), []byte("nothing that was compressed")); err == nil {
			t.Errorf("%s: noise expands", name)
		}
		if err := tc.e.Expand(make([]byte, size), stored(tc.s, pages[:size])); err == nil {
			t.Errorf("%s: goes on after an error", name)
		}
	}
}

// TestZlibReads: the decompressor of zlib reads stored payloads, and then the
// source's own.
func TestZlibReads(t *testing.T) {
	pages := bytes.Repeat([]byte("the quick brown fox "), 3*size/20+1)[:3*size]
	var own bytes.Buffer
	w := zlib.NewWriter(&own)
	at := make([]int, 0, 3)
	for i := range 3 {
		if _, err := w.Write(pages[i*size : (i+1)*size]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		at = append(at, own.Len())
	}
	mixed := append(stored(StoredZlib(size), pages[:2*size]), own.Bytes()[at[1]:]...)
	r, err := zlib.NewReader(bytes.NewReader(mixed))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(got, pages) {
		t.Errorf("%d bytes, want %d; %v", len(got), len(pages), err)
	}
}
