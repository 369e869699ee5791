package dedup

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/longhaul-project/longhaul/dedup/store"
	"github.com/longhaul-project/longhaul/internal/page"
)

// A twin is two gateways' ends of one store, with disks that outlive them.
type twin struct {
	t      testing.TB
	dirs   [2]*store.Dir
	stores [2]*Store
	cfg    LibraryConfig
}

func newTwin(t testing.TB, cfg LibraryConfig) *twin {
	t.Helper()
	w := &twin{t: t, cfg: cfg}
	for i := range w.dirs {
		d, err := store.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		w.dirs[i] = d
	}
	w.start()
	t.Cleanup(w.stop)
	return w
}

// start opens both libraries and has them agree, through the wire format.
func (w *twin) start() {
	w.t.Helper()
	var libs [2]*Library
	var catalogs [2]Catalog
	for i, d := range w.dirs {
		l, err := OpenLibrary(d, w.cfg)
		if err != nil {
			w.t.Fatal(err)
		}
		c := l.Catalog()
		if catalogs[i], err = ParseCatalog(c.Append(nil)); err != nil {
			w.t.Fatal(err)
		}
		libs[i] = l
	}
	for i, l := range libs {
		theirs, _ := swap(w.t, catalogs[i], catalogs[1-i])
		s, err := l.Agree(theirs)
		if err != nil {
			w.t.Fatal(err)
		}
		w.stores[i] = s
	}
}

func (w *twin) stop() {
	for _, s := range w.stores {
		s.Close()
	}
}

// send moves items from one end to the other and returns what was done.
func (w *twin) send(from int, items []page.Item) Counts {
	w.t.Helper()
	l := newWire(w.t, w.stores[from], w.stores[1-from], EncoderConfig{PeerReady: true})
	for i, it := range items {
		l.add(it)
		if i%500 == 499 {
			l.flush()
			l.ack()
		}
	}
	l.close()
	return l.e.Stats()
}

// A store that both ends closed well knows everything after a restart, in both
// directions.
func TestLibraryRemembers(t *testing.T) {
	w := newTwin(t, LibraryConfig{})
	items := guest(1, 1000)
	first := w.send(0, items)
	w.stop()
	w.start()
	again := w.send(0, items)
	if again.Literals != 0 || again.Deltas != 0 {
		t.Errorf("%d literals and %d deltas after a restart, %+v", again.Literals, again.Deltas, again)
	}
	if again.Wire > first.Wire/20 {
		t.Errorf("%d bytes after a restart, %d at first", again.Wire, first.Wire)
	}
	w.stop()
	w.start()
	home := w.send(1, items)
	if home.Literals != 0 {
		t.Errorf("%d literals on the trip home", home.Literals)
	}
	st := w.stores[0].Stats()
	if st.Disk == 0 || st.Sent == 0 {
		t.Errorf("stats %+v", st)
	}
}

// Near copies are found after a restart as well, once the store is warm: of all that it
// holds, which is more than an anchor table begins with.
func TestLibraryWarm(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	w := newTwin(t, LibraryConfig{})
	var items, shifted []page.Item
	for i := range 1200 {
		items = append(items, fullPage(1, uint64(i), randomPage(rng)))
	}
	for i := range 200 {
		p := append(bytes.Clone(items[5*i].Data[1000:]), items[5*i+60].Data[:1000]...)
		shifted = append(shifted, fullPage(2, uint64(i), p))
	}
	w.send(0, items)
	w.stop()
	w.start()
	w.stores[0].Warm(func() bool { return false })
	if c := w.send(0, shifted); c.Deltas < 190 { // some anchors have taken the places of others
		t.Errorf("%d of 200 shifted pages were found: %+v", c.Deltas, c)
	}
}

// More content than memory: what is on disk is referred to all the same, and
// memory stays within its budget.
func TestLibraryBeyondMemory(t *testing.T) {
	w := newTwin(t, LibraryConfig{Memory: 8 << 20, Disk: 256 << 20})
	items := guest(3, 8000)
	w.send(0, items)
	for round := range 3 {
		c := w.send(round%2, items)
		if c.Literals > 0 {
			t.Errorf("round %d: %d literals", round, c.Literals)
		}
		for i, s := range w.stores {
			if st := s.Stats(); st.Memory > 16<<20 { // and what is on its way to the disk, or open
				t.Errorf("round %d: store %d has %d bytes in memory", round, i, st.Memory)
			}
		}
	}
}

// What is on one disk only is dropped; nothing else comes of it.
func TestLibraryLosses(t *testing.T) {
	segments := func(t *testing.T, dir *store.Dir, shelf string) []string {
		all, err := filepath.Glob(filepath.Join(dir.Path(), shelf, "*", "*.seg"))
		if err != nil || len(all) < 3 {
			t.Fatalf("segments %v, error %v", all, err)
		}
		return all
	}
	for name, lose := range map[string]func(t *testing.T, w *twin){
		"all of the sender": func(t *testing.T, w *twin) {
			os.RemoveAll(filepath.Join(w.dirs[0].Path(), "sent"))
		},
		"all of the receiver": func(t *testing.T, w *twin) {
			os.RemoveAll(filepath.Join(w.dirs[1].Path(), "received"))
		},
		"a segment": func(t *testing.T, w *twin) {
			os.Remove(segments(t, w.dirs[1], "received")[1])
		},
		"the end of a segment": func(t *testing.T, w *twin) {
			os.Truncate(segments(t, w.dirs[0], "sent")[1], 100_000)
		},
		"a header": func(t *testing.T, w *twin) {
			f, err := os.OpenFile(segments(t, w.dirs[1], "received")[0], os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			f.WriteAt([]byte{1, 2, 3}, 50)
		},
		"a crash while writing": func(t *testing.T, w *twin) {
			if err := os.WriteFile(segments(t, w.dirs[0], "sent")[0]+".new", []byte("LHsg half"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a foreign file": func(t *testing.T, w *twin) {
			all := segments(t, w.dirs[0], "sent")
			b, err := os.ReadFile(all[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(all[1], b, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTwin(t, LibraryConfig{})
			items := guest(1, 1500)
			w.send(0, items)
			w.stop()
			lose(t, w)
			w.start()
			for _, from := range []int{0, 1, 0} {
				w.send(from, items) // fails the test on any wrong byte
			}
			if c := w.send(0, items); c.Literals != 0 {
				t.Errorf("%d literals in the end", c.Literals)
			}
		})
	}
}

// Bits that rot on the disk are noticed when a page is used: by the receiver,
// whose digest would be wrong, and by the sender, who then does not refer to it.
func TestLibraryRot(t *testing.T) {
	for _, end := range []int{0, 1} {
		w := newTwin(t, LibraryConfig{})
		items := guest(1, 600)
		w.send(0, items)
		w.stop()
		for _, shelf := range []string{"sent", "received"} {
			all, _ := filepath.Glob(filepath.Join(w.dirs[end].Path(), shelf, "*", "*.seg"))
			for _, name := range all {
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				for at := 3000; at < len(b); at += page.Size {
					b[at] ^= 1
				}
				if err := os.WriteFile(name, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.start()
		l := newWire(t, w.stores[0], w.stores[1], EncoderConfig{PeerReady: true})
		err := try(t, l, items)
		if (err != nil) != (end == 1) {
			t.Errorf("rot at end %d: error %v", end, err)
		}
		l.e.Close()
		l.d.Close()
	}
}

// A number that is given out again after a crash is not taken for the one that
// the peer still has.
func TestLibraryBirth(t *testing.T) {
	w := newTwin(t, LibraryConfig{})
	w.send(0, guest(1, 600))
	w.stop()
	os.RemoveAll(filepath.Join(w.dirs[0].Path(), "sent"))
	saved := w.dirs[1].Path() + ".saved"
	if err := os.CopyFS(saved, os.DirFS(w.dirs[1].Path())); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(filepath.Join(w.dirs[1].Path(), "received"))
	w.start() // both empty: numbers begin at 1 again
	w.send(0, guest(2, 600))
	w.stop()
	os.RemoveAll(filepath.Join(w.dirs[1].Path(), "received"))
	if err := os.CopyFS(filepath.Join(w.dirs[1].Path(), "received"), os.DirFS(filepath.Join(saved, "received"))); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.send(0, guest(2, 600))
	w.send(0, guest(1, 600))
}

// swap is what one end makes of the other's outline, and of what differs.
func swap(t testing.TB, ours, theirs Catalog) (got Catalog, told int) {
	t.Helper()
	through := func(o Outline) Outline {
		b := o.Append(nil)
		p, err := ParseOutline(b)
		if err != nil {
			t.Fatal(err)
		}
		told += len(b)
		return p
	}
	part, differs := theirs.Differs(through(ours.Outline()))
	mine, alike := ours.Differs(through(theirs.Outline()))
	if differs != alike || !differs && len(part.Sent)+len(part.Received)+len(mine.Sent)+len(mine.Received) > 0 {
		t.Fatalf("one end finds a difference: %v, the other: %v", differs, alike)
	}
	told += 16 * (len(part.Sent) + len(part.Received))
	return ours.Complete(theirs.Outline(), part), told
}

// What an end makes of an outline and a part is the other's catalog, whatever the
// two hold; and as long as they hold about the same, little is told.
func TestOutline(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		entries := rapid.Custom(func(rt *rapid.T) []Entry {
			var all []Entry
			for id := range rapid.SliceOfDistinct(rapid.Uint64Range(1, 6<<groupBits), func(v uint64) uint64 { return v }).Draw(rt, "ids") {
				all = append(all, Entry{ID: uint64(id) * 300, Birth: 5, Pages: rapid.IntRange(1, 256).Draw(rt, "pages")})
			}
			return slices.DeleteFunc(all, func(e Entry) bool { return e.ID == 0 })
		})
		ours := Catalog{Store: 1, Budget: 2, Sent: entries.Draw(rt, "sent"), Received: entries.Draw(rt, "received")}
		theirs := Catalog{Store: 3, Budget: 4, Sent: slices.Clone(ours.Received), Received: slices.Clone(ours.Sent)}
		if rapid.Bool().Draw(rt, "other") {
			theirs.Sent = entries.Draw(rt, "their sent")
		}
		if n := len(theirs.Received); n > 0 && rapid.Bool().Draw(rt, "less") {
			at := rapid.IntRange(0, n-1).Draw(rt, "gone")
			theirs.Received = slices.Delete(theirs.Received, at, at+1)
		}
		got, _ := swap(t, ours, theirs)
		if !slices.Equal(got.Sent, theirs.Sent) || !slices.Equal(got.Received, theirs.Received) || got.Store != 3 || got.Budget != 4 {
			rt.Errorf("made %+v of %+v, holding %+v", got, theirs, ours)
		}
	})
	big := Catalog{Store: 1, Budget: 1}
	for i := range uint64(20 << groupBits) {
		big.Sent = append(big.Sent, Entry{ID: 1000 + i, Birth: 7, Pages: 256})
	}
	mirror := Catalog{Store: 2, Budget: 1, Received: slices.Clone(big.Sent)}
	if _, told := swap(t, big, mirror); told > 21*2*11+50 {
		t.Errorf("20 GiB that both hold cost %d bytes", told)
	}
	mirror.Received = slices.Delete(mirror.Received, 5000, 5001)
	if _, told := swap(t, big, mirror); told > 16<<groupBits+21*2*11+50 {
		t.Errorf("20 GiB but for one segment cost %d bytes", told)
	}
}

func FuzzOutline(f *testing.F) {
	f.Add((&Outline{Store: 7, Budget: 1 << 30, Sent: []Group{{0, [8]byte{1}}, {9, [8]byte{2}}}, Received: []Group{{1 << 30, [8]byte{3}}}}).Append(nil))
	f.Add((&Outline{}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOutline(b)
		if err != nil {
			return
		}
		if got := o.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%x parses, but is written %x", b, got)
		}
	})
}

func TestCatalog(t *testing.T) {
	o := Outline{Store: 7, Budget: 1, Sent: []Group{{1, [8]byte{1}}, {9, [8]byte{2}}}, Received: []Group{{3, [8]byte{3}}}}
	for i, b := 0, o.Append(nil); i < len(b); i++ {
		if _, err := ParseOutline(b[:i]); err == nil {
			t.Errorf("outline cut at %d: no error", i)
		}
	}
	c := Catalog{Store: 7, Budget: 1 << 30, Sent: []Entry{{1, 2, 3}, {9, 4, 256}}, Received: []Entry{{1 << 40, 5, 1}}}
	b := c.Append(nil)
	for i := range b {
		if _, err := ParseCatalog(b[:i]); err == nil {
			t.Errorf("cut at %d: no error", i)
		}
	}
	if _, err := ParseCatalog(append(b, 0)); err == nil {
		t.Error("a byte more: no error")
	}
}

func FuzzCatalog(f *testing.F) {
	f.Add((&Catalog{Store: 7, Budget: 1 << 30, Sent: []Entry{{1, 2, 3}, {9, 4, 256}}, Received: []Entry{{1 << 40, 5, 1}}}).Append(nil))
	f.Add((&Catalog{}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCatalog(b)
		if err != nil {
			return
		}
		if got := c.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%x parses, but is written %x", b, got)
		}
	})
}

// TestAnchorsWithDisk: with a disk the anchors take an eighth of the memory that pages
// may take, and find near copies of three times the pages that fit into that memory.
func TestAnchorsWithDisk(t *testing.T) {
	const memory = 4 << 20
	rng := rand.New(rand.NewPCG(7, 7))
	w := newTwin(t, LibraryConfig{Memory: memory, Disk: 64 << 20})
	var items, near []page.Item
	for i := range 3 * memory / page.Size {
		p := make([]byte, page.Size)
		for j := 0; j < len(p); j += 8 {
			binary.LittleEndian.PutUint64(p[j:], rng.Uint64())
		}
		items = append(items, fullPage(1, uint64(i), p))
	}
	for i := range 100 {
		k := len(items) / 100 * i
		p := append(bytes.Clone(items[k].Data[1001:]), items[k+40].Data[:1001]...)
		near = append(near, fullPage(2, uint64(i), p))
	}
	w.send(0, items)
	found := w.send(0, near).Deltas
	got := w.stores[0].Stats().Anchors
	if got > memory/8 || got < memory/8-64<<10 {
		t.Errorf("%d bytes of anchors, want about %d", got, memory/8)
	}
	if found < 95 { // the anchors of few pages have all gone
		t.Errorf("%d of 100 near copies found, want 95", found)
	}
}
