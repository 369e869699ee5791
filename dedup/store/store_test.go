package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// segment makes a segment of n pages.
func segment(id uint64, n int) (Header, []byte) {
	h := Header{ID: id, Birth: 77}
	pages := make([]byte, n*PageSize)
	for i := range n {
		p := pages[i*PageSize : (i+1)*PageSize]
		for j := range p {
			p[j] = byte(int(id)*31 + i*7 + j)
		}
		h.Sums = append(h.Sums, xxhash.Sum64(p))
	}
	return h, pages
}

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func put(t *testing.T, s *Shelf, id uint64, n int) Header {
	t.Helper()
	h, pages := segment(id, n)
	if err := s.Put(h, pages); err != nil {
		t.Fatal(err)
	}
	return h
}

func ids(all []Header) (n []uint64) {
	for _, h := range all {
		n = append(n, h.ID)
	}
	return n
}

func TestKeepAndRemove(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	s := d.Shelf("sent")
	if all, _, err := s.List(); err != nil || len(all) > 0 {
		t.Fatalf("empty store lists %v, error %v", all, err)
	}
	for _, id := range []uint64{300, 1, 2, 70000} {
		put(t, s, id, int(id%256)+1)
	}
	if _, err := Open(path); err == nil {
		t.Error("a second process may open it")
	}
	all, removed, err := s.List()
	if err != nil || removed > 0 || !slices.Equal(ids(all), []uint64{1, 2, 300, 70000}) {
		t.Fatalf("lists %v, %d removed, error %v", ids(all), removed, err)
	}
	for _, h := range all {
		want, pages := segment(h.ID, len(h.Sums))
		if h.Birth != want.Birth || !slices.Equal(h.Sums, want.Sums) {
			t.Errorf("segment %d has another header", h.ID)
		}
		mem := make([]byte, MaxPages*PageSize)
		if err := s.Load(&h, mem); err != nil || !bytes.Equal(mem[:len(pages)], pages) {
			t.Errorf("segment %d: other pages, error %v", h.ID, err)
		}
		p := make([]byte, PageSize)
		if err := s.Page(&h, len(h.Sums)-1, p); err != nil || !bytes.Equal(p, pages[len(pages)-PageSize:]) {
			t.Errorf("segment %d: other last page, error %v", h.ID, err)
		}
	}
	for range 2 {
		if err := s.Remove(300); err != nil {
			t.Fatal(err)
		}
	}
	if all, _, _ = s.List(); !slices.Equal(ids(all), []uint64{1, 2, 70000}) {
		t.Errorf("lists %v after 300 was removed", ids(all))
	}
}

// A store that was killed at any byte of a write, and one whose files were cut
// at any place, opens without what is damaged.
func TestCutAnywhere(t *testing.T) {
	h, pages := segment(5, 2)
	whole := append(h.Append(nil), pages...)
	path := t.TempDir()
	s := open(t, path).Shelf("sent")
	name := s.file(5)
	put(t, s, 6, 3)
	for n := range len(whole) {
		if n > h.Size()+10 && n%257 != 0 && n < len(whole)-10 {
			continue
		}
		for _, file := range []string{name, name + half} {
			if err := os.WriteFile(file, whole[:n], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		all, removed, err := s.List()
		if err != nil || removed != 2 || !slices.Equal(ids(all), []uint64{6}) {
			t.Fatalf("cut at %d: lists %v, %d removed, error %v", n, ids(all), removed, err)
		}
	}
}

func TestFlippedBits(t *testing.T) {
	h, pages := segment(5, 2)
	whole := append(h.Append(nil), pages...)
	s := open(t, t.TempDir()).Shelf("sent")
	put(t, s, 5, 2)
	mem := make([]byte, MaxPages*PageSize)
	for n := 0; n < len(whole); n += 37 {
		b := bytes.Clone(whole)
		b[n] ^= 0x10
		if err := os.WriteFile(s.file(5), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Verify(&h, mem); (err != nil) != (n < h.Size()) {
			t.Errorf("bit flipped in byte %d of a header of %d: verified with error %v", n, h.Size(), err)
		}
		all, removed, err := s.List()
		switch {
		case err != nil:
			t.Fatal(err)
		case n < h.Size():
			if removed != 1 {
				t.Errorf("bit flipped in byte %d of the header: not removed", n)
			}
		default:
			bad, err := s.Verify(&all[0], mem)
			if err != nil || !slices.Equal(bad, []int{(n - h.Size()) / PageSize}) {
				t.Errorf("bit flipped in byte %d: slots %v are bad, error %v", n, bad, err)
			}
		}
	}
}

// A disk is not filled to its last byte: others need some of it.
func TestDiskKeepsRoom(t *testing.T) {
	s := open(t, t.TempDir()).Shelf("sent")
	if free, size, err := s.room(); err == nil && (free < 0 || free > size || size <= 0) {
		t.Errorf("%d bytes free of %d", free, size)
	}
	h, pages := segment(5, 2)
	for _, tc := range []struct {
		free, size int64
		err        error
		ok         bool
	}{
		{300 << 20, 1 << 40, nil, true},
		{keepFree + h.FileSize(), 1 << 40, nil, true},
		{keepFree + h.FileSize() - 1, 1 << 40, nil, false},
		{32<<20 + h.FileSize(), 1 << 30, nil, true},
		{32<<20 + h.FileSize() - 1, 1 << 30, nil, false},
		{0, 1 << 30, nil, false},
		{0, 0, errors.ErrUnsupported, true},
	} {
		s.room = func() (int64, int64, error) { return tc.free, tc.size, tc.err }
		err := s.Put(h, pages)
		all, _, e := s.List()
		if (err == nil) != tc.ok || (len(all) == 1) != tc.ok || e != nil {
			t.Errorf("%d free of %d: %v, lists %v, %v", tc.free, tc.size, err, ids(all), e)
		}
		if err := s.Remove(5); err != nil {
			t.Fatal(err)
		}
	}
}

// What lies beside the folders of segments keeps nobody from listing these.
func TestBesideFolders(t *testing.T) {
	s := open(t, t.TempDir()).Shelf("sent")
	put(t, s, 5, 2)
	readme := filepath.Join(s.path, "README")
	if err := os.WriteFile(readme, []byte("hands off"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, removed, err := s.List()
	if err != nil || removed != 0 || !slices.Equal(ids(all), []uint64{5}) {
		t.Errorf("lists %v, %d removed, error %v", ids(all), removed, err)
	}
	if _, err := os.Stat(readme); err != nil {
		t.Error(err)
	}
}

// What is no segment by its name and length is not counted, and nothing is read.
func TestHeld(t *testing.T) {
	s := open(t, t.TempDir()).Shelf("sent")
	if segments, pages, err := s.Held(); segments != 0 || pages != 0 || err != nil {
		t.Errorf("of nothing: %d segments, %d pages, %v", segments, pages, err)
	}
	put(t, s, 5, 2)
	put(t, s, 6, MaxPages)
	put(t, s, 600, 1)
	for name, n := range map[string]int64{s.file(7): 100, s.file(8): 0, s.file(9) + half: 4144, s.file(10): 4144 + 1, s.file(11): (MaxPages+1)*(PageSize+8) + 32} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, n); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.path, "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if segments, pages, err := s.Held(); segments != 3 || pages != MaxPages+3 || err != nil {
		t.Errorf("got %d segments, %d pages, %v; want 3, %d", segments, pages, err, MaxPages+3)
	}
}

func TestMisplaced(t *testing.T) {
	s := open(t, t.TempDir()).Shelf("sent")
	put(t, s, 5, 2)
	put(t, s, 6, 2)
	b, err := os.ReadFile(s.file(5))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{s.file(6), s.file(600), filepath.Join(filepath.Dir(s.file(5)), "readme.txt")} {
		os.MkdirAll(filepath.Dir(name), 0o700)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, removed, err := s.List()
	if err != nil || removed != 3 || !slices.Equal(ids(all), []uint64{5}) {
		t.Errorf("lists %v, %d removed, error %v", ids(all), removed, err)
	}
}

// A disk that takes no more leaves nothing behind.
func TestFullDisk(t *testing.T) {
	full := "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Skip("no /dev/full")
	}
	s := open(t, t.TempDir()).Shelf("sent")
	put(t, s, 5, 2)
	h, pages := segment(6, 2)
	if err := os.Symlink(full, s.file(6)+half); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(h, pages); err == nil {
		t.Fatal("a full disk took a segment")
	}
	all, removed, err := s.List()
	if err != nil || removed != 0 || !slices.Equal(ids(all), []uint64{5}) {
		t.Errorf("lists %v, %d removed, error %v", ids(all), removed, err)
	}
}

func FuzzParseHeader(f *testing.F) {
	for _, n := range []int{1, 2, 256} {
		h, _ := segment(9, n)
		f.Add(h.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ParseHeader(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("error %v", err)
			}
			return
		}
		if got := h.Append(nil); !bytes.Equal(got, b[:n]) {
			t.Errorf("%x parses, but is written %x", b[:n], got)
		}
	})
}
