package vmstream

import (
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/qemutest"
)

// drain scans stream as a gateway does: from a buffer of the size it reads.
func drain(s page.Scanner, stream []byte, buffer int) (pages int) {
	for len(stream) > 0 {
		it, n := s.Next(stream[:min(len(stream), buffer)])
		if n == 0 {
			it, n = s.Cut(stream[:min(len(stream), buffer)]), min(len(stream), buffer)
		}
		if it.Kind == page.Full {
			pages++
		}
		stream = stream[n:]
	}
	return pages
}

// TestAllocs scans pages without allocating.
func TestAllocs(t *testing.T) {
	w := build().header("pc-q35-7.2").start(ramBlock, biosBlock).part()
	for i := range uint64(100) {
		w.page("pc.ram", i*4096).page("", i*4096).zeroPage("pc.bios", 0)
	}
	head := build().header("pc-q35-7.2").start(ramBlock, biosBlock).part().b
	s := New()
	drain(s, head, page.MaxItem)
	body := w.b[len(head):]
	if n := testing.AllocsPerRun(50, func() { drain(s, body, page.MaxItem) }); n != 0 {
		t.Errorf("%v allocations for %d pages", n, w.full+w.zero)
	}
}

// TestMultifdAllocs scans packets without allocating, and headers that are cut.
func TestMultifdAllocs(t *testing.T) {
	m := NewMultifd()
	drain(m, oldMultifd(build()).b, page.MaxItem)
	body := build().multi(
		multi{block: "pc.ram", normal: row(0, 128, 4096), stale: true}, multi{block: "vga.vram", zero: row(0, 9, 4096)},
		multi{flags: methodZlib, block: "pc.ram", normal: row(0, 128, 4096), data: "zlib"},
	).b
	for _, buffer := range []int{page.MaxItem, 1000} {
		if n := testing.AllocsPerRun(50, func() { drain(m, body, buffer) }); n != 0 || m.lost() {
			t.Errorf("%v allocations, buffer of %d bytes; %+v", n, buffer, m.Facts())
		}
	}
}

// BenchmarkScanner scans what a real QEMU has sent. Only headers are touched,
// so bytes per second stand for pages per second.
func BenchmarkScanner(b *testing.B) {
	stream := qemutest.Relay(b, qemutest.Config{Dirty: 16, Passes: 2}).Channels[0].Forward
	b.Run("stream=precopy", func(b *testing.B) {
		b.SetBytes(int64(len(stream)))
		b.ReportAllocs()
		pages := 0
		for b.Loop() {
			pages += drain(New(), stream, page.MaxItem)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(pages), "ns/page")
	})
	channel := qemutest.Relay(b, qemutest.Config{Dirty: 16, Passes: 2, Multifd: 1}).Channels[1].Forward
	b.Run("stream=multifd", func(b *testing.B) {
		b.SetBytes(int64(len(channel)))
		b.ReportAllocs()
		pages := 0
		for b.Loop() {
			pages += drain(NewMultifd(), channel, page.MaxItem)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(pages), "ns/page")
	})
	// What no parser understands is searched for a place to go on.
	b.Run("stream=seek", func(b *testing.B) {
		lost := append(build().header("x").start(ramBlock).part().text("\xff").b, stream[:min(len(stream), 32<<20)]...)
		b.SetBytes(int64(len(lost)))
		b.ReportAllocs()
		for b.Loop() {
			drain(New(), lost, page.MaxItem)
		}
	})
}
