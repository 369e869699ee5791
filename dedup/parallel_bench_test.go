//go:build linux

package dedup

import (
	"context"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/ordered"
	"github.com/longhaul-project/longhaul/internal/page"
)

// BenchmarkEnds is both ends of a channel as gateways run them: what is serial in
// order, and the rest on all cores. What each end can carry is by the clock; run it
// with -cpu 1,2,4.
func BenchmarkEnds(b *testing.B) {
	items := corpus(b)
	size := streamSize(items)
	for _, kind := range []string{"known", "rewritten", "new"} {
		b.Run("end=encode/content="+kind, func(b *testing.B) { benchEnds(b, items, kind, true, size) })
		b.Run("end=decode/content="+kind, func(b *testing.B) { benchEnds(b, items, kind, false, size) })
	}
}

func benchEnds(b *testing.B, items []page.Item, kind string, encode bool, size int64) {
	from, to := NewStore(Config{}), NewStore(Config{})
	e, d := from.NewEncoder(EncoderConfig{}), to.NewDecoder(DecoderConfig{})
	if kind != "new" {
		decodeParallel(b, d, encodeParallel(b, e, items))
	}
	b.SetBytes(size)
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		in := items
		switch kind {
		case "rewritten":
			in = rewrite(items, byte(i))
		case "new":
			from, to = NewStore(Config{}), NewStore(Config{})
			e, d = from.NewEncoder(EncoderConfig{}), to.NewDecoder(DecoderConfig{})
		}
		runtime.GC()
		if encode {
			b.StartTimer()
		}
		msgs := encodeParallel(b, e, in)
		if !encode {
			b.StartTimer()
		} else {
			b.StopTimer()
		}
		decodeParallel(b, d, msgs)
		b.StartTimer()
	}
}

// encodeParallel is steps 3 and 4 of the path.
func encodeParallel(tb testing.TB, e *Encoder, items []page.Item) (msgs [][]byte) {
	cut := make(chan *Batch)
	go func() {
		defer close(cut)
		send := func() {
			for b := e.Cut(); b != nil; b = e.Cut() {
				cut <- b
			}
		}
		for _, it := range items {
			if e.Add(it) {
				send()
			}
		}
		send()
	}()
	type message struct {
		seq uint64
		msg []byte
	}
	err := ordered.Map(context.Background(), runtime.GOMAXPROCS(0), cut, func(b *Batch) (m message, err error) {
		m.seq = b.Seq
		m.msg, err = b.Compress()
		return m, err
	}, func(m message) error {
		msgs = append(msgs, m.msg)
		e.Acked(m.seq)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return msgs
}

// decodeParallel is step 7 of the path.
func decodeParallel(tb testing.TB, d *Decoder, msgs [][]byte) {
	in, resolved := make(chan []byte), make(chan *Resolved)
	go func() {
		defer close(in)
		for _, msg := range msgs {
			in <- msg
		}
	}()
	go func() {
		defer close(resolved)
		err := ordered.Map(context.Background(), runtime.GOMAXPROCS(0), in, Expand, func(x *Expanded) error {
			r, err := d.Resolve(x)
			resolved <- r
			return err
		})
		if err != nil {
			tb.Error(err)
		}
	}()
	err := ordered.Map(context.Background(), runtime.GOMAXPROCS(0), resolved, func(r *Resolved) (*Resolved, error) {
		return r, r.Rebuild()
	}, func(r *Resolved) error {
		_, _, err := r.Take()
		r.Release()
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkOrdered is what both ends of a channel cost in CPU time, apart for what
// only one core can do and for what all can: the former bounds how fast a channel
// is, however many cores there are.
func BenchmarkOrdered(b *testing.B) {
	items := corpus(b)
	size := streamSize(items)
	for _, kind := range []string{"known", "rewritten", "new"} {
		b.Run("content="+kind, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			from, to := NewStore(Config{}), NewStore(Config{})
			e, d := from.NewEncoder(EncoderConfig{}), to.NewDecoder(DecoderConfig{})
			if kind != "new" {
				decodeParallel(b, d, encodeParallel(b, e, items))
			}
			var encode, compress, decode, rebuild time.Duration
			for i := 0; b.Loop(); i++ {
				in := items
				switch kind {
				case "rewritten":
					in = rewrite(items, byte(i))
				case "new":
					from, to = NewStore(Config{}), NewStore(Config{})
					e, d = from.NewEncoder(EncoderConfig{}), to.NewDecoder(DecoderConfig{})
				}
				runtime.GC()
				start := thread(b)
				lap := func() time.Duration {
					now := thread(b)
					took := now - start
					start = now
					return took
				}
				cross := func() {
					encode += lap()
					for x := e.Cut(); x != nil; x = e.Cut() {
						encode += lap()
						msg, err := x.Compress()
						if err != nil {
							b.Fatal(err)
						}
						compress += lap()
						e.Acked(x.Seq)
						x, err := Expand(msg)
						if err != nil {
							b.Fatal(err)
						}
						rebuild += lap()
						r, err := d.Resolve(x)
						if err != nil {
							b.Fatal(err)
						}
						decode += lap()
						if err := r.Rebuild(); err != nil {
							b.Fatal(err)
						}
						rebuild += lap()
						if _, _, err := r.Take(); err != nil {
							b.Fatal(err)
						}
						decode += lap()
						r.Release()
					}
				}
				for _, it := range in {
					if e.Add(it) {
						cross()
					}
				}
				cross()
			}
			per := func(d time.Duration, unit string) {
				b.ReportMetric(float64(d.Nanoseconds())/float64(size)/float64(b.N), unit)
			}
			per(encode, "encode-ordered-ns/B")
			per(compress, "encode-parallel-ns/B")
			per(decode, "decode-ordered-ns/B")
			per(rebuild, "decode-parallel-ns/B")
		})
	}
}

// thread is the CPU time of the calling thread.
func thread(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
