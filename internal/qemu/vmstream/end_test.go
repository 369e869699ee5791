package vmstream

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// TestPostcopy switches over by PACKAGED.
func TestPostcopy(t *testing.T) {
	w := build().header("pc-q35-10.2").command(cmdOpenReturnPath).advise().start(ramBlock, biosBlock)
	w.part().page("pc.ram", 0).eos().command(6, []byte("\x00\x06pc.ram\x000123456789abcdef")...)
	w.command(2, 0, 0, 0, 2).part().eos().packaged(blob()).command(2, 0, 0, 0, 4)
	w.part().page("pc.ram", 4096).page("", 8192).eos().end().eos().raw(elemEOF)
	f := scan(t, New(), w.b, whole, never)
	if f.count(page.Full) != w.full || f.sealAt() != w.seal || !f.facts.Postcopy || f.facts.Lost != "" {
		t.Errorf("%d pages, seal at %d, facts %+v; want %d, %d", f.count(page.Full), f.sealAt(), f.facts, w.full, w.seal)
	}
	checkPackaged(t, w.b, f, w.seal)
	// However it arrives, the blob is held to its last byte and no further.
	checkPackaged(t, w.b, scan(t, New(), w.b, func() int { return 1 }, never), w.seal)
	checkSplits(t, New, w.b, 50)
}

// TestBlobBound does not ask the far end to hold more than it can.
func TestBlobBound(t *testing.T) {
	for _, size := range []uint32{0, maxHold, maxHold + 1} {
		w := build().header("pc-q35-7.2").start(ramBlock)
		w.command(cmdPackaged, binary.BigEndian.AppendUint32(nil, size)...)
		f := scan(t, New(), w.b, whole, never)
		last := f.items[len(f.items)-1]
		if held := last.Mark&page.Hold != 0; held != (size == maxHold) || last.Mark&page.Seal == 0 {
			t.Errorf("blob of %d bytes: mark %d", size, last.Mark)
		}
	}
}

// TestFlush lets no command wait.
func TestFlush(t *testing.T) {
	w := build().header("x").start(ramBlock).part().page("pc.ram", 0).eos()
	w.command(2, 0, 0, 0, 1)
	flushed := len(w.b)
	w.part().page("", 4096).eos().end().eos().tail()
	f := scan(t, New(), w.b, whole, never)
	for i, it := range f.items {
		end := f.at[i] + it.Len()
		if flush := it.Mark&page.Flush != 0; flush != (end == flushed || end > w.seal) {
			t.Errorf("item from %d to %d: mark %d; command ends at %d, seal at %d", f.at[i], end, it.Mark, flushed, w.seal)
		}
	}
}

// TestResync loses the thread in ram and finds it again.
func TestResync(t *testing.T) {
	for name, lose := range map[string]func(*builder){
		"flags":     func(w *builder) { w.text("\xff garbage") },
		"block":     func(w *builder) { w.word(ramZero, "no such block", 0).raw(0) },
		"offset":    func(w *builder) { w.word(ramZero, "pc.bios", biosBlock.used).raw(0) },
		"name":      func(w *builder) { w.word(ramPage, "\xff", 0) },
		"delta":     func(w *builder) { w.word(ramXBZRLE, "", 0).raw(1).u16(4097) },
		"zlib":      func(w *builder) { w.word(ramCompress, "", 0).u32(1 << 30) },
		"end of it": func(w *builder) { w.u64(ramEOS).footer(w.ramID + 1) },
		"block list": func(w *builder) {
			w.u64(1<<20 | ramMemSize).cstr("too large").u64(1<<20 + 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := build().header("pc-q35-7.2").start(ramBlock, biosBlock).part().page("pc.ram", 0)
			lose(w)
			// Footers that are none.
			w.footer(w.ramID).text("\x02 not a section").footer(w.ramID).part().text("not a ram record")
			w.footer(w.ramID).part().zeroPage("", 0).text("this is no second one")
			w.zero--
			w.eos().part().page("", 4096) // of which block is not known
			w.page("pc.ram", 8192).eos().end().page("", 12288).eos().tail()
			f := scan(t, New(), w.b, whole, never)
			if f.count(page.Full) != w.full || f.count(page.Zero) != w.zero || f.sealAt() != w.seal || f.facts.Lost != "" {
				t.Errorf("%d pages, seal at %d, facts %+v; want %d, %d", f.count(page.Full), f.sealAt(), f.facts, w.full, w.seal)
			}
			if got, want := fmt.Sprint(pagesAt(f)), "[{1 0} {0 4096} {1 8192} {1 12288}]"; got != want {
				t.Errorf("pages at %s, want %s", got, want)
			}
			checkSplits(t, New, w.b, 8)
		})
	}
}

// pagesAt are the addresses of all pages.
func pagesAt(f *found) (at []page.Addr) {
	for _, it := range f.items {
		if it.Kind == page.Full || it.Kind == page.Zero {
			at = append(at, it.Addr)
		}
	}
	return at
}

// TestResyncAtEnd skips over ram's end and still finds the seal.
func TestResyncAtEnd(t *testing.T) {
	w := build().header("pc-q35-7.2").start(ramBlock).part().page("pc.ram", 0).eos()
	w.end().text("\xff garbage").eos().tail()
	f := scan(t, New(), w.b, func() int { return 1 }, never)
	if got := f.sealAt(); got < w.seal-sectionRef || got > w.seal {
		t.Errorf("seal at %d, want %d, or at the footer before it", got, w.seal)
	}
}

// TestNoFooters reads a stream of a machine type from before 2015.
func TestNoFooters(t *testing.T) {
	w := build().header("pc-i440fx-2.2").section(elemStart, 2, "ram", ramVersion)
	w.u64(1<<20 | ramMemSize).cstr("pc.ram").u64(1 << 20).u64(ramEOS)
	w.part().page("pc.ram", 0).u64(ramEOS).end().page("", 4096).u64(ramEOS).tail()
	f := scan(t, New(), w.b, func() int { return 1 }, never)
	if f.count(page.Full) != w.full || f.sealAt() != w.seal || f.facts.Lost != "" {
		t.Errorf("%d pages, seal at %d, facts %+v; want %d, %d", f.count(page.Full), f.sealAt(), f.facts, w.full, w.seal)
	}
}
