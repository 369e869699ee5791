package dedup

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/page"
)

// BenchmarkSetting is what each setting costs and saves, step by step: what the
// gateway's table of settings is made from. encode is the serial step, per byte
// of stream; codec is the parallel one, per byte that it compresses. The stream
// is that of LONGHAUL_STREAM, after that of LONGHAUL_KNOWN if that is set.
func BenchmarkSetting(b *testing.B) {
	items := corpus(b)
	var known []page.Item
	if name := os.Getenv("LONGHAUL_KNOWN"); name != "" {
		known = captured(b, name)
	}
	size := streamSize(items)
	for _, bases := range []int{NoSearch, 1, 2, 4} {
		var columns [][]byte
		name := fmt.Sprintf("bases=%d", max(bases, 0))
		b.Run(name+"/encode", func(b *testing.B) {
			b.SetBytes(size)
			var spent time.Duration
			for b.Loop() {
				b.StopTimer()
				store := NewStore(Config{Budget: 2 << 30})
				encodeAll(b, store.NewEncoder(EncoderConfig{Setting: Setting{Codec: Raw}}), known, false)
				e := store.NewEncoder(EncoderConfig{Setting: Setting{Codec: Raw, Bases: bases}})
				b.StartTimer()
				columns, spent = encodeOnly(b, e, items)
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(size), "cpu-ns/B")
		})
		plain := int64(0)
		for _, c := range columns {
			plain += int64(len(c))
		}
		for _, s := range settings {
			b.Run(name+"/codec="+s.name, func(b *testing.B) { compressAll(b, columns, plain, size, s.set) })
		}
	}
}

// encodeOnly returns the columns of all batches, and the CPU time without that
// of copying them.
func encodeOnly(b *testing.B, e *Encoder, items []page.Item) (columns [][]byte, spent time.Duration) {
	start := used(b)
	for i, it := range items {
		if !e.Add(it) && i < len(items)-1 {
			continue
		}
		for batch := e.Cut(); batch != nil; batch = e.Cut() {
			spent += used(b) - start
			f := batch.bufs
			for _, c := range [][]byte{f.ops, f.deltas, f.literals, f.opaque} {
				columns = append(columns, append([]byte(nil), c...))
			}
			if _, err := batch.Compress(); err != nil {
				b.Fatal(err)
			}
			e.Acked(batch.Seq)
			start = used(b)
		}
	}
	return columns, spent
}

func compressAll(b *testing.B, columns [][]byte, plain, size int64, set Setting) {
	b.SetBytes(plain)
	var c compressors
	var scratch []byte
	var left int64
	start := used(b)
	for b.Loop() {
		left = 0
		for _, col := range columns {
			part, s, err := c.column(col, scratch[:0], set)
			if err != nil {
				b.Fatal(err)
			}
			left, scratch = left+int64(len(part.Data)), s
		}
	}
	b.ReportMetric(float64((used(b)-start).Nanoseconds())/float64(b.N)/float64(plain), "cpu-ns/B")
	b.ReportMetric(100*float64(left)/float64(plain), "%left")
	b.ReportMetric(100*float64(left)/float64(size), "%left-of-stream")
}

// BenchmarkNoise is what it costs to find out that a column does not compress:
// one of noise, and one in which every second page is.
func BenchmarkNoise(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, fullLiterals)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	mixed := append([]byte(nil), noise...)
	var pages int
	for _, it := range corpus(b) {
		if it.Kind == page.Full && len(it.Data) == page.Size && 2*pages*page.Size < len(mixed) {
			copy(mixed[2*pages*page.Size:], it.Data)
			pages++
		}
	}
	for _, in := range []struct {
		name string
		col  []byte
	}{{"noise", noise}, {"mixed", mixed}} {
		for _, s := range settings {
			b.Run("column="+in.name+"/codec="+s.name, func(b *testing.B) {
				compressAll(b, [][]byte{in.col}, int64(len(in.col)), int64(len(in.col)), s.set)
			})
		}
	}
}
