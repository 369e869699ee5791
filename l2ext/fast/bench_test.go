package fast

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// BenchmarkSeal packs and seals frames for datagrams of 1452 bytes.
func BenchmarkSeal(b *testing.B) {
	for _, n := range []int{90, 1514, 65226} {
		b.Run(fmt.Sprintf("frame=%d", n), func(b *testing.B) {
			s, err := NewSealer(secret, way, 1)
			if err != nil {
				b.Fatal(err)
			}
			p := NewPacker(new(atomic.Uint32), func([]byte, int) { s.used.Store(0) })
			p.Start(s, 1452)
			msg := message(OffloadLen+n, 1)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				p.Add(Record{VNI: 1}, msg)
			}
		})
	}
}

// BenchmarkOpen opens datagrams and joins them to frames.
func BenchmarkOpen(b *testing.B) {
	s, o := ends(b)
	var wire [][]byte
	p := NewPacker(new(atomic.Uint32), packets(&wire))
	p.Start(s, 1452)
	p.Add(Record{VNI: 1}, message(OffloadLen+65226, 1))
	p.Flush()
	var j Joiner
	tmp := make([]byte, 1472)
	b.SetBytes(65226)
	b.ReportAllocs()
	for b.Loop() {
		o.window = window{}
		done := false
		for _, d := range wire {
			_, msg, plain, err := j.Open(o, append(tmp[:0], d...))
			if err != nil {
				b.Fatal(err)
			}
			for len(plain) > 0 {
				r, n, err := Parse(plain)
				if err != nil {
					b.Fatal(err)
				}
				plain = plain[n:]
				if _, err := j.Add(r); err != nil {
					b.Fatal(err)
				}
			}
			done = done || msg != nil
		}
		if !done {
			b.Fatal("the frame is not whole")
		}
	}
}
