package dedup

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// header is like that of a multifd packet: counters, a name, the offsets of
// pages in a row, and what an earlier packet has left behind them.
func header(n, first, pages int) []byte {
	b := make([]byte, 1344)
	binary.BigEndian.PutUint64(b, 0x1122334400000001)
	binary.BigEndian.PutUint64(b[24:], uint64(n))
	copy(b[64:], "pc.ram")
	for i := range 128 {
		at := uint64(first+i) * page.Size
		if i >= pages {
			at = uint64(i) * 999 * page.Size
		}
		binary.BigEndian.PutUint64(b[320+8*i:], at)
	}
	return b
}

func TestTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{})
	add := func(b []byte) { w.add(page.Item{Kind: page.Table, Data: b}) }
	for n := range 200 {
		add(header(n, n*128, 128))
	}
	w.flush()
	if w.sent > 200*12 {
		t.Errorf("%d bytes for 200 headers of pages in a row", w.sent)
	}
	for n := range 200 { // of any length and content
		b := make([]byte, rng.IntN(2000))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		add(b)
		add(header(n, rng.IntN(1<<20), rng.IntN(129)))
		w.add(opaqueItem(b))
	}
	add(bytes.Repeat([]byte{7}, maxTable))
	add(bytes.Repeat([]byte{7}, maxTable+8))
	w.close()
}

func FuzzTable(f *testing.F) {
	f.Add(header(1, 2, 128), header(2, 130, 128))
	f.Add([]byte{}, header(1, 2, 3)[:24])
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var enc, dec table
		for _, b := range [][]byte{one, two, one} {
			b = b[:len(b)&^7]
			r := enc.code(nil, b)
			if dec.decode(r); !bytes.Equal(r, b) {
				t.Fatalf("%x came out as %x", b, r)
			}
		}
	})
}

func BenchmarkTable(b *testing.B) {
	var x table
	h := header(1, 2, 128)
	var out []byte
	b.SetBytes(int64(len(h)))
	b.ReportAllocs()
	for b.Loop() {
		out = x.code(out[:0], h)
	}
}
