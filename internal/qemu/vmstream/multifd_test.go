package vmstream

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// TestMultifd scans the layouts of all versions.
func TestMultifd(t *testing.T) {
	sized := func(size int) *builder { w := build(); w.ps = size; return w }
	for name, tc := range map[string]struct {
		w      *builder
		tables int
		rounds int
		blocks string
	}{
		"up to 8.1":   {oldMultifd(build()), 7, 1, "11111211"},
		"from 9.2 on": {newMultifd(build()), 8, 1, "111122"},
		"1 KiB":       {oldMultifd(sized(1 << 10)), 7, 1, ""},
		"8 KiB":       {oldMultifd(sized(8 << 10)), 7, 1, ""},
		"64 KiB":      {oldMultifd(sized(64 << 10)), 7, 1, ""},
		"zlib":        {zipped(methodZlib), 6, 0, ""},
		"zstd":        {zipped(methodZstd), 6, 0, ""},
		"qpl":         {zipped(methodQPL), 6, 0, ""},
		"uadk":        {zipped(methodUADK), 6, 0, ""},
		"qatzip":      {zipped(methodQATzip), 6, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := scan(t, multifd(), tc.w.b, whole, never)
			want := page.Facts{
				Format: "qemu-multifd", PageSize: tc.w.ps, Rounds: tc.rounds,
				Pages: uint64(tc.w.full), ZeroPages: uint64(tc.w.zero),
			}
			if name == "qpl" || name == "uadk" || name == "qatzip" {
				want.Sealed = name
			}
			if f.facts != want || f.count(page.Full) != tc.w.full || f.count(page.Table) != tc.tables {
				t.Errorf("%d pages, %d tables, want %d, %d; %+v, want %+v",
					f.count(page.Full), f.count(page.Table), tc.w.full, tc.tables, f.facts, want)
			}
			var blocks []byte
			for _, a := range pagesAt(f) {
				blocks = append(blocks, '0'+byte(a.Space))
			}
			if string(blocks) != tc.blocks {
				t.Errorf("pages of blocks %s, want %s", blocks, tc.blocks)
			}
			checkPackets(t, f)
			checkSplits(t, multifd, tc.w.b, 30)
		})
	}
}

// checkPackets checks that each page lives where the last header says, and
// that nothing waits once a channel has come to a SYNC.
func checkPackets(t *testing.T, f *found) {
	t.Helper()
	var h packet
	n, syncs, flushed := 0, 0, 0
	for i, it := range f.items {
		if it.Mark&page.Flush != 0 {
			flushed++
		}
		switch {
		case it.Kind == page.Table && i > 0:
			if h, n = packet(f.bytes[f.at[i]:][:it.Len()]), 0; h.flags()&packetSync != 0 {
				syncs++
			}
		case it.Kind == page.Full:
			if h == nil || n >= int(h.u32(packetNormal)) {
				t.Fatalf("page at %d without a header", f.at[i])
			}
			if want := h.offset(n); it.Addr.Offset != want || len(it.Head) > 0 {
				t.Fatalf("page at %d: address %#x, want %#x", f.at[i], it.Addr.Offset, want)
			}
			n++
		}
	}
	// The init packet leaves at once, too, and so does what is cut in the end.
	if flushed < syncs || flushed > syncs+2 {
		t.Fatalf("%d items leave at once, want one for each of %d SYNCs", flushed, syncs)
	}
}

// TestMultifdCut cuts a stream once: what was cut comes out as bytes, all else
// as it does without.
func TestMultifdCut(t *testing.T) {
	for name, w := range map[string]*builder{"old": oldMultifd(build()), "new": newMultifd(build()), "zlib": zipped(methodZlib)} {
		t.Run(name, func(t *testing.T) {
			want := scan(t, multifd(), w.b, whole, never)
			for _, at := range cuts(want) {
				cutOnce(t, w.b, at, want)
			}
		})
	}
}

// cuts are places to cut at: around the bounds of items and of what tells a
// header's size, and some in between.
func cuts(f *found) (places []int) {
	for i, at := range f.at {
		for _, d := range [...]int{-1, 0, 1, packetPeek - 1, packetPeek, packetPeek + 1, f.items[i].Len() / 2} {
			if p := at + d; p > 0 && p < len(f.bytes) {
				places = append(places, p)
			}
		}
	}
	return places
}

func cutOnce(t *testing.T, stream []byte, at int, want *found) {
	t.Helper()
	first := true
	size := func() int {
		if first {
			return at
		}
		return len(stream)
	}
	f := scan(t, multifd(), stream, size, func() bool { c := first; first = false; return c })
	if !bytes.Equal(f.bytes, stream) || f.facts.Lost != "" {
		t.Fatalf("cut at %d: came out changed, or lost: %+v", at, f.facts)
	}
	least := want.count(page.Full) + want.count(page.Table) - 1
	if got := f.count(page.Full) + f.count(page.Table); got < least {
		t.Fatalf("cut at %d: %d pages and tables, want %d", at, got, least)
	}
	if f.facts.Rounds != want.facts.Rounds || f.facts.ZeroPages != want.facts.ZeroPages {
		t.Fatalf("cut at %d: %+v, want %+v", at, f.facts, want.facts)
	}
}

// TestMultifdImplausible gives up at the first header that cannot be one.
func TestMultifdImplausible(t *testing.T) {
	put := func(at int, v uint32) func(h []byte) {
		return func(h []byte) { binary.BigEndian.PutUint32(h[at:], v) }
	}
	name := func(s string) func(h []byte) {
		return func(h []byte) { copy(h[packetBlock:packetOffsets], s) }
	}
	for what, tc := range map[string]struct {
		spoil func(h []byte)
		why   string
	}{
		"magic":           {put(0, 0x11223345), "magic 11223345"},
		"version":         {put(packetVersion, 2), "version 2"},
		"flags":           {put(packetFlags, 0x80), "flags 0x80"},
		"device and sync": {put(packetFlags, packetDevice|packetSync), "flags 0x41"},
		"method":          {put(packetFlags, 3<<1), "method 3"},
		"slots":           {put(packetSlots, 127), "packet for 127 pages"},
		"few slots":       {put(packetSlots, 4), "packet for 4 pages"},
		"many slots":      {put(packetSlots, 1024), "packet for 1024 pages"},
		"other slots":     {put(packetSlots, 64), "packet for 64 pages"},
		"no slots":        {put(packetSlots, 0), "packet for 0 pages"},
		"no slots, sync": {func(h []byte) {
			put(packetSlots, 0)(h)
			put(packetFlags, packetSync)(h)
		}, "packet of 2 and 0 pages, for 0"},
		"normal":       {put(packetNormal, 129), "packet of 129 and 0 pages"},
		"zero":         {put(packetZero, 127), "packet of 2 and 127 pages"},
		"sum":          {put(packetZero, 0xffffffff), "packet of 2 and 4294967295 pages"},
		"size":         {put(packetNext, 4096), "packet of 4096 bytes for 2 pages"},
		"long":         {put(packetNext, 0xffffffff), "packet of 4294967295 bytes for 2 pages"},
		"no name":      {name(strings.Repeat("\x00", 256)), "without a name"},
		"endless name": {name(strings.Repeat("x", 256)), "without a name"},
		"odd name":     {name("pc\xff\x00"), "without a name"},
		"odd offset":   {put(packetOffsets+4, 4097), "page at 0x1001"},
		"far offset":   {put(packetOffsets+8, 1<<24), "page at 0x100000000001000"},
		"zero's offset": {func(h []byte) {
			put(packetZero, 1)(h)
			put(packetOffsets+8*2+4, 1)(h)
		}, "page at 0x1"},
		"zlib, long": {func(h []byte) {
			put(packetFlags, methodZlib)(h)
			put(packetNext, maxCompressed+1)(h)
		}, "packet of 1048577 bytes"},
		"device without a name": {put(packetFlags, packetDevice), "without a name"},
		"device, long": {func(h []byte) {
			copy(h, build().device("x", "").b)
			put(deviceNext, maxChunk+1)(h)
		}, "device state of 67108865 bytes"},
	} {
		t.Run(what, func(t *testing.T) {
			good := multi{block: "pc.ram", normal: row(0, 2, 4096)}
			w := build().init(0).multi(good)
			at := len(w.b)
			w.multi(good, good)
			tc.spoil(w.b[at:])
			f := scan(t, multifd(), w.b, whole, never)
			if !strings.Contains(f.facts.Lost, tc.why) || f.count(page.Full) != 2 || f.count(page.Table) != 2 {
				t.Errorf("%d pages, %d tables, %+v; want it to be lost for %q", f.count(page.Full), f.count(page.Table), f.facts, tc.why)
			}
			checkSplits(t, multifd, w.b, 10)
		})
	}
}

// TestMultifdInit hands out the init packet whole, and learns from it.
func TestMultifdInit(t *testing.T) {
	w := build().init(7)
	m := NewMultifd()
	if _, ok := m.ID(); ok {
		t.Error("it knows its number too early")
	}
	f := scan(t, m, w.b, func() int { return 1 }, never)
	if id, ok := m.ID(); len(f.items) != 1 || f.items[0].Kind != page.Table || f.items[0].Mark != page.Flush || id != 7 || !ok {
		t.Errorf("items %+v, channel %d, %v", f.items, id, ok)
	}
	for name, b := range map[string][]byte{
		"magic":   bytes.Repeat([]byte{7}, 300<<10),
		"version": append(build().u32(multifdMagic).u32(2).b, make([]byte, 300<<10)...),
	} {
		f := scan(t, multifd(), b, whole, never)
		if !strings.Contains(f.facts.Lost, "init packet with magic") || f.count(page.Opaque) != len(f.items) {
			t.Errorf("%s: %+v", name, f.facts)
		}
		checkSplits(t, multifd, b, 20)
	}
}

// TestMultifdGuess: a channel of QEMU 9.2 and later begins with a SYNC that does
// not tell the size of its header. Only where pages are 4 KiB is it guessed.
func TestMultifdGuess(t *testing.T) {
	w := build()
	w.ps = 8 << 10
	newMultifd(w)
	f := scan(t, multifd(), w.b, whole, never)
	if !bytes.Equal(f.bytes, w.b) || f.facts.Lost == "" || f.count(page.Full) > 0 {
		t.Errorf("%d pages, %+v", f.count(page.Full), f.facts)
	}
}

// TestMultifdManyBlocks goes on without addresses when there are too many
// blocks.
func TestMultifdManyBlocks(t *testing.T) {
	w := build().init(0)
	for i := range maxBlocks + 1 {
		w.multi(multi{block: fmt.Sprintf("%0255d", i), zero: row(0, 1, 4096)})
	}
	last := fmt.Sprintf("%0255d", maxBlocks)
	w.multi(multi{block: last, normal: row(1, 1, 4096)}, multi{block: fmt.Sprintf("%0255d", 0), normal: row(2, 1, 4096)})
	got := fmt.Sprint(pagesAt(scan(t, multifd(), w.b, whole, never)))
	if want := "[{0 4096} {1 8192}]"; got != want {
		t.Errorf("pages at %s, want %s", got, want)
	}
}
