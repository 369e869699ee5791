package inspect

import (
	"bytes"
	"slices"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// TestPages counts streams in which each number is known.
func TestPages(t *testing.T) {
	a, b := content(1), content(2)
	blank := make([]byte, page.Size)
	for _, tc := range []struct {
		name   string
		stream *stream
		want   Pages
	}{
		{"nothing", begin(4), Pages{}},
		{"all differ", begin(4).page(0, a).page(1, b), Pages{All: 2, Distinct: 2}},
		{"zero, as a word and as a page", begin(4).zero(0).page(1, blank), Pages{All: 2, Zero: 2}},
		{"the same at two places", begin(4).page(0, a).page(1, a).page(2, a), Pages{All: 3, Distinct: 1, Duplicate: 2}},
		{"resent as it was", begin(4).page(0, a).page(1, b).page(0, a), Pages{All: 3, Distinct: 2, ResentSame: 1}},
		{"zero resent", begin(4).zero(0).zero(0), Pages{All: 2, Zero: 2}},
		{"resent with 63 words changed", begin(4).page(0, a).page(0, edit(a, 63)),
			Pages{All: 2, Distinct: 2, ResentChanged: 1, ChangedLittle: 1}},
		{"resent with 64 words changed", begin(4).page(0, a).page(0, edit(a, 64)),
			Pages{All: 2, Distinct: 2, ResentChanged: 1}},
		{"resent with the content of another", begin(4).page(0, a).page(1, b).page(0, b),
			Pages{All: 3, Distinct: 2, Duplicate: 1, ResentChanged: 1}},
		{"there and back", begin(4).page(0, a).page(0, edit(a, 1)).page(0, a),
			Pages{All: 3, Distinct: 2, Duplicate: 1, ResentChanged: 2, ChangedLittle: 2}},
		{"no longer zero, by little", begin(4).zero(0).page(0, edit(blank, 10)),
			Pages{All: 2, Zero: 1, Distinct: 1, ResentChanged: 1, ChangedLittle: 1}},
		{"zero now, which changes all", begin(4).page(0, a).zero(0),
			Pages{All: 2, Zero: 1, Distinct: 1, ResentChanged: 1}},
		{"compared with the last version, not the first", begin(4).page(0, a).page(0, b).page(0, edit(b, 2)),
			Pages{All: 3, Distinct: 3, ResentChanged: 2, ChangedLittle: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := look(t, tc.stream.end())[0]
			if f.Pages != tc.want {
				t.Errorf("got %+v, want %+v", f.Pages, tc.want)
			}
			if sum := f.Pages.Zero + f.Pages.ResentSame + f.Pages.Duplicate + f.Pages.Distinct; sum != f.Pages.All {
				t.Errorf("%d pages, and the kinds add up to %d", f.Pages.All, sum)
			}
			if f.CutShort || f.Lost != "" {
				t.Errorf("the stream of the test is not whole: %+v", f)
			}
		})
	}
}

// What dedup alone leaves can be told to the byte.
func TestDedupLeft(t *testing.T) {
	a, b := content(1), content(2)
	files := look(t,
		begin(8).page(0, a).page(1, a).zero(2).page(0, a).end(),
		begin(8).page(5, a).page(6, b).end())
	const head = 8 + 1 + len("ram0")
	for i, want := range []struct{ left, known int }{
		{4*head + 1 + page.Size + 2*reference, -1},
		{2*head + 2*page.Size, 2*head + page.Size + reference},
	} {
		got, f := method(t, files[i], Dedup), files[i]
		if left := int64(want.left) + f.Opaque; got.Left != left {
			t.Errorf("capture %d: %d bytes left, want %d", i, got.Left, left)
		}
		if i > 0 && *got.Known != int64(want.known)+f.Opaque {
			t.Errorf("capture %d: %d bytes left when the first is known, want %d", i, *got.Known, int64(want.known)+f.Opaque)
		}
	}
	if files[0].Pages.Known != 0 || files[1].Pages.Known != 1 || method(t, files[0], Dedup).Known != nil {
		t.Errorf("known: %+v, then %+v", files[0].Pages, files[1].Pages)
	}
}

// A sample of a large guest has to give about the numbers of the whole.
func TestSampled(t *testing.T) {
	const n = 1 << 15
	p := newPageCounter(contents{newSample[uint32](2048)}, 1)
	p.versions.limit, p.bases.limit = 2048, 512
	add := func(i uint64, b []byte) {
		p.item(page.Item{Kind: page.Full, Addr: page.Addr{Space: 1, Offset: i * page.Size}, Data: b})
	}
	b := make([]byte, page.Size)
	fill := func(i int, round byte) []byte {
		copy(b, []byte{byte(i), byte(i >> 8), round, 1})
		return b
	}
	for i := range n { // a quarter are duplicates of the page before
		add(uint64(i), fill(i-i%4/3, 0))
	}
	for i := range n { // the even ones change a little, the others not at all
		if i%2 == 0 {
			add(uint64(i), fill(i, 1))
		} else {
			add(uint64(i), fill(i-i%4/3, 0))
		}
	}
	got := p.result()
	if got.All != 2*n || !got.Sampled {
		t.Errorf("got %+v", got)
	}
	for _, c := range []struct {
		name      string
		got, want int64
	}{
		{"distinct", got.Distinct, n*3/4 + n/2},
		{"duplicate", got.Duplicate, n / 4},
		{"resent the same", got.ResentSame, n / 2},
		{"resent changed", got.ResentChanged, n / 2},
		{"changed little", got.ChangedLittle, n / 2},
	} {
		// Some 1500 pages are followed, and some 400 to see how much changed:
		// a sixth is three standard deviations. Nothing here is random, so
		// what passes once passes always.
		if c.got < c.want*5/6 || c.got > c.want*7/6 {
			t.Errorf("%s: %d, want about %d", c.name, c.got, c.want)
		}
	}
	if len(p.seen.m) > 2048 || len(p.versions.m) > 2048 || len(p.bases.m) > 512 {
		t.Errorf("%d contents, %d versions and %d pages are held", len(p.seen.m), len(p.versions.m), len(p.bases.m))
	}
}

// Two samples with different limits must follow the same keys, as far as they
// do.
func TestSampleNested(t *testing.T) {
	few, many := newSample[int](10), newSample[int](100)
	for k := range uint64(10000) {
		for _, s := range []*sample[int]{few, many} {
			if s.weight(k) > 0 {
				s.put(k, 1)
			}
		}
	}
	for k := range few.m {
		if _, ok := many.m[k]; !ok {
			t.Errorf("%d is followed by the smaller sample only", k)
		}
	}
	if n := len(few.m); n == 0 || n > 10 || few.level <= many.level {
		t.Errorf("%d keys at level %d, and %d keys at level %d", n, few.level, len(many.m), many.level)
	}
}

func TestDiffering(t *testing.T) {
	a := content(1)
	for _, n := range []int{0, 1, 63, 64, 65, 512} {
		if got := differing(a, edit(a, n)); got != min(n, little) {
			t.Errorf("%d words differ, want %d", got, min(n, little))
		}
	}
	last := slices.Clone(a)
	last[page.Size-1]++
	if differing(a, last) != 1 || !zero(make([]byte, page.Size)) || zero(bytes.Repeat([]byte{0, 1}, page.Size/2)) {
		t.Error("the last byte does not count, or zero is not zero")
	}
}
