package dedup

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/longhaul-project/longhaul/dedup/store"
	"github.com/longhaul-project/longhaul/internal/page"
)

// files tells all that lies in a directory: names, sizes, times and content.
func files(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(h, path, st.Size(), st.ModTime())
		if e.Type().IsRegular() {
			b, err := os.ReadFile(path)
			h.Write(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// through sends items from one store to the other, and returns what was done.
func through(t *testing.T, near, far *Store, items []page.Item) Counts {
	t.Helper()
	l := newWire(t, near, far, EncoderConfig{PeerReady: true})
	for i, it := range items {
		if l.add(it); i%500 == 499 {
			l.flush()
			l.ack()
		}
	}
	l.close()
	return l.e.Stats()
}

// What is on disk is known, both ways and by its anchors, while another process has the
// store open; and nothing there changes, though more comes than there is room for.
func TestView(t *testing.T) {
	w := newTwin(t, LibraryConfig{})
	there, back, more := guest(1, 1000), guest(2, 1000), guest(3, 2000)
	w.send(0, there)
	w.send(1, back)
	for _, s := range w.stores { // which stay open
		s.Flush()
	}
	path := w.dirs[0].Path()
	before := files(t, path)
	v, err := OpenView(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := w.stores[0].Stats(); v.Pages() != st.Disk/page.Size || v.Pages() < 1000 || int64(v.Segments()) != st.Segments {
		t.Errorf("%d pages in %d segments are seen, of %+v", v.Pages(), v.Segments(), st)
	}
	near, far, err := v.Pair(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	defer far.Close()
	near.Warm(func() bool { return false })
	for name, items := range map[string][]page.Item{"there": there, "back": back} {
		if c := through(t, near, far, items); c.Literals+c.Deltas > 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if near.Full() {
		t.Error("full of what was known")
	}
	if c := through(t, near, far, more); c.Literals == 0 || !near.Full() {
		t.Errorf("full: %v after %+v", near.Full(), c)
	}
	if st := near.Stats(); st.Evicted > 0 || st.Memory > 8<<20 {
		t.Errorf("%+v", st)
	}
	if c := through(t, near, far, there); c.Literals+c.Deltas > 0 {
		t.Errorf("after more than there was room for: %+v", c)
	}
	if got := files(t, path); got != before {
		t.Error("what was looked at has changed")
	}
	if c := w.send(0, there); c.Literals > 0 { // those who use it go on
		t.Errorf("%+v", c)
	}
}

// What goes away while it is looked at is not referred to, and what is being written is
// left alone.
func TestViewGoes(t *testing.T) {
	w := newTwin(t, LibraryConfig{})
	items := guest(1, 1000)
	w.send(0, items)
	w.stores[0].Flush()
	path := w.dirs[0].Path()
	half := filepath.Join(path, sentShelf, "000000", "00000001.seg.new")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := OpenView(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(half); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(filepath.Join(path, sentShelf)); err != nil {
		t.Fatal(err)
	}
	near, far, err := v.Pair(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	defer far.Close()
	if c := through(t, near, far, items); c.Literals == 0 {
		t.Errorf("referred to what has gone: %+v", c)
	}
}

// There is nothing to look at where there is nothing, and none is made.
func TestViewNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	if _, err := OpenView(path); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it was made")
	}
	dir, err := store.View(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"put": dir.Shelf("x").Put(store.Header{ID: 1, Sums: []uint64{1}}, make([]byte, page.Size)), "remove": dir.Shelf("x").Remove(1), "wipe": dir.Wipe(),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}
