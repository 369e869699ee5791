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
	x := newEnds(b, items, kind)
	b.SetBytes(size)
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		in := x.round(i)
		if encode {
			b.StartTimer()
		}
		msgs := encodeParallel(b, x.enc, in)
		if !encode {
			b.StartTimer()
		} else {
			b.StopTimer()
		}
		decodeParallel(b, x.dec, msgs)
		b.StartTimer()
	}
}

// ends are both ends of a channel, and what crosses it: items that are known, that
// have been rewritten in part since the last round, or that are new.
type ends struct {
	items []page.Item
	kind  string
	enc   *Encoder
	dec   *Decoder
}

func newEnds(b *testing.B, items []page.Item, kind string) *ends {
	x := &ends{items: items, kind: kind}
	x.forget()
	if kind != "new" {
		decodeParallel(b, x.dec, encodeParallel(b, x.enc, items))
	}
	return x
}

// forget gives both ends empty stores.
func (x *ends) forget() {
	x.enc = NewStore(Config{}).NewEncoder(EncoderConfig{})
	x.dec = NewStore(Config{}).NewDecoder(DecoderConfig{})
}

// round makes the ends ready for a round, and returns what crosses in it.
func (x *ends) round(i int) []page.Item {
	in := x.items
	switch x.kind {
	case "rewritten":
		in = rewrite(in, byte(i))
	case "new":
		x.forget()
	}
	runtime.GC()
	return in
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
			x := newEnds(b, items, kind)
			c := costs{b: b}
			for i := 0; b.Loop(); i++ {
				in := x.round(i)
				c.last = thread(b)
				for _, it := range in {
					if x.enc.Add(it) {
						c.cross(x)
					}
				}
				c.cross(x)
			}
			per := func(d time.Duration, unit string) {
				b.ReportMetric(float64(d.Nanoseconds())/float64(size)/float64(b.N), unit)
			}
			per(c.encode, "encode-ordered-ns/B")
			per(c.compress, "encode-parallel-ns/B")
			per(c.resolve, "decode-ordered-ns/B")
			per(c.rebuild, "decode-parallel-ns/B")
		})
	}
}

// costs is the CPU time of each part of both ends.
type costs struct {
	b    *testing.B
	last time.Duration // thread, when a part was last charged

	encode, compress, resolve, rebuild time.Duration
}

// charge charges a part with what was used since the last time. err is how the part
// has ended.
func (c *costs) charge(part *time.Duration, err error) {
	if err != nil {
		c.b.Fatal(err)
	}
	now := thread(c.b)
	*part += now - c.last
	c.last = now
}

// cross takes the batches that are full through both ends.
func (c *costs) cross(x *ends) {
	c.charge(&c.encode, nil)
	for batch := x.enc.Cut(); batch != nil; batch = x.enc.Cut() {
		c.charge(&c.encode, nil)
		msg, err := batch.Compress()
		c.charge(&c.compress, err)
		x.enc.Acked(batch.Seq)
		expanded, err := Expand(msg)
		c.charge(&c.rebuild, err)
		r, err := x.dec.Resolve(expanded)
		c.charge(&c.resolve, err)
		c.charge(&c.rebuild, r.Rebuild())
		_, _, err = r.Take()
		c.charge(&c.resolve, err)
		r.Release()
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
