package inspect

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/qemutest"
)

// TestSeeds looks at what real QEMUs have sent.
func TestSeeds(t *testing.T) {
	want := map[string]File{ // as QEMU and vmstream's own tests count
		"precopy-0": {Gzip: true, Bytes: 65536, Streams: 1, Format: "qemu", Machine: "pc-q35-7.2", PageSize: 4096,
			ReturnPath: true, Rounds: 1, CutShort: true, Opaque: 3813, Pages: Pages{All: 23, Zero: 8, Duplicate: 4, Distinct: 11}},
		"old-machine-0": {Gzip: true, Bytes: 22980, Streams: 1, Format: "qemu", Machine: "pc-i440fx-2.12", PageSize: 4096,
			ReturnPath: true, Opaque: 2295, Pages: Pages{All: 14, Zero: 9, Distinct: 5}},
		"postcopy-0": {Gzip: true, Bytes: 132174, Streams: 1, Format: "qemu", Machine: "pc-q35-7.2", PageSize: 4096,
			ReturnPath: true, Postcopy: true, Rounds: 2, Opaque: 33508,
			Pages: Pages{All: 32, Zero: 8, Duplicate: 11, Distinct: 13, ResentChanged: 2, ChangedLittle: 2}},
	}
	for name, b := range seeds(t) {
		t.Run(name, func(t *testing.T) {
			got := look(t, b)[0]
			for _, m := range []string{Longhaul1, Longhaul3} {
				if m := method(t, got, m); !m.Verified || m.Left <= 0 || m.Known != nil {
					t.Errorf("%+v", m)
				}
			}
			if packed := strings.HasPrefix(name, "compress"); (got.Sealed != "") != packed || packed && got.Sealed != "compress" {
				t.Errorf("pages are compressed by %q", got.Sealed)
			}
			if w, ok := want[name]; ok {
				w.Name, w.Methods = got.Name, got.Methods
				if d := cmp.Diff(w, got); d != "" {
					t.Errorf("found something else (-want +got):\n%s", d)
				}
			}
			thinned := name == "multifd-zstd-1" // packets are missing, so that those after cannot be expanded
			if (got.Lost != "") != thinned || !got.Gzip {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestCompressed looks at channels that QEMU has compressed: at what that
// expands to.
func TestCompressed(t *testing.T) {
	for _, compression := range []string{"zlib", "zstd"} {
		b := qemutest.Relay(t, qemutest.Config{Memory: 16, Dirty: 4, Multifd: 1, Compression: compression}).Channels[1].Forward
		got := look(t, b)[0]
		lh := method(t, got, Longhaul1)
		if got.Packed != int64(len(b)) || got.Pages.All < 100 || got.Lost != "" || got.CutShort || got.Bytes < got.Pages.All*page.Size/2 || !lh.Verified || lh.Left > got.Packed*2/3 {
			t.Errorf("%s: %+v", compression, got)
		}
		t.Logf("%s: QEMU leaves %d bytes of %d, Longhaul %d", compression, got.Packed, got.Bytes, lh.Left)
	}
}

// Pages that go through make the others cheaper, and only with the same peer.
func TestKnown(t *testing.T) {
	var pages, changed stream
	s, u := begin(256), begin(256)
	for i := range uint64(200) {
		s.page(i, content(i))
		u.page(i+7, edit(content(i), int(i)%2))
	}
	pages.b, changed.b = s.end(), u.end()
	files := look(t, pages.b, changed.b, pages.b)
	for i, f := range files {
		for _, name := range []string{LZ4, Zstd1, Zstd3} {
			m := method(t, f, name)
			if m.Known != nil || m.Left < 200*page.Size || m.Verified {
				t.Errorf("capture %d: %+v", i, m)
			}
		}
		for _, name := range []string{Longhaul1, Longhaul3} {
			m := method(t, f, name)
			if m.Left < 200*page.Size { // the content is noise
				t.Errorf("capture %d: %+v", i, m)
			}
			if (m.Known != nil) != (i > 0) || i > 0 && *m.Known > m.Left/10 {
				t.Errorf("capture %d, after the others: %+v", i, m)
			}
		}
	}
	if f := files[2]; f.Pages.Known != 200 || f.Evicted {
		t.Errorf("%+v", f)
	}
	total := Sum(files)
	lh := total.Methods[5]
	if total.Bytes != int64(2*len(pages.b)+len(changed.b)) || *lh.Known >= lh.Left/2 || *lh.Known < 200*page.Size ||
		!lh.Verified || total.Methods[0].Known != nil || total.Methods[0].Verified {
		t.Errorf("total: %+v", total)
	}
}

// Press leaves less than zstd does, with several batches in flight, and is there only
// if it is asked for; fold always.
func TestPress(t *testing.T) {
	const fresh, all = 20, 800 // pages of a batch, which 3 MiB of stream make full
	s := begin(2 * all)
	for i := range uint64(2 * all) {
		s.page(i, table(i/all*fresh+i%all%fresh))
	}
	b := s.end()
	in := New(Options{Store: 64 << 20, Press: true})
	for i := range 2 {
		f, err := in.Inspect(t.Context(), "a", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		press, fold, zstd := method(t, f, LonghaulPress), method(t, f, LonghaulFold), method(t, f, Longhaul3)
		if press.Left >= zstd.Left || !press.Verified || (press.Known != nil) != (i > 0) || i > 0 && *press.Known > press.Left/10 {
			t.Errorf("capture %d: %+v, beside %+v", i, press, zstd)
		}
		if fold.Left >= zstd.Left || !fold.Verified {
			t.Errorf("capture %d: fold: %+v, beside %+v", i, fold, zstd)
		}
	}
	f := look(t, begin(1).page(0, table(0)).end())[0]
	if slices.ContainsFunc(f.Methods, func(m Method) bool { return m.Name == LonghaulPress }) {
		t.Errorf("press was not asked for: %+v", f.Methods)
	}
	method(t, f, LonghaulFold) // fails where there is none
}

// What goes wrong in flight is told, and close waits for what is still there.
func TestFlight(t *testing.T) {
	broken := errors.New("the wing is off")
	landed := make(chan struct{})
	close(landed)
	r := newPair(8 << 20).newReducer(setting{LonghaulPress, dedup.Setting{Codec: dedup.Press}})
	later := &flying{landed: make(chan struct{})}
	r.flight = []*flying{{landed: landed, err: broken}, later}
	if err := r.land(1); !errors.Is(err, broken) {
		t.Errorf("%v, want %v", err, broken)
	}
	down := false
	go func() {
		down = true
		close(later.landed)
	}()
	if r.close(); !down {
		t.Error("closed with a batch in flight")
	}
}

// A store that is too small forgets, and says so.
func TestSmallStore(t *testing.T) {
	const pages = 1600 // 6.25 MiB, and half of 8 MiB is for what goes this way
	s := begin(pages)
	for i := range uint64(pages) {
		s.page(i, content(i))
	}
	in := New(Options{Store: 8 << 20})
	f, err := in.Inspect(t.Context(), "a", bytes.NewReader(s.end()))
	if err != nil || !f.Evicted {
		t.Errorf("%+v, %v", f, err)
	}
}

// Captures may be appended to one another; each is a migration of its own.
func TestStreamsInARow(t *testing.T) {
	a, b := content(1), content(2)
	first := begin(16).page(0, a).zero(3).end()
	second := begin(16).page(0, edit(a, 3)).page(1, b).page(1, b).end()
	long := begin(300) // longer than a chunk
	for i := range uint64(300) {
		long.page(i, content(100+i))
	}
	all := slices.Concat(first, second, long.end(), first)
	want := Pages{All: 307, Zero: 2, Distinct: 303}
	want.ResentSame, want.Duplicate = 1, 1 // in second, and first once more
	for _, r := range []io.Reader{bytes.NewReader(all), iotest.OneByteReader(bytes.NewReader(all))} {
		f, err := New(Options{}).Inspect(t.Context(), "a", r)
		if err != nil {
			t.Fatal(err)
		}
		if f.Streams != 4 || f.Lost != "" || f.CutShort || f.Pages != want || f.Format != "qemu" || f.Machine != "pc0" {
			t.Errorf("%+v, want %+v", f, want)
		}
	}
	// The end of one stream and the header of the next may lie in two chunks.
	for pad := range 2 * len(header) {
		fit := begin(1024)
		for i := 0; len(fit.b)+page.Size+200 < chunkSize; i++ {
			fit.page(uint64(i), a)
		}
		b := fit.end()
		b = append(b, make([]byte, chunkSize-len(b)-pad)...)
		c := &cutter{r: bytes.NewReader(append(b, first...))}
		p := newPageCounter(contents{newSample[uint32](maxContents)}, 1)
		if err := pump(t.Context(), c, []func(*chunk) error{p.write}); err != nil {
			t.Fatal(err)
		}
		if c.file.Streams != 2 || p.n.Zero != 1 {
			t.Errorf("%d bytes before a chunk ends: %+v, %+v", pad, c.file, p.n)
		}
	}
}

// What is no stream that we know is said to be opaque, and what breaks off is
// told.
func TestStrange(t *testing.T) {
	whole := begin(16).page(0, content(1)).page(1, content(2)).end()
	noise := bytes.Repeat(content(9), 40)
	for _, tc := range []struct {
		name   string
		b      []byte
		format string
		short  bool
		lost   bool
	}{
		{"text", []byte("#!/bin/sh\nexit 0\n"), "opaque", false, false},
		{"one byte", []byte("Q"), "opaque", false, false},
		{"noise", noise, "opaque", false, false},
		{"TLS", []byte("\x16\x03\x01\x02\x00\x01\x00"), "tls", false, false},
		{"header only", []byte(header), "qemu", true, false},
		{"in the middle of a page", whole[:len(whole)-page.Size], "qemu", true, false},
		{"another version", []byte("QEVM\x00\x00\x00\x02and so on"), "qemu", false, true},
		{"a damaged record", append(begin(16).page(0, content(1)).u64(0xdead).b, noise...), "qemu", true, false},
	} {
		for _, b := range [][]byte{tc.b, zip(t, tc.b)} {
			f := look(t, b)[0]
			if f.Format != tc.format || f.CutShort != tc.short || (f.Lost != "") != tc.lost || f.Bytes != int64(len(tc.b)) {
				t.Errorf("%s: %+v", tc.name, f)
			}
			if pages := f.Pages.All * (page.Size + 8); f.Opaque > f.Bytes || f.Opaque+pages < f.Bytes-100 {
				t.Errorf("%s: %d pages and %d bytes opaque of %d", tc.name, f.Pages.All, f.Opaque, f.Bytes)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("the disk is on fire")
	whole := begin(16).page(0, content(1)).end()
	zipped := zip(t, whole)
	damaged := slices.Clone(zipped)
	damaged[len(damaged)-6]++ // its checksum
	for _, tc := range []struct {
		name string
		r    io.Reader
		want error
	}{
		{"empty", strings.NewReader(""), ErrEmpty},
		{"gzip of nothing", bytes.NewReader(zip(t, nil)), ErrEmpty},
		{"gzip that breaks off", bytes.NewReader(zipped[:len(zipped)-20]), io.ErrUnexpectedEOF},
		{"gzip, its magic only", strings.NewReader("\x1f\x8b"), io.ErrUnexpectedEOF},
		{"gzip with a wrong checksum", bytes.NewReader(damaged), gzip.ErrChecksum},
		{"unreadable", iotest.ErrReader(broken), broken},
		{"unreadable later", io.MultiReader(bytes.NewReader(bytes.Repeat(whole, 500)), iotest.ErrReader(broken)), broken},
	} {
		if _, err := New(Options{}).Inspect(t.Context(), "a", tc.r); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// It ends between two reads, with the reason.
func TestCancel(t *testing.T) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	n := 0
	endless := readerFunc(func(b []byte) (int, error) {
		if n += len(b); n > 8<<20 {
			cancel(why)
		}
		return len(b), nil
	})
	if _, err := New(Options{}).Inspect(ctx, "a", endless); !errors.Is(err, why) {
		t.Errorf("%v, want %v", err, why)
	}
	if n > 16<<20 {
		t.Errorf("%d bytes were read", n)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// What comes back is compared byte by byte.
func TestCompare(t *testing.T) {
	r := &reducer{pending: []byte("abcdef"), decoded: []byte("abc")}
	if err := r.compare(); err != nil || string(r.pending) != "def" {
		t.Errorf("%v, and %q is left", err, r.pending)
	}
	for _, decoded := range []string{"dex", "defg"} {
		r.decoded = []byte(decoded)
		if err := r.compare(); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v", decoded, err)
		}
	}
	m := &measures{knowing: []*reducer{{raw: 5}}}
	if err := m.check(6); !errors.Is(err, ErrChanged) {
		t.Errorf("a byte is missing: %v", err)
	}
}
