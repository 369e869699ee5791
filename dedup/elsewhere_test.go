package dedup

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/dedup/store"
	"github.com/longhaul-project/longhaul/internal/page"
)

// image is n random pages; the same seed makes the same ones.
func image(seed uint64, n int) [][]byte {
	rng := rand.New(rand.NewPCG(seed, 77))
	all := make([][]byte, n)
	for i := range all {
		all[i] = randomPage(rng)
	}
	return all
}

// newPool opens a pool on an empty disk.
func newPool(t testing.TB, c PoolConfig) *Pool {
	t.Helper()
	dir, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	p, err := OpenPool(dir.Shelf("own"), c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// seed puts pages into a pool.
func seed(t testing.TB, p *Pool, pages [][]byte) (fresh int) {
	t.Helper()
	for _, b := range pages {
		_, f, err := p.Add(b)
		if err != nil {
			t.Fatal(err)
		}
		if f {
			fresh++
		}
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	return fresh
}

// tell has to tell from what a pool has, through the wire format.
func tell(t testing.TB, from, to *Store, p *Pool) {
	t.Helper()
	var m Summary
	for _, id := range p.Segments() {
		from.Hints(&m, p.Sums(id))
	}
	got, err := ParseSummary(m.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	to.Hear(got)
}

// A page that the peer has from elsewhere crosses as a claim of 24 bytes, and
// from then on both hold it in common.
func TestClaims(t *testing.T) {
	pages := image(1, 600)
	pool := newPool(t, PoolConfig{})
	seed(t, pool, pages)
	w := newTwin(t, LibraryConfig{Elsewhere: pool.Find})
	tell(t, w.stores[1], w.stores[0], pool)
	var items []page.Item
	for i, p := range pages {
		items = append(items, fullPage(1, uint64(i), p))
	}
	got := w.send(0, items)
	if got.Claims != 600 || got.Literals != 0 || got.Wire > 600*26+3*200 {
		t.Errorf("%+v: want 600 claims in about 24 bytes each", got)
	}
	if got := w.send(0, items); got.Refs != 600 || got.Wire > 1000 {
		t.Errorf("the second time: %+v", got)
	}
	if got := w.send(1, items); got.Refs != 600 {
		t.Errorf("on the way back: %+v", got)
	}
	if s := w.stores[1].Stats(); s.Claims != 600 || s.Refs != 1200 {
		t.Errorf("%+v", s)
	}
	w.stop()
	w.start()
	if got := w.send(0, items); got.Refs != 600 {
		t.Errorf("after a restart: %+v", got)
	}
}

// What the peer does not have after all comes from the sender, whole segments at
// a time, and a peer that is wrong too often is not believed any more.
func TestWrongClaims(t *testing.T) {
	pages := image(2, 1000)
	pool := newPool(t, PoolConfig{})
	seed(t, pool, pages)
	w := newTwin(t, LibraryConfig{}) // nobody finds anything
	tell(t, w.stores[1], w.stores[0], pool)
	trips := 0
	life := w.stores[0].Heard()
	l := newWire(t, w.stores[0], w.stores[1], EncoderConfig{})
	l.d.cfg.Fetch = func(want Wanted) ([]byte, error) {
		trips++
		if !want.Claimed {
			t.Errorf("asked as if it had been held: %+v", want)
		}
		return w.stores[0].Pages(want)
	}
	for i, p := range pages {
		l.add(fullPage(1, uint64(i), p))
	}
	l.close()
	if got := l.e.Stats(); got.Claims != 1000 {
		t.Errorf("%+v", got)
	}
	if trips > 2*1000/record.SegmentPages+2 {
		t.Errorf("%d round trips for 1000 pages", trips)
	}
	if got := w.send(0, []page.Item{fullPage(1, 5, pages[5])}); got.Refs != 1 {
		t.Errorf("after a wrong claim: %+v", got)
	}
	for range maxWrong {
		w.stores[0].hints.failed()
	}
	if w.stores[0].PeerHas(fingerprint(pages[0])) || w.stores[0].Heard() == life {
		t.Error("a peer that is always wrong is still believed")
	}
	// With nobody to ask, the channel ends with an error.
	tell(t, w.stores[1], w.stores[0], pool)
	w.stores[0].Forget()
	l = newWire(t, w.stores[0], w.stores[1], EncoderConfig{})
	defer l.d.Close()
	defer l.e.Close()
	l.e.Add(fullPage(1, 7, pages[7]))
	if _, err := l.carry(l.e.Cut()); !errors.Is(err, ErrMismatch) {
		t.Errorf("with nobody to ask: %v", err)
	}
}

// A page that only has the same fingerprint is never taken for the one claimed,
// wherever it comes from; neither is one under another key.
func TestForgedClaims(t *testing.T) {
	right, wrong := image(3, 1)[0], image(4, 1)[0]
	forged := func(h uint64, is func([]byte) bool) bool { // finds another page first
		return is(wrong) || is(nil) || is(wrong[:100]) || is(right)
	}
	for _, c := range []struct {
		name   string
		find   Elsewhere
		rekey  bool
		claims int64
	}{
		{"another page before it", forged, false, 1},
		{"only another page", func(_ uint64, is func([]byte) bool) bool { return is(wrong) }, false, 0},
		{"another key", func(_ uint64, is func([]byte) bool) bool { return is(right) }, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTwin(t, LibraryConfig{Elsewhere: c.find})
			var m Summary
			w.stores[1].Hints(&m, []uint64{fingerprint(right)})
			w.stores[0].Hear(m)
			if c.rekey {
				w.stores[1].key[3] ^= 1
			}
			l := newWire(t, w.stores[0], w.stores[1], EncoderConfig{})
			fetched := false
			l.d.cfg.Fetch = func(want Wanted) ([]byte, error) {
				fetched = true
				return w.stores[0].Pages(want)
			}
			l.add(fullPage(1, 0, right))
			l.close() // compares
			if l.e.Stats().Claims != 1 || fetched == (c.claims == 1) {
				t.Errorf("%+v, fetched: %v", l.e.Stats(), fetched)
			}
		})
	}
}

// Both ends make the same key of their two stores, and no other two do.
func TestKeys(t *testing.T) {
	var fleet Key
	fleet[0] = 7
	p := image(5, 1)[0]
	k := fleet.between(3, 9)
	if k != fleet.between(9, 3) {
		t.Error("the two ends have different keys")
	}
	seen := map[string]bool{}
	for _, o := range []Key{k, fleet.between(3, 8), Key{}.between(3, 9), fleet} {
		seen[fmt.Sprint(o.hash(p), o.hint(fingerprint(p)))] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d different hashes under 4 keys", len(seen))
	}
}

func TestSummaryFormat(t *testing.T) {
	m := Summary{Anew: true, Busy: true, hints: []hint{1, 0xfedcba987654}}
	b := m.Append(nil)
	want := "4c48736d0103000000000001fedcba987654"
	if got := fmt.Sprintf("%x", b); got != want {
		t.Errorf("written %s, want %s", got, want)
	}
	got, err := ParseSummary(b)
	if err != nil || !got.Anew || !got.Busy || !slices.Equal(got.hints, m.hints) {
		t.Errorf("parsed %+v, %v", got, err)
	}
	for i := range b {
		if _, err := ParseSummary(b[:i]); (i-6)%hintBytes != 0 && err == nil {
			t.Errorf("cut at %d: no error", i)
		}
	}
	for _, b := range [][]byte{[]byte("LHsm\x02\x00"), []byte("LHsm\x01\x04"), []byte("LHsn\x01\x00"), append([]byte("LHsm\x01\x00"), make([]byte, (MaxHints+1)*hintBytes)...)} {
		if _, err := ParseSummary(b); !errors.Is(err, errSummary) {
			t.Errorf("%.20x: error %v", b, err)
		}
	}
}

func FuzzParseSummary(f *testing.F) {
	m := Summary{Anew: true, hints: []hint{1, 2, 3}}
	f.Add(m.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseSummary(b)
		if err == nil && !bytes.Equal(m.Append(nil), b) {
			t.Errorf("%x parses, but is written %x", b, m.Append(nil))
		}
	})
}

// The set of hints has what was put in, and next to nothing else, within its bound.
func TestHints(t *testing.T) {
	x := hints{most: 50_000}
	rng := rand.New(rand.NewPCG(6, 6))
	var all []hint
	for range 60 {
		part := make([]hint, 1000)
		for i := range part {
			part[i] = hint(rng.Uint64() >> 16)
		}
		all = append(all, part...)
		x.add(part)
		x.add(part) // again
	}
	if x.len() != 50_000 {
		t.Errorf("%d hints are kept, want 50000", x.len())
	}
	for i, h := range all {
		if x.has(h) != (i < 50_000) {
			t.Fatalf("hint %d: %v", i, x.has(h))
		}
	}
	if table := *x.table.Load(); len(table) > 4*50_000 {
		t.Errorf("%d slots", len(table))
	}
	x.forget()
	if x.has(all[0]) || x.len() != 0 {
		t.Error("something is left")
	}
}

// A store finds what it holds for other peers, and knows what both hold.
func TestFindAndHolds(t *testing.T) {
	w := newTwin(t, LibraryConfig{})
	pages := image(7, 300)
	var items []page.Item
	for i, p := range pages {
		items = append(items, fullPage(1, uint64(i), p))
	}
	w.send(0, items)
	told := 0
	for i, s := range w.stores {
		for n, p := range pages {
			if !s.Find(fingerprint(p), func(q []byte) bool { return bytes.Equal(p, q) }) {
				t.Fatalf("store %d does not find page %d", i, n)
			}
			if !s.Holds(fingerprint(p)) {
				t.Fatalf("store %d does not know that both hold page %d", i, n)
			}
		}
		if s.Holds(12345) || s.Find(12345, func([]byte) bool { return true }) {
			t.Error("finds what is not there")
		}
		s.Flush()
		s.Contents(func(_ uint64, sums []uint64) bool { told += len(sums); return true })
	}
	if told != 600 {
		t.Errorf("the two stores tell of %d pages, want 600", told)
	}
	w.stores[0].Forget()
	if w.stores[0].Holds(fingerprint(pages[0])) {
		t.Error("holds what it has forgotten")
	}
}
