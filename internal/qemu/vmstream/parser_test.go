package vmstream

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// Blocks of the synthetic guests.
var (
	ramBlock  = block{name: "pc.ram", used: 1 << 20}
	biosBlock = block{name: "pc.bios", used: 1 << 16}
)

func capability(name string) func(*builder) {
	return func(w *builder) {
		w.raw(elemSubsection).cstr("configuration/capabilities").u32(1).u32(1).cstr(name)
	}
}

func pageBits(bits uint32) func(*builder) {
	return func(w *builder) { w.raw(elemSubsection).cstr("configuration/target-page-bits").u32(1).u32(bits) }
}

// rounds writes a small precopy: two rounds, and the end.
func rounds(w *builder) *builder {
	size := uint64(w.ps)
	w.part().page("pc.ram", 0).page("", size).zeroPage("", 2*size).eos()
	w.part().page("pc.bios", 0).zeroPage("pc.ram", size).u64(ramFlush).eos()
	return w.end().page("", 2*size).eos()
}

// TestLayouts scans streams of layouts that the QEMU at hand does not send.
func TestLayouts(t *testing.T) {
	begin := func(more ...func(*builder)) *builder {
		w := build().header("pc-q35-10.2")
		for _, f := range more {
			f(w)
		}
		return w
	}
	for name, w := range map[string]*builder{
		"plain":              rounds(begin().start(ramBlock, biosBlock)).tail(),
		"return path, flush": rounds(begin().command(cmdOpenReturnPath).command(2, 0, 0, 0, 1).start(ramBlock, biosBlock)).tail(),
		"no configuration":   rounds(build().u32(mainMagic).u32(mainVersion).start(ramBlock, biosBlock)).tail(),
		"unknown subsection": rounds(begin(func(w *builder) {
			w.raw(elemSubsection).cstr("configuration/new").u32(1).text("\x01\x03ram what?")
		}).start(ramBlock, biosBlock)).tail(),
		"uuid": rounds(begin(func(w *builder) {
			w.raw(elemSubsection).cstr("configuration/uuid").u32(1).text("0123456789abcdef")
		}).start(ramBlock, biosBlock)).tail(),
		"switchover start (10.0)": func() *builder {
			w := begin().start(ramBlock, biosBlock).part().page("pc.ram", 0).eos()
			return w.command(11).end().page("", 4096).eos().tail()
		}(),
		"early virtio-mem (8.0)": func() *builder {
			w := begin().section(elemFull, 1, "0000:00:03.0/virtio-mem-early", 1)
			w.u64(1 << 32).footer(1).u64(1 << 21).footer(5).text("~~~\x7e\x00\x00\x00").footer(1)
			return rounds(w.start(ramBlock, biosBlock)).tail()
		}(),
		"early section after ram's start": func() *builder {
			w := begin().start(ramBlock, biosBlock).section(elemFull, 1, "virtio-iommu", 1).text("abc").footer(1)
			return rounds(w).tail()
		}(),
		"huge pages, advised": rounds(begin().advise().start(
			block{name: "pc.ram", used: 2 << 20, pageSize: 2 << 20}, biosBlock)).tail(),
		"huge pages, last entry": rounds(begin().advise().start(
			biosBlock, block{name: "pc.ram", used: 1 << 30, pageSize: 1 << 30})).tail(),
		"advised for bitmaps only": rounds(begin().command(cmdAdvise).start(ramBlock, biosBlock)).tail(),
		"long command of the future": rounds(begin().start(ramBlock, biosBlock).command(
			200, bytes.Repeat(build().footer(2).raw(elemPart).u32(2).b, 300)...)).tail(),
		"x-ignore-shared": rounds(begin(capability("x-ignore-shared")).start(
			block{name: "pc.ram", used: 1 << 20, gpa: 1 << 32}, block{name: "pc.bios", used: 1 << 16, gpa: 0xfffe0000})).tail(),
		"xbzrle, compress": func() *builder {
			w := begin().start(ramBlock, biosBlock).part().page("pc.ram", 0)
			w.word(ramXBZRLE, "", 4096).raw(1).u16(5).text("delta").word(ramXBZRLE, "pc.bios", 4096).raw(1).u16(0)
			w.word(ramCompress, "", 0).u32(6).text("zlib..").page("", 4096).eos()
			return w.end().eos().tail()
		}(),
		"fill that is not 0": func() *builder {
			w := begin().start(ramBlock, biosBlock).part().zeroPage("pc.ram", 0)
			w.word(ramZero, "", 4096).raw(7).page("", 8192).eos()
			return w.end().eos().tail()
		}(),
		"unknown live section": func() *builder {
			w := begin().start(ramBlock, biosBlock).section(elemStart, 9, "new", 1).u64(9).footer(9)
			w.part().page("pc.ram", 0).eos().raw(elemPart).u32(9).footer(9).text("no").footer(9)
			w.part().page("", 4096).page("", 8192).eos().raw(elemEnd).u32(9).text("x").footer(9)
			return w.end().eos().tail()
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			f := scan(t, New(), w.b, whole, never)
			if f.count(page.Full) != w.full || f.count(page.Zero) != w.zero {
				t.Errorf("%d pages and %d zero pages, want %d and %d", f.count(page.Full), f.count(page.Zero), w.full, w.zero)
			}
			if f.sealAt() != w.seal {
				t.Errorf("seal at %d, want %d", f.sealAt(), w.seal)
			}
			if f.facts.Lost != "" {
				t.Errorf("lost: %s", f.facts.Lost)
			}
			checkSplits(t, New, w.b, 12)
		})
	}
}

// TestPageSizes keeps in step with pages that are no items.
func TestPageSizes(t *testing.T) {
	for _, tc := range []struct {
		name, machine string
		config        func(*builder)
		advised       bool
		size          int
	}{
		{"subsection", "virt-9.1", pageBits(16), false, 65536},
		{"subsection, advised", "virt-9.1", pageBits(14), true, 16384},
		{"advised", "sun4u", func(*builder) {}, true, 8192},
		{"machine", "sun4u", func(*builder) {}, false, 8192},
		{"small", "virt-2.6", pageBits(10), false, 1024},
		{"none", "pc-q35-7.2", func(*builder) {}, false, 4096},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := build()
			w.ps = tc.size
			w.header(tc.machine)
			tc.config(w)
			if tc.advised {
				w.advise()
			}
			w.start(block{name: "pc.ram", used: 1 << 20}, block{name: "pc.bios", used: 1 << 16})
			rounds(w).tail()
			f := scan(t, New(), w.b, whole, never)
			if f.count(page.Full) != w.full || f.sealAt() != w.seal || f.facts.PageSize != tc.size || f.facts.Rounds == 0 {
				t.Errorf("%d pages, seal at %d, facts %+v; want %d, %d", f.count(page.Full), f.sealAt(), f.facts, w.full, w.seal)
			}
			checkSplits(t, New, w.b, 20)
		})
	}
}

// TestAddresses checks where pages are said to live.
func TestAddresses(t *testing.T) {
	w := build().header("pc-q35-7.2").start(ramBlock, biosBlock)
	w.part().page("pc.bios", 8192).page("", 4096).eos()
	w.command(2, 0, 0, 0, 1)
	w.part().page("", 0).zeroPage("pc.ram", 4096).page("", 8192).eos().end().eos().tail()
	got := fmt.Sprint(pagesAt(scan(t, New(), w.b, whole, never)))
	if want := "[{2 8192} {2 4096} {2 0} {1 4096} {1 8192}]"; got != want {
		t.Errorf("pages at %s, want %s", got, want)
	}
}

// TestLost gives up at last.
func TestLost(t *testing.T) {
	long(t)
	big := bytes.Repeat([]byte("\x7e\x00\x00\x00\x02~"), maxSeek/6+100)
	for name, tc := range map[string]struct {
		stream []byte
		why    string
	}{
		"version":    {build().u32(mainMagic).u32(4).text("what then?").b, "version 4"},
		"mapped-ram": {mapped().b, "mapped-ram"},
		"garbage":    {append(build().header("x").start(ramBlock).part().b, big...), "ram word"},
		"no ram":     {append(build().header("x").raw(0x55).b, big...), "element type 0x55"},
	} {
		t.Run(name, func(t *testing.T) {
			s := New()
			n := 0
			for b := tc.stream; len(b) > 0; {
				it, took := s.Next(b)
				if took == 0 {
					it, took = s.Cut(b), len(b)
				}
				if it.Kind != page.Opaque {
					t.Fatalf("item of kind %d at %d", it.Kind, n)
				}
				n += took
				b = b[took:]
			}
			if got := s.Facts().Lost; !strings.Contains(got, tc.why) {
				t.Errorf("lost because of %q, want %q", got, tc.why)
			}
		})
	}
}

func mapped() *builder {
	w := build().header("pc-q35-9.0")
	capability("mapped-ram")(w)
	return rounds(w.start(ramBlock, biosBlock))
}

// TestManyBlocks goes on without addresses when there are too many blocks.
func TestManyBlocks(t *testing.T) {
	var blocks []block
	for i := range maxBlocks + 10 {
		blocks = append(blocks, block{name: fmt.Sprintf("%0250d", i), used: 1 << 20})
	}
	w := build().header("pc-q35-7.2").start(blocks...).part()
	w.page(blocks[0].name, 0).page(blocks[maxBlocks-1].name, 0).page(blocks[maxBlocks].name, 4096).page("", 8192).eos().end().eos().tail()
	f := scan(t, New(), w.b, whole, never)
	got := fmt.Sprint(pagesAt(f))
	if want := "[{1 0} {4096 0} {0 4096} {0 8192}]"; got != want || f.sealAt() != w.seal {
		t.Errorf("pages at %s, want %s; seal at %d, want %d", got, want, f.sealAt(), w.seal)
	}
}
