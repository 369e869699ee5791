package vmstream

import (
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// trap is what a search for the footer of section id would stop at, though it
// is but content of its body.
func trap(id uint32) string {
	const entry = 16 // of htab
	b := build().footer(id).section(elemFull, 3, "trap", 1).text("               ").b
	return string(b[:len(b)/entry*entry])
}

// liveSections writes all live sections whose grammar is known.
func liveSections(w *builder) *builder {
	w.start(ramBlock, biosBlock)
	w.section(elemStart, 3, "dirty-bitmap", 1).raw(bitmapStart | bitmapNode | bitmapName).cstr("disk0").cstr("b0")
	w.u32(65536).raw(1).raw(bitmapEOS).footer(3)
	w.section(elemStart, 4, "0000:00:04.0/vfio", 1).u64(vfioSetup).u64(vfioEnd).footer(4)
	w.section(elemStart, 5, "spapr/htab", 1).u32(24).footer(5)
	w.section(elemStart, 6, "s390-stattrib", 0).u64(attrEOS).footer(6)
	w.part().page("pc.ram", 0).eos()
	w.raw(elemPart).u32(3).raw(bitmapEOS).footer(3)
	w.raw(elemPart).u32(4).u64(vfioData).u64(uint64(len(trap(4)))).text(trap(4)).u64(vfioInitSent).footer(4)
	w.raw(elemPart).u32(5).u32(0).u32(16).u16(2).u16(3).raw(make([]byte, 32)...).u64(0).footer(5)
	w.raw(elemPart).u32(6).u64(8192 | attrMore).u64(uint64(len(trap(6)))).text(trap(6)).u64(attrEOS).footer(6)
	w.part().page("", 4096).eos()
	w.raw(elemEnd).u32(3).raw(bitmapBits | bitmapNode).cstr("disk0").u64(0).u32(8).u64(uint64(len(trap(3)))).text(trap(3))
	w.raw(bitmapBits | bitmapZeroes).u64(8).u32(8).raw(bitmapComplete | bitmapName).cstr("b0").raw(bitmapEOS).footer(3)
	w.raw(elemEnd).u32(6).u64(attrDone).footer(6) // without EOS, as some versions do
	w.raw(elemEnd).u32(5).u32(0xffffffff).footer(5)
	w.raw(elemEnd).u32(4).u64(vfioReady).footer(4)
	return w.end().page("", 8192).eos().tail()
}

// TestLive walks live sections without ever searching for their ends.
func TestLive(t *testing.T) {
	w := liveSections(build().header("x"))
	s := New()
	f := scan(t, s, w.b, whole, never)
	if f.count(page.Full) != w.full || f.sealAt() != w.seal {
		t.Errorf("%d pages, seal at %d; want %d, %d", f.count(page.Full), f.sealAt(), w.full, w.seal)
	}
	if why := s.(*parser).seek.why; why != "" {
		t.Errorf("lost the thread: %s", why)
	}
	checkSplits(t, New, w.b, 50)
}

// TestLiveUnknown finds the end of a body that it cannot walk.
func TestLiveUnknown(t *testing.T) {
	for name, body := range map[string]func(*builder, uint32){
		"vfio config":    func(w *builder, id uint32) { w.u64(vfioTag | 2).text("vmstate").u64(vfioEnd) },
		"long chunk":     func(w *builder, id uint32) { w.u64(vfioData).u64(maxChunk + 1).text("short") },
		"false footer":   func(w *builder, id uint32) { w.text("?").footer(id).text("?").footer(id + 1) },
		"partial footer": func(w *builder, id uint32) { w.text("?~~~\x00\x00\x00") },
	} {
		t.Run(name, func(t *testing.T) {
			w := build().header("x").start(ramBlock)
			w.section(elemStart, 4, "x/vfio", 1).u64(vfioEnd).footer(4).part().page("pc.ram", 0).eos()
			w.raw(elemPart).u32(4)
			body(w, 4)
			w.footer(4).part().page("", 4096).eos().end().eos().tail()
			f := scan(t, New(), w.b, whole, never)
			if f.count(page.Full) != w.full || f.sealAt() != w.seal {
				t.Errorf("%d pages, seal at %d; want %d, %d", f.count(page.Full), f.sealAt(), w.full, w.seal)
			}
			checkSplits(t, New, w.b, 20)
		})
	}
}
