package vmstream

import (
	"bytes"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// TestRecognise tells channels apart, and never before it has bytes enough.
func TestRecognise(t *testing.T) {
	init := build().init(5).b
	for _, tc := range []struct {
		name   string
		first  []byte
		need   int // bytes that decide
		format string
	}{
		{"main", build().header("pc").b, 8, "qemu"},
		{"almost main", []byte("QEVN..."), 4, "opaque"},
		{"multifd", init, 64, "qemu-multifd"},
		{"tls", []byte{0x16, 3, 1, 2, 0, 1}, 3, "tls"},
		{"almost tls", []byte{0x16, 4, 1}, 3, "opaque"},
		{"recover", build().command(cmdRecvBitmap, []byte("\x06pc.ram")...).b, 3, "qemu-recover"},
		{"recover, no bitmaps", build().command(9).b, 3, "qemu-recover"},
		{"almost recover", []byte{8, 0, 99}, 3, "opaque"},
		{"almost recover", []byte{8, 1}, 2, "opaque"},
		{"preempt", build().page("pc.ram", 0x1234000).b, 15, "qemu-preempt"},
		{"preempt, long name", build().page(string(bytes.Repeat([]byte("x"), 255)), 4096).b, 64, "qemu-preempt"},
		{"preempt, zero page", build().zeroPage("pc.ram", 4096).b, 15, "qemu-preempt"},
		{"preempt that ends", build().u64(ramEOS).raw(9, 9).b, 9, "opaque"},
		{"preempt beyond 4 GiB", build().page("pc.ram", 1<<32|0x1000).b, 15, "qemu-preempt"},
		{"nbd client", []byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x08"), 12, "nbd"},
		{"almost nbd client", []byte("\x00\x00\x00\x03IHAVENOT\x00\x00\x00\x08"), 10, "opaque"},
		{"nbd server", []byte("NBDMAGICIHAVEOPT"), 1, "opaque"},
		{"http", []byte("GET / HTTP/1.1\r\n"), 1, "opaque"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for n := range len(tc.first) + 1 {
				s, enough := Recognise(tc.first[:n])
				if enough != (n >= tc.need) {
					t.Fatalf("after %d bytes: enough is %v, want it after %d", n, enough, tc.need)
				}
				if !enough {
					continue
				}
				if got := s.Facts().Format; got != tc.format {
					t.Fatalf("after %d bytes: %s, want %s", n, got, tc.format)
				}
				if m, ok := s.(*Multifd); ok {
					if id, ok := m.ID(); id != 5 || !ok {
						t.Errorf("multifd channel %d, %v; want 5", id, ok)
					}
				}
			}
		})
	}
}

// TestPreempt finds the pages that vCPUs wait for, and lets none of them wait.
func TestPreempt(t *testing.T) {
	w := build().page("pc.ram", 4096).page("", 0).zeroPage("vga.vram", 8192).page("pc.ram", 8192)
	w.word(ramXBZRLE, "", 4096).raw(1).u16(0) // never sent here, but a ram record
	w.u64(ramEOS).text("what comes after the end")
	f := scan(t, NewPreempt(), w.b, whole, never)
	if f.count(page.Full) != w.full || f.count(page.Zero) != w.zero || f.facts.Lost != "" {
		t.Errorf("%d pages and %d zero pages, want %d and %d; %+v",
			f.count(page.Full), f.count(page.Zero), w.full, w.zero, f.facts)
	}
	for i, it := range f.items {
		if it.Mark != page.Flush {
			t.Errorf("item %d: mark %d, want %d", i, it.Mark, page.Flush)
		}
	}
	checkSplits(t, NewPreempt, w.b, 50)

	f = scan(t, NewPreempt(), build().page("pc.ram", 0).text("nonsense, and more of it").b, whole, never)
	if f.facts.Lost == "" || f.facts.Pages != 1 {
		t.Errorf("nonsense went unnoticed: %+v", f.facts)
	}
}

// resumed is what a source sends on a recovery connection.
func resumed() *builder {
	w := build().command(cmdRecvBitmap, []byte("\x07pc.bios")...).command(cmdRecvBitmap, []byte("\x06pc.ram")...)
	w.command(9).part().page("pc.ram", 4096).page("", 8192).eos()
	return w.part().page("pc.bios", 4096).eos().end().eos().raw(elemEOF)
}

// TestRecover goes on after a postcopy pause, knowing the old connection or not.
func TestRecover(t *testing.T) {
	broken := build().header("pc-q35-7.2").advise().start(biosBlock, ramBlock).part().page("pc.ram", 0)
	known := func() page.Scanner {
		old := New()
		scan(t, old, broken.b, whole, never)
		return NewRecover(old)
	}
	w := resumed()
	for name, tc := range map[string]struct {
		fresh   func() page.Scanner
		machine string
	}{
		"unknown": {func() page.Scanner { return NewRecover(nil) }, ""},
		"opaque":  {func() page.Scanner { return NewRecover(NewOpaque()) }, ""},
		"known":   {known, "pc-q35-7.2"},
	} {
		t.Run(name, func(t *testing.T) {
			f := scan(t, tc.fresh(), w.b, whole, never)
			if f.count(page.Full) != w.full || f.facts.Lost != "" || f.sealAt() >= 0 || f.facts.Machine != tc.machine {
				t.Errorf("%d pages, want %d; seal at %d; %+v", f.count(page.Full), w.full, f.sealAt(), f.facts)
			}
			for i, it := range f.items {
				if it.Mark != page.Flush {
					t.Errorf("item %d: mark %d, want %d", i, it.Mark, page.Flush)
				}
				if it.Kind == page.Full && it.Addr.Offset == 8192 && it.Addr.Space != 2 {
					t.Errorf("item %d: page at %+v, want block 2", i, it.Addr)
				}
			}
			checkSplits(t, tc.fresh, w.b, 30)
		})
	}
}
