package frame

import "testing"

// BenchmarkChunk writes and reads a chunk's header and its data, as a data
// stream does.
func BenchmarkChunk(b *testing.B) {
	c := Chunk{Channel: 1, Seq: 2, Total: MaxMessage, Len: 8 * Cell}
	data := make([]byte, c.Len)
	dst := make([]byte, len(data))
	var buf []byte
	b.SetBytes(int64(c.Len))
	b.ReportAllocs()
	for b.Loop() {
		buf = append(c.Append(buf[:0]), data...)
		got, n, err := ParseChunk(buf)
		if err != nil || got != c {
			b.Fatal(got, err)
		}
		copy(dst, buf[n:])
	}
}

// BenchmarkControl writes and reads the control frame of which there are most.
func BenchmarkControl(b *testing.B) {
	f := Ack{Channel: 1, Received: 10, Done: 9, Window: 1 << 20}
	var buf []byte
	b.SetBytes(int64(len(f.Append(nil))))
	b.ReportAllocs()
	for b.Loop() {
		buf = f.Append(buf[:0])
		if got, _, err := Parse(buf); err != nil || got != Frame(f) {
			b.Fatal(got, err)
		}
	}
}
