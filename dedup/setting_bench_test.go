package dedup

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// BenchmarkSetting is what each setting costs and saves, step by step: what the
// gateway's table of settings is made from. encode is the serial step, per byte
// of stream; the codecs are the parallel one, per byte that is compressed, one
// after the other on each batch, so that a machine that is shared is as busy for
// all of them. The stream is that of LONGHAUL_STREAM, after that of
// LONGHAUL_KNOWN if that is set.
func BenchmarkSetting(b *testing.B) {
	items := corpus(b)
	var known []page.Item
	if name := os.Getenv("LONGHAUL_KNOWN"); name != "" {
		known = captured(b, name)
	}
	size := streamSize(items)
	for _, search := range []Setting{
		{Bases: NoSearch},
		{Bases: 1, Anchors: 512}, {Bases: 1, Anchors: 256}, {Bases: 1},
		{Bases: 2, Anchors: 512}, {Bases: 2, Anchors: 256}, {Bases: 2},
		{Bases: 4, Anchors: 512}, {Bases: 4, Anchors: 256}, {Bases: 4},
	} {
		b.Run(fmt.Sprintf("bases=%d/anchors=%d", max(search.Bases, 0), max(search.Anchors, 128)), func(b *testing.B) {
			b.SetBytes(size)
			var m measured
			for b.Loop() {
				store := NewStore(Config{Budget: 2 << 30})
				encodeAll(b, store.NewEncoder(EncoderConfig{Setting: Setting{Codec: Raw}}), known, false)
				m = measure(b, store.NewEncoder(EncoderConfig{Setting: Setting{Codec: Raw, Bases: search.Bases, Anchors: search.Anchors}}), items)
			}
			b.ReportMetric(float64(m.encode.Nanoseconds())/float64(size), "encode-ns/B")
			b.ReportMetric(100*float64(m.plain)/float64(size), "%plain")
			for i, s := range settings[1:] {
				b.ReportMetric(float64(m.codec[i].Nanoseconds())/float64(m.plain), s.name+"-ns/B")
				b.ReportMetric(100*float64(m.left[i])/float64(m.plain), s.name+"-%left")
			}
		})
	}
}

// measured is CPU time and bytes; codecs are settings but raw.
type measured struct {
	encode time.Duration
	plain  int64
	codec  [8]time.Duration
	left   [8]int64
}

func measure(b *testing.B, e *Encoder, items []page.Item) (m measured) {
	start := used(b)
	for i, it := range items {
		if !e.Add(it) && i < len(items)-1 {
			continue
		}
		for batch := e.Cut(); batch != nil; batch = e.Cut() {
			m.encode += used(b) - start
			m.compress(b, batch)
			if _, err := batch.Compress(); err != nil {
				b.Fatal(err)
			}
			e.Acked(batch.Seq)
			start = used(b)
		}
	}
	return m
}

func (m *measured) compress(b *testing.B, batch *Batch) {
	f := batch.bufs
	m.plain += f.plain()
	for i, s := range settings[1:] {
		start := used(b)
		for _, col := range [][]byte{f.ops, f.deltas, f.literals, f.opaque} {
			part, scratch, err := batch.enc.store.compressors.column(col, f.scratch[:0], s.set, len(col))
			if err != nil {
				b.Fatal(err)
			}
			f.scratch = scratch[:0]
			m.left[i] += int64(len(part.Data))
		}
		m.codec[i] += used(b) - start
	}
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
				b.SetBytes(int64(len(in.col)))
				var c compressors
				var part record.Part
				var scratch []byte
				start := used(b)
				for b.Loop() {
					var err error
					if part, scratch, err = c.column(in.col, scratch[:0], s.set, len(in.col)); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64((used(b)-start).Nanoseconds())/float64(b.N)/float64(len(in.col)), "cpu-ns/B")
				b.ReportMetric(100*float64(len(part.Data))/float64(len(in.col)), "%left")
			})
		}
	}
}
