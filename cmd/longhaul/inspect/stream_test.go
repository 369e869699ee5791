package inspect

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// A stream is written as QEMU would write it (hypervisor-wire.md).
type stream struct{ b []byte }

func (s *stream) raw(b ...byte) *stream { s.b = append(s.b, b...); return s }
func (s *stream) u32(v uint32) *stream  { s.b = binary.BigEndian.AppendUint32(s.b, v); return s }
func (s *stream) u64(v uint64) *stream  { s.b = binary.BigEndian.AppendUint64(s.b, v); return s }
func (s *stream) text(t string) *stream { s.b = append(s.b, t...); return s }
func (s *stream) cstr(t string) *stream { return s.raw(byte(len(t))).text(t) }

// begin opens ram with one block of so many pages; it leaves the section open.
func begin(pages uint64) *stream {
	s := new(stream).text(header).raw(7).u32(3).text("pc0")
	s.raw(1).u32(2).cstr("ram").u32(0).u32(4)
	return s.u64(pages*page.Size | 4).cstr("ram0").u64(pages * page.Size)
}

func (s *stream) page(n uint64, content []byte) *stream {
	return s.u64(n*page.Size | 8).cstr("ram0").raw(content...)
}

func (s *stream) zero(n uint64) *stream { return s.u64(n*page.Size | 2).cstr("ram0").raw(0) }

// end closes ram; what follows is a device's state and the description.
func (s *stream) end() []byte {
	s.u64(16).raw(0x7e).u32(2)         // EOS, footer
	s.raw(3).u32(2).u64(16).raw(0x7e)  // SECTION_END
	s.u32(2).raw(4).u32(7).cstr("cpu") // SECTION_FULL
	return s.u32(0).u32(12).text("registers").raw(0x7e).u32(7).raw(0, 6).u32(2).text("{}").b
}

// content is a page of noise, the same for the same seed.
func content(seed uint64) []byte {
	b := make([]byte, page.Size)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64()|1)
	}
	return b
}

// table is a page of records, which compresses, and the same for the same seed.
func table(seed uint64) []byte {
	var b []byte
	r := rand.New(rand.NewPCG(seed, 2))
	for len(b) < page.Size {
		b = binary.LittleEndian.AppendUint64(b, 0xffff888100000000|r.Uint64N(1<<20)<<6)
		b = binary.LittleEndian.AppendUint32(b, uint32(r.IntN(300)))
		b = append(b, "\x01\x00\x02\x00"...)
	}
	return b
}

// edit changes words of a page.
func edit(b []byte, words int) []byte {
	b = bytes.Clone(b)
	for i := range words {
		b[i*8] ^= 0x80
	}
	return b
}

// look inspects captures, one after the other.
func look(t *testing.T, captures ...[]byte) []File {
	t.Helper()
	in := New(Options{Store: 64 << 20})
	var files []File
	for i, b := range captures {
		f, err := in.Inspect(t.Context(), string(rune('a'+i)), bytes.NewReader(b))
		if err != nil {
			t.Fatalf("capture %d: %v", i, err)
		}
		files = append(files, f)
	}
	return files
}

func method(t *testing.T, f File, name string) Method {
	t.Helper()
	for _, m := range f.Methods {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("no method %s in %+v", name, f)
	return Method{}
}

// seeds are streams of real QEMUs, thinned out, as they lie on the disk.
func seeds(t *testing.T) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("../../../internal/qemu/vmstream/testdata/*.gz")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	all := make(map[string][]byte)
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(p), ".gz")] = b
	}
	return all
}

func zip(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
