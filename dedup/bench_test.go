package dedup

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream"
)

// corpusSize is the stream that the benchmarks work on, in bytes: far above
// the caches, and below half of DefaultBudget.
const corpusSize = 96 << 20

// corpus is real content as a guest holds it: the pages of this machine's
// programs, libraries and texts, with a zero page after every sixth, or the
// captured QEMU stream that LONGHAUL_STREAM names.
func corpus(tb testing.TB) []page.Item {
	tb.Helper()
	if name := os.Getenv("LONGHAUL_STREAM"); name != "" {
		return captured(tb, name)
	}
	var items []page.Item
	n, size := uint64(0), 0
	for _, dir := range []string{"/usr/bin", "/usr/share/doc", "/usr/lib/x86_64-linux-gnu", "/etc"} {
		limit := size + corpusSize/4
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || size > limit {
				return nil
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			for b = append(b, make([]byte, -len(b)&(page.Size-1))...); len(b) > 0 && size <= limit; b = b[page.Size:] {
				items = append(items, fullPage(1, n, b[:page.Size]))
				size += page.Size
				if n++; n%7 == 6 {
					items = append(items, zeroItem(1, n))
					n++
				}
			}
			return nil
		})
	}
	if size < corpusSize/8 {
		tb.Skipf("only %d bytes of files on this machine", size)
	}
	return items
}

// captured reads items out of a captured stream.
func captured(tb testing.TB, name string) []page.Item {
	tb.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	s, _ := vmstream.Recognise(b[:min(len(b), 64)])
	var items []page.Item
	for len(b) > 0 {
		it, n := s.Next(b[:min(len(b), page.MaxItem)])
		if n == 0 {
			it, n = s.Cut(b[:min(len(b), page.MaxItem)]), min(len(b), page.MaxItem)
		}
		items = append(items, it)
		b = b[n:]
	}
	return items
}

func streamSize(items []page.Item) (n int64) {
	for _, it := range items {
		n += int64(it.Len())
	}
	return n
}

// rewrite is the corpus as a busy guest writes it: three of four pages as
// they were, one with a few words changed.
func rewrite(items []page.Item, round byte) []page.Item {
	out := make([]page.Item, 0, len(items))
	for i, it := range items {
		if it.Kind == page.Full && i%4 == 0 {
			b := append([]byte(nil), it.Data...)
			for j := range 6 {
				b[(i*131+j*997)%page.Size] += round + 1
			}
			it.Data = b
		}
		out = append(out, it)
	}
	return out
}

// cpu measures what the loop of a benchmark costs in CPU time, since a
// machine that is shared says little by the clock. size is of one iteration.
func cpu(b *testing.B, size int64) (stop func()) {
	start := used(b)
	return func() {
		b.ReportMetric(float64(size)*float64(b.N)/1e6/(used(b)-start).Seconds(), "MB/cpu-s")
	}
}

// used is the CPU time of this process.
func used(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// encodeAll sends items through e and returns the messages.
func encodeAll(tb testing.TB, e *Encoder, items []page.Item, keep bool) (msgs [][]byte, wire int64) {
	cut := func() {
		for b := e.Cut(); b != nil; b = e.Cut() {
			msg, err := b.Compress()
			if err != nil {
				tb.Fatal(err)
			}
			wire += int64(len(msg))
			if keep {
				msgs = append(msgs, msg)
			}
			e.Acked(b.Seq)
		}
	}
	for _, it := range items {
		if e.Add(it) {
			cut()
		}
	}
	cut()
	return msgs, wire
}

// settings are the codecs that are compared.
var settings = []struct {
	name string
	set  Setting
}{{"raw", Setting{Codec: Raw}}, {"lz4", Setting{Codec: LZ4}}, {"zstd1", Setting{Codec: Zstd, Level: 1}},
	{"zstd3", Setting{Codec: Zstd, Level: 3}}, {"zstd7", Setting{Codec: Zstd, Level: 7}},
	{"fold", Setting{Codec: Fold}}, {"zstd11", Setting{Codec: Zstd, Level: 11}}, {"press", Setting{Codec: Press}}}

func BenchmarkEncode(b *testing.B) {
	items := corpus(b)
	size := streamSize(items)
	for _, s := range settings {
		b.Run("content=new/codec="+s.name, func(b *testing.B) {
			b.SetBytes(size)
			var wire int64
			stop := cpu(b, size)
			for b.Loop() {
				e := NewStore(Config{}).NewEncoder(EncoderConfig{Setting: s.set})
				_, wire = encodeAll(b, e, items, false)
			}
			stop()
			b.ReportMetric(100*float64(wire)/float64(size), "%left")
		})
	}
	b.Run("content=known", func(b *testing.B) {
		b.SetBytes(size)
		store := NewStore(Config{})
		encodeAll(b, store.NewEncoder(EncoderConfig{}), items, false)
		var wire int64
		stop := cpu(b, size)
		for b.Loop() {
			e := store.NewEncoder(EncoderConfig{})
			_, wire = encodeAll(b, e, items, false)
			e.Close()
		}
		stop()
		b.ReportMetric(100*float64(wire)/float64(size), "%left")
	})
	b.Run("content=rewritten", func(b *testing.B) {
		b.SetBytes(size)
		e := NewStore(Config{}).NewEncoder(EncoderConfig{})
		encodeAll(b, e, items, false)
		var wire int64
		var spent time.Duration
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			again := rewrite(items, byte(i))
			start := used(b)
			b.StartTimer()
			_, wire = encodeAll(b, e, again, false)
			b.StopTimer()
			spent += used(b) - start
			b.StartTimer()
		}
		b.ReportMetric(float64(size)*float64(b.N)/1e6/spent.Seconds(), "MB/cpu-s")
		b.ReportMetric(100*float64(wire)/float64(size), "%left")
	})
}

func BenchmarkDecode(b *testing.B) {
	items := corpus(b)
	size := streamSize(items)
	for _, s := range settings {
		b.Run("content=new/codec="+s.name, func(b *testing.B) {
			from := NewStore(Config{})
			msgs, _ := encodeAll(b, from.NewEncoder(EncoderConfig{Setting: s.set}), items, true)
			b.SetBytes(size)
			var dst []byte
			stop := cpu(b, size)
			for b.Loop() {
				d := NewStore(Config{}).NewDecoder(DecoderConfig{})
				dst = decodeAll(b, d, dst, msgs)
				d.Close()
			}
			stop()
		})
	}
	for _, kind := range []string{"known", "rewritten"} {
		b.Run("content="+kind, func(b *testing.B) {
			from, to := NewStore(Config{}), NewStore(Config{})
			e, d := from.NewEncoder(EncoderConfig{}), to.NewDecoder(DecoderConfig{})
			first, _ := encodeAll(b, e, items, true)
			dst := decodeAll(b, d, nil, first)
			b.SetBytes(size)
			var spent time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				in := items
				if kind == "rewritten" {
					in = rewrite(items, byte(i))
				}
				msgs, _ := encodeAll(b, e, in, true)
				start := used(b)
				b.StartTimer()
				dst = decodeAll(b, d, dst, msgs)
				b.StopTimer()
				spent += used(b) - start
				b.StartTimer()
			}
			b.ReportMetric(float64(size)*float64(b.N)/1e6/spent.Seconds(), "MB/cpu-s")
		})
	}
}

// decodeAll rebuilds the stream of msgs, batch by batch in dst.
func decodeAll(tb testing.TB, d *Decoder, dst []byte, msgs [][]byte) []byte {
	for _, msg := range msgs {
		x, err := Expand(msg)
		if err != nil {
			tb.Fatal(err)
		}
		if dst, _, err = d.Decode(dst[:0], x); err != nil {
			tb.Fatal(err)
		}
	}
	return dst
}
