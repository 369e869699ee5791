package vmstream

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// found is what a scanner made of a stream.
type found struct {
	bytes []byte
	items []page.Item // Head and Data are invalid
	at    []int       // offset of each item
	facts page.Facts
}

func (f *found) add(it page.Item) {
	f.at = append(f.at, len(f.bytes))
	f.bytes = append(append(f.bytes, it.Head...), it.Data...)
	f.items = append(f.items, it)
}

// scan gives stream to s in pieces of the lengths that size returns, and cuts
// when cut says so. The buffer moves and is overwritten behind the scanner's back,
// as its owner may do.
func scan(t testing.TB, s page.Scanner, stream []byte, size func() int, cut func() bool) *found {
	t.Helper()
	f := &found{}
	var buf []byte
	take := func(it page.Item, n int) {
		if it.Len() != n || n == 0 || n > page.MaxItem {
			t.Fatalf("at %d: item of %d bytes, n is %d", len(f.bytes), it.Len(), n)
		}
		checkItem(t, it)
		f.add(it)
		clear(buf[:n])
		buf = buf[n:]
	}
	for rest := stream; len(rest) > 0 || len(buf) > 0; {
		n := min(len(rest), size())
		buf = longer(buf, rest[:n])
		rest = rest[n:]
		for len(buf) > 0 {
			it, n := s.Next(buf)
			if n == 0 {
				break
			}
			take(it, n)
		}
		if len(buf) >= page.MaxItem {
			t.Fatalf("at %d: the scanner wants more than %d bytes", len(f.bytes), len(buf))
		}
		if len(buf) > 0 && (len(rest) == 0 || cut()) {
			take(s.Cut(buf), len(buf))
		}
		checkMemory(t, s)
	}
	f.facts = s.Facts()
	return f
}

// longer adds a piece to a buffer. One that has no room for it moves, and nothing is
// left where it was. To move it at each piece would copy a stream of long items some
// hundred times.
func longer(buf, piece []byte) []byte {
	n := len(buf) + len(piece)
	if n <= cap(buf) {
		return append(buf, piece...)
	}
	moved := append(make([]byte, 0, 2*n), buf...)
	clear(buf)
	return append(moved, piece...)
}

// checkItem checks what must hold for any item of any stream.
func checkItem(t testing.TB, it page.Item) {
	t.Helper()
	switch it.Kind {
	case page.Opaque:
		if len(it.Head) > 0 {
			t.Fatalf("opaque item with a head of %d bytes", len(it.Head))
		}
	case page.Full:
		if len(it.Data) != page.Size || it.Addr.Offset%page.Size != 0 || len(it.Head) > 0 && len(it.Head) < wordSize {
			t.Fatalf("page of %d bytes at %+v, head %x", len(it.Data), it.Addr, it.Head)
		}
	case page.Zero:
		if !bytes.Equal(it.Data, []byte{0}) || len(it.Head) < wordSize {
			t.Fatalf("zero page with head %x, data %x", it.Head, it.Data)
		}
	case page.XBZRLE:
		if n := len(it.Data) - xbzrleHead; n < 0 || n > page.Size || it.Data[0] != xbzrleEncoding ||
			int(binary.BigEndian.Uint16(it.Data[1:])) != n || len(it.Head) < wordSize || it.Addr.Offset%page.Size != 0 {
			t.Fatalf("difference of %d bytes at %+v, head %x", n, it.Addr, it.Head)
		}
	case page.Chunk:
		if len(it.Head) > 0 || len(it.Data) == 0 {
			t.Fatalf("chunk of %d bytes, with a head of %d", len(it.Data), len(it.Head))
		}
	case page.Table:
		if len(it.Data) == 0 || len(it.Data)%8 != 0 || len(it.Head) > 0 {
			t.Fatalf("table of %d bytes, with a head of %d", len(it.Data), len(it.Head))
		}
	default:
		t.Fatalf("item of kind %d", it.Kind)
	}
}

// checkMemory checks that s remembers no more than it may.
func checkMemory(t testing.TB, s page.Scanner) {
	t.Helper()
	if m, ok := s.(*Multifd); ok && len(m.ram.blocks) > maxBlocks {
		t.Fatalf("scanner holds %d blocks", len(m.ram.blocks))
	}
	p, ok := s.(*parser)
	if !ok {
		return
	}
	if len(p.carry) >= lookahead || cap(p.carry) > 2*lookahead || len(p.ram.blocks) > maxBlocks || len(p.live.kinds) > maxLive {
		t.Fatalf("scanner holds %d (%d) bytes, %d blocks, %d sections",
			len(p.carry), cap(p.carry), len(p.ram.blocks), len(p.live.kinds))
	}
}

func whole() int  { return 1 << 18 }
func never() bool { return false }

// count is how many items of a kind were found.
func (f *found) count(k page.Kind) (n int) {
	for _, it := range f.items {
		if it.Kind == k {
			n++
		}
	}
	return n
}

// sealAt is the offset of the first item with Seal, or -1.
func (f *found) sealAt() int {
	for i, it := range f.items {
		if it.Mark&page.Seal != 0 {
			return f.at[i]
		}
	}
	return -1
}

// checkSplits scans stream in random pieces, with and without cuts.
func checkSplits(t *testing.T, fresh func() page.Scanner, stream []byte, rounds int) {
	t.Helper()
	want := scan(t, fresh(), stream, whole, never)
	least := bits.Len(uint(len(stream) / 4096)) // pieces of a byte only for short streams
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 1))
		most := 1 << (least + r.IntN(18-least))
		f := scan(t, fresh(), stream, func() int { return 1 + r.IntN(most) }, never)
		if !bytes.Equal(f.bytes, stream) {
			t.Fatalf("seed %d: stream came out changed", seed)
		}
		if f.facts != want.facts {
			t.Errorf("seed %d: facts %+v, in one piece %+v", seed, f.facts, want.facts)
		}
		if f.sealAt() != want.sealAt() {
			t.Errorf("seed %d: seal at %d, in one piece %d", seed, f.sealAt(), want.sealAt())
		}
		f = scan(t, fresh(), stream, func() int { return 1 + r.IntN(most) }, func() bool { return r.IntN(4) == 0 })
		if !bytes.Equal(f.bytes, stream) {
			t.Fatalf("seed %d, with cuts: stream came out changed", seed)
		}
		if f.facts.Lost != want.facts.Lost || f.facts.Machine != want.facts.Machine || f.facts.Rounds != want.facts.Rounds {
			t.Errorf("seed %d, with cuts: facts %+v, want %+v", seed, f.facts, want.facts)
		}
	}
}
