package dedup

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/longhaul-project/longhaul/dedup/store"
	"github.com/longhaul-project/longhaul/internal/page"
)

func has(p *Pool, b []byte) bool {
	return p.Find(fingerprint(b), func(q []byte) bool { return bytes.Equal(b, q) })
}

// A pool keeps each page once, also over restarts, and no zero pages.
func TestPool(t *testing.T) {
	dir, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	open := func() *Pool {
		p, err := OpenPool(dir.Shelf("own"), PoolConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	pages := image(1, 700)
	p := open()
	before := p.Generation()
	if n := seed(t, p, append(pages, make([]byte, page.Size), pages[3])); n != 700 {
		t.Errorf("%d pages were new, want 700", n)
	}
	if g := p.Generation(); g != before+3 {
		t.Errorf("generation %d after 3 segments, %d before", g, before)
	}
	p = open()
	if n := seed(t, p, pages); n != 0 {
		t.Errorf("%d pages were new the second time", n)
	}
	for i, b := range pages {
		if !has(p, b) {
			t.Fatalf("page %d is not found", i)
		}
	}
	s := p.Stats()
	if s.Pages != 700 || s.Segments != 3 || s.Bytes != 700*page.Size || s.Hits != 700 || s.Memory == 0 {
		t.Errorf("%+v", s)
	}
	mem, n := new(slab), 0
	for _, id := range p.Segments() {
		for i, h := range p.Read(id, mem) {
			if !bytes.Equal(mem[i*page.Size:(i+1)*page.Size], pages[n]) || h != fingerprint(pages[n]) {
				t.Fatalf("page %d of the pool is another one", n)
			}
			n++
		}
	}
	if n != 700 {
		t.Errorf("%d pages were read, want 700", n)
	}
}

// A full pool lets go of what was used longest ago.
func TestPoolEvicts(t *testing.T) {
	p := newPool(t, PoolConfig{Disk: 4 << 20})
	pages := image(2, 1024)
	seed(t, p, pages)
	for _, b := range pages[:256] { // the oldest are in use
		has(p, b)
	}
	more := image(3, 512)
	seed(t, p, more)
	for _, c := range []struct {
		name  string
		pages [][]byte
		want  bool
	}{{"used", pages[:256], true}, {"unused", pages[256:768], false}, {"younger", pages[768:], true}, {"new", more, true}} {
		for i, b := range c.pages {
			if has(p, b) != c.want {
				t.Fatalf("%s page %d: found is %v", c.name, i, !c.want)
			}
		}
	}
	if s := p.Stats(); s.Segments != 4 || s.Evicted != 2 {
		t.Errorf("%+v", s)
	}
}

// Segments that are used without their pages stay as if these had been added again, and each
// differs from all that had its number.
func TestPoolUse(t *testing.T) {
	p := newPool(t, PoolConfig{Disk: 4 << 20})
	pages := image(2, 1024)
	seed(t, p, pages)
	ids, births := p.Births()
	if len(ids) != 4 || len(births) != 4 || births[0] == births[1] || births[0] == 0 {
		t.Fatalf("segments %v are born %v", ids, births)
	}
	p.Use([]uint64{ids[0], ids[2], ids[3] + 9})
	seed(t, p, image(3, 512))
	if now, _ := p.Births(); len(now) != 4 || now[0] != ids[0] || now[1] != ids[2] {
		t.Errorf("of segments %v, used the first and the third, %v are left", ids, now)
	}
}

// segmentFiles are the files of a store's segments.
func segmentFiles(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*", "*", "*.seg"))
	if err != nil || len(all) == 0 {
		t.Fatalf("%d segments in %s: %v", len(all), dir, err)
	}
	return all
}

// flip changes one byte of a file.
func flip(t *testing.T, name string, at int) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A scrub finds and drops damaged segments of a pool, and the image can be
// seeded again.
func TestPoolScrub(t *testing.T) {
	dir, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	p, err := OpenPool(dir.Shelf("own"), PoolConfig{})
	if err != nil {
		t.Fatal(err)
	}
	pages := image(4, 1024)
	seed(t, p, pages)
	files := segmentFiles(t, dir.Path())
	flip(t, files[1], 100_000)
	if err := os.Truncate(files[2], 5000); err != nil {
		t.Fatal(err)
	}
	flip(t, files[3], 20) // of its header
	steps := 0
	got := p.Scrub(func(s Scrubbed) bool { steps++; return true })
	want := Scrubbed{Segments: 4, Bytes: 4 << 20, Total: 4 << 20, Damaged: 1 + 2*256, Dropped: 3}
	if got != want || steps != 4 {
		t.Errorf("%+v in %d steps, want %+v in 4", got, steps, want)
	}
	if n := seed(t, p, pages); n != 3*256 {
		t.Errorf("%d pages were seeded again, want 768", n)
	}
	if got := p.Scrub(func(s Scrubbed) bool { return false }); got.Segments != 1 || got.Damaged != 0 {
		t.Errorf("stopped at once: %+v", got)
	}
}

// A store can be scrubbed before the peer is heard of; what is dropped crosses again.
func TestScrubDir(t *testing.T) {
	w := newTwin(t, LibraryConfig{})
	items := guest(6, 2000)
	w.send(0, items)
	w.stop()
	files := segmentFiles(t, w.dirs[0].Path())
	flip(t, files[1], 1<<19)
	if err := os.Truncate(files[2], 5000); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	got := ScrubDir(w.dirs[0], log, func(Scrubbed) bool { return true })
	if got.Damaged != 2 || got.Dropped != 2 || got.Segments != int64(len(files))-1 || got.Bytes != got.Total {
		t.Errorf("%+v", got)
	}
	if again := ScrubDir(w.dirs[0], log, func(Scrubbed) bool { return true }); again.Damaged != 0 {
		t.Errorf("the second time: %+v", again)
	}
	flip(t, segmentFiles(t, w.dirs[0].Path())[0], 20) // of its header
	w.start()
	if s := w.stores[0].Stats(); s.Damaged != 1 { // that was removed now
		t.Errorf("%+v", s)
	}
	w.send(0, items) // compares
}

// A scrub of a store drops damaged segments at one end; the other end still
// refers to them, and is asked for what it refers to.
func TestStoreScrub(t *testing.T) {
	w := newTwin(t, LibraryConfig{Memory: 8 << 20})
	var items []page.Item
	for i, p := range image(5, 4096) {
		items = append(items, fullPage(1, uint64(i), p))
	}
	w.send(0, items)
	w.stop()
	w.start() // nothing is in memory now
	files := segmentFiles(t, w.dirs[1].Path())
	flip(t, files[3], 1<<19)
	flip(t, files[5], 1<<18)
	got := w.stores[1].Scrub(func(Scrubbed) bool { return true })
	if got.Damaged != 2 || got.Dropped != 2 || got.Segments != 16 || got.Bytes != 16<<20 {
		t.Errorf("%+v", got)
	}
	if s := w.stores[1].Stats(); s.Damaged != 2 || s.Pages() != 14*256 || s.Disk != 14<<20 {
		t.Errorf("%+v", s)
	}
	w.stores[1].Flush()
	if n := len(segmentFiles(t, w.dirs[1].Path())); n != 14 {
		t.Errorf("%d files are left, want 14", n)
	}
	l := newWire(t, w.stores[0], w.stores[1], EncoderConfig{PeerReady: true})
	l.d.cfg.Fetch = w.stores[0].Pages
	for _, it := range items {
		l.add(it)
	}
	l.close()
	if s := l.e.Stats(); s.Literals > 512 {
		t.Errorf("%+v", s)
	}
	if l.d.Stats().Fetched == 0 {
		t.Error("the peer was never asked")
	}
	if got := w.stores[1].Scrub(func(Scrubbed) bool { return true }); got.Damaged != 0 {
		t.Errorf("the second time: %+v", got)
	}
}

// What is damaged on disk, or gone from it, and whole in memory is written anew: it is
// referred to as before. What is rotten in memory as well is dropped.
func TestStoreScrubMends(t *testing.T) {
	w := newTwin(t, LibraryConfig{Memory: 64 << 20})
	var items []page.Item
	for i, p := range image(5, 1024) {
		items = append(items, fullPage(1, uint64(i), p))
	}
	w.send(0, items)
	w.stores[1].Flush()
	files := segmentFiles(t, w.dirs[1].Path())
	flip(t, files[0], 1<<19)
	if err := errors.Join(os.Remove(files[1]), os.Truncate(files[2], 5000)); err != nil {
		t.Fatal(err)
	}
	flip(t, files[3], 1<<19)
	w.stores[1].received.at(4).mem.Load()[100]++
	all := func(Scrubbed) bool { return true }
	got, want := w.stores[1].Scrub(all), Scrubbed{Segments: 4, Bytes: 4 << 20, Total: 4 << 20, Damaged: 1 + 2*256 + 1, Dropped: 1, Mended: 3}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	w.stores[1].Flush()
	if got := w.stores[1].Scrub(all); got.Damaged > 0 || got.Segments != 3 || len(segmentFiles(t, w.dirs[1].Path())) != 3 {
		t.Errorf("the second time: %+v", got)
	}
	if s := w.stores[1].Stats(); s.Damaged != 1 || s.Disk != 3<<20 {
		t.Errorf("%+v", s)
	}
	w.stop()
	w.start() // without what was in memory
	if c := w.send(0, items); c.Literals+c.Deltas > 256 || c.Refs < 3*256 {
		t.Errorf("%+v", c)
	}
}
