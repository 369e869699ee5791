package dedup

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

func randomPage(rng *rand.Rand) []byte {
	p := make([]byte, page.Size)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

// A stretch that two pages share is found wherever it lies in each.
func TestAnchorsFindShifted(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var a, b anchors
	var missed int
	for range 200 {
		p, q := randomPage(rng), randomPage(rng)
		copy(q[301:], p[:2048]) // half a page, shifted by an odd number of bytes
		a.find(p, anchorMark)
		b.find(q, anchorMark)
		shared := 0
		for _, h := range a.hash[:a.n] {
			for _, g := range b.hash[:b.n] {
				if h == g {
					shared++
				}
			}
		}
		if shared == 0 {
			missed++
		}
	}
	// About 8 anchors in 2 KiB: none in 1 of 2500 pages.
	if missed > 3 {
		t.Errorf("no anchor in common for %d of 200 pages", missed)
	}
}

func TestAnchorsAreBounded(t *testing.T) {
	var a anchors
	total := 0
	for b := range 256 {
		p := make([]byte, page.Size)
		for i := range p {
			p[i] = byte(b)
		}
		a.find(p, anchorMark)
		total += a.n
		if a.n > 8 {
			t.Errorf("%d anchors in a page of bytes %#x", a.n, b)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	n := 0
	for range 100 {
		a.find(randomPage(rng), anchorMark)
		n += a.n
	}
	if n < 2600 || n > 3700 {
		t.Errorf("%d anchors in 100 random pages, want about 3150", n)
	}
}

// A table grows with the pages that come, to no more than 120 bytes for each that the
// store may have; from then on it keeps and looks for the rarer anchors only.
func TestCrowdedAnchors(t *testing.T) {
	const most = 32 * record.SegmentPages // of the store
	table := newAnchorTable(most)
	rng := rand.New(rand.NewPCG(8, 8))
	rare, all := anchors{}, anchors{}
	for range 10 {
		rare.add(rareMark|rng.Uint64()>>8, anchorMark)
	}
	all = rare
	for range 10 {
		all.add(anchorMark|rng.Uint64()>>8&^(1<<56), anchorMark)
	}
	for n := record.SegmentPages; n <= most; n += record.SegmentPages {
		if table.tight(n) {
			table.grow(n)
		}
		slots := int(table.bytes() / 8)
		if slots > fullAnchors*most || slots > max(roomyAnchors*n, 2*leastAnchors*n) {
			t.Fatalf("%d slots for %d pages of %d", slots, n, most)
		}
		crowded := slots < leastAnchors*n
		if want := n*leastAnchors > fullAnchors*most; crowded != want || crowded != table.crowded.Load() {
			t.Fatalf("%d slots for %d pages of %d: crowded is %v, said to be %v, want %v", slots, n, most, crowded, table.crowded.Load(), want)
		}
		table.put(&all, handle(n))
		var v votes
		table.vote(&all, &v)
		if want := map[bool]uint8{false: 20, true: 10}[crowded]; v.n != 1 || v.counts[0] != want {
			t.Fatalf("for %d pages of %d: %d pages are found, the first by %d anchors, want %d", n, most, v.n, v.counts[0], want)
		}
	}
	if table.bytes() != 8*fullAnchors*most {
		t.Errorf("%d bytes for a full store of %d pages, want %d", table.bytes(), most, 8*fullAnchors*most)
	}
}

func TestVotes(t *testing.T) {
	table := newAnchorTable(1000)
	var v votes
	put := func(p handle, hashes ...uint64) {
		a := anchors{n: len(hashes)}
		for i, h := range hashes {
			a.hash[i] = anchorMark | h*anchorMix>>8
		}
		table.put(&a, p)
	}
	put(1, 1, 2, 3)
	put(2, 4, 5)
	put(3, 6)
	put(4, 3) // the newest wins
	a := anchors{n: 7}
	for i := range a.n {
		a.hash[i] = anchorMark | uint64(i+1)*anchorMix>>8
	}
	table.vote(&a, &v)
	var got []handle
	for h := v.best(); h != 0; h = v.best() {
		got = append(got, h)
	}
	if len(got) != 4 || got[0] != 1 || got[1] != 2 {
		t.Errorf("got %v, want 1 and 2 with two votes each before 4 and 3", got)
	}
}

// A page put together from parts of several pages costs less than from one.
func TestManyBases(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	a, b := NewStore(Config{Budget: 32 << 20}), NewStore(Config{Budget: 32 << 20})
	enc, dec := a.NewEncoder(EncoderConfig{}), b.NewDecoder(DecoderConfig{})
	var items []page.Item
	var known [][]byte
	for i := range 64 {
		known = append(known, randomPage(rng))
		items = append(items, fullPage(1, uint64(i), known[i]))
	}
	for i := range 64 { // four quarters from four pages, none where it was
		p := make([]byte, 0, page.Size)
		for j := range 4 {
			from := rng.IntN(page.Size * 3 / 4)
			p = append(p, known[(i*5+j*17)%64][from:from+page.Size/4]...)
		}
		items = append(items, fullPage(1, uint64(1000+i), p))
	}
	var want, got []byte
	var wire int64
	for i, it := range items {
		want = append(append(want, it.Head...), it.Data...)
		enc.Add(it)
		if i == 63 || i == len(items)-1 {
			m, err := enc.Cut().Compress()
			if err != nil {
				t.Fatal(err)
			}
			wire = int64(len(m))
			x, err := Expand(m)
			if err != nil {
				t.Fatal(err)
			}
			if got, _, err = dec.Decode(got, x); err != nil {
				t.Fatal(err)
			}
		}
	}
	if string(got) != string(want) {
		t.Fatal("other bytes came out")
	}
	// A quarter of a page has 4 anchors; it is missed in 1 of 50 cases.
	if limit := int64(64 * page.Size / 4); wire > limit {
		t.Errorf("%d bytes for 64 pages made of known parts, want less than %d", wire, limit)
	}
	if s := enc.Stats(); s.Deltas < 60 {
		t.Errorf("%d of 64 pages are deltas", s.Deltas)
	}
}

// Without a search a page is a delta of the one before at its address, and only
// of that. The setting may change from batch to batch.
func TestNoSearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	w := newWire(t, NewStore(Config{Budget: 32 << 20}), NewStore(Config{Budget: 32 << 20}), EncoderConfig{})
	first := randomPage(rng)
	w.add(fullPage(1, 0, first), fullPage(1, 1, randomPage(rng)))
	w.flush()
	changed := append([]byte(nil), first...)
	changed[100]++
	// None of these is the page that came after another one: their addresses
	// go down.
	moved := func(to uint64, from int) page.Item {
		p := randomPage(rng)
		copy(p[301+from:], first[from:3000])
		return fullPage(1, to, p)
	}
	for _, c := range []struct {
		bases            int
		it               page.Item
		deltas, searched int64
	}{
		{NoSearch, moved(90, 0), 0, 0},
		{NoSearch, fullPage(1, 0, changed), 1, 0},
		{1, moved(80, 8), 1, 1},
		{0, moved(70, 16), 1, 1},
	} {
		before := w.e.Stats()
		w.e.SetCodec(Setting{Codec: Zstd, Level: 11, Bases: c.bases})
		w.add(c.it)
		w.flush()
		after := w.e.Stats()
		if d, s := after.Deltas-before.Deltas, after.Searched-before.Searched; d != c.deltas || s != c.searched {
			t.Errorf("%d bases: %d deltas, %d by search, want %d, %d", c.bases, d, s, c.deltas, c.searched)
		}
	}
	if s := w.e.Stats(); s.Plain <= 0 || s.Plain >= s.Raw {
		t.Errorf("%d of %d bytes were left to compress", s.Plain, s.Raw)
	}
}

// What was sent without a search is found by later searches: in full, or as a
// delta of what was at its address; and what is known is always found.
func TestNoSearchIsFoundLater(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 4))
	w := newWire(t, NewStore(Config{Budget: 32 << 20}), NewStore(Config{Budget: 32 << 20}), EncoderConfig{Setting: Setting{Codec: Raw, Bases: NoSearch}})
	pages := make([][]byte, 8)
	for i := range pages {
		pages[i] = randomPage(rng)
		w.add(fullPage(1, uint64(i), pages[i]))
	}
	w.flush()
	before := w.e.Stats()
	for i := range pages { // elsewhere, and in another order
		w.add(fullPage(1, uint64(100-i), pages[i]))
	}
	w.flush()
	if got := w.e.Stats().Refs - before.Refs; got != 8 {
		t.Errorf("%d of 8 known pages were referred to", got)
	}
	w.e.SetCodec(Setting{Codec: Raw})
	for i := range pages {
		p := randomPage(rng)
		copy(p[333:], pages[i][40:3000])
		w.add(fullPage(1, uint64(300-i), p))
	}
	w.flush()
	if got := w.e.Stats().Searched - before.Searched; got != 8 {
		t.Errorf("%d of 8 pages were put together from pages that were sent without a search", got)
	}
}

// TestDensity: anchors that are few are among those that are many, so that what was kept
// under one density is found under another.
func TestDensity(t *testing.T) {
	densities := []int{128, 256, 512}
	rng := rand.New(rand.NewPCG(5, 5))
	var many, few anchors
	for i := range densities[1:] {
		kept := 0
		for range 100 {
			p := randomPage(rng)
			many.find(p, Setting{Anchors: densities[i]}.leastAnchor())
			few.find(p, Setting{Anchors: densities[i+1]}.leastAnchor())
			for _, h := range few.hash[:few.n] {
				if !slices.Contains(many.hash[:many.n], h) {
					t.Fatalf("an anchor of 1 in %d is none of 1 in %d", densities[i+1], densities[i])
				}
			}
			kept += few.n
		}
		if want := 100 * page.Size / densities[i+1]; kept < want*3/4 || kept > want*5/4 {
			t.Errorf("%d anchors of 1 in %d, want about %d", kept, densities[i+1], want)
		}
	}
	for _, before := range densities {
		for _, now := range densities {
			w := newWire(t, NewStore(Config{Budget: 32 << 20}), NewStore(Config{Budget: 32 << 20}), EncoderConfig{Setting: Setting{Codec: Raw, Anchors: before}})
			base := randomPage(rng)
			w.add(fullPage(1, 1, base))
			w.flush()
			w.e.SetCodec(Setting{Codec: Raw, Anchors: now})
			p := randomPage(rng)
			copy(p[99:], base[:3900])
			w.add(fullPage(1, 100, p))
			w.flush()
			if got := w.e.Stats().Searched; got != 1 {
				t.Errorf("a page that was kept under 1 in %d is not found under 1 in %d", before, now)
			}
		}
	}
}

func TestSettingInWords(t *testing.T) {
	for want, s := range map[string]Setting{
		"zstd-1, 4 bases":  {},
		"raw, no search":   {Codec: Raw, Bases: NoSearch},
		"lz4, 1 base":      {Codec: LZ4, Bases: 1},
		"zstd-11, 2 bases": {Codec: Zstd, Level: 11, Bases: 2},
		"press, 4 bases":   {Codec: Press},
		"fold, 1 base":     {Codec: Fold, Bases: 1},

		"zstd-3, 4 bases by few anchors": {Codec: Zstd, Level: 3, Anchors: 256},
		"lz4, 1 base by fewest anchors":  {Codec: LZ4, Bases: 1, Anchors: 512},
		"lz4, no search":                 {Codec: LZ4, Bases: NoSearch, Anchors: 512},
	} {
		if got := s.String(); got != want {
			t.Errorf("%+v is %q, want %q", s, got, want)
		}
	}
}

// A page with many anchors keeps as many as others do: the same ones in whatever
// order they come, all over the table.
func TestManyAnchors(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	var a anchors
	for range maxAnchors {
		a.add(anchorMark|rng.Uint64()>>8, anchorMark)
	}
	kept := func() (marks []uint64) {
		table := newAnchorTable(record.SegmentPages)
		table.put(&a, 5)
		slots := *table.slots.Load()
		for i := range slots {
			if v := slots[i].Load(); v != 0 {
				marks = append(marks, v>>32)
			}
		}
		return marks
	}
	first := kept()
	if len(first) != keptAnchors {
		t.Errorf("%d anchors of %d are kept, want %d", len(first), a.n, keptAnchors)
	}
	if low, high := first[0], first[len(first)-1]; low > 1<<30 || high < 3<<30 {
		t.Errorf("marks from %08x to %08x: the table is used in part only", low, high)
	}
	rng.Shuffle(a.n, func(i, j int) { a.hash[i], a.hash[j] = a.hash[j], a.hash[i] })
	if again := kept(); !slices.Equal(again, first) {
		t.Errorf("in another order %x are kept, not %x", again, first)
	}
}

func BenchmarkAnchors(b *testing.B) {
	p := randomPage(rand.New(rand.NewPCG(1, 1)))
	var a anchors
	b.SetBytes(page.Size)
	for b.Loop() {
		a.find(p, anchorMark)
	}
}
