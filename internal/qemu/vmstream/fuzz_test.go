package vmstream

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// scanners are those that parse; the number of one is part of a fuzz input.
var scanners = [...]func() page.Scanner{
	New, NewPreempt,
	func() page.Scanner { return NewRecover(nil) },
	multifd, NewOpaque,
}

// FuzzScanner checks that no stream, however it arrives, comes out changed,
// that each page record can be rebuilt from what its item says, and that
// the scanner stays within its memory.
func FuzzScanner(f *testing.F) {
	for _, s := range seeds(f) {
		for kind := range scanners {
			f.Add(s[:min(len(s), 24<<10)], uint8(kind), uint64(0))
		}
		f.Add(s[:min(len(s), 3<<10)], uint8(0), uint64(1))
	}
	for i, w := range []*builder{
		rounds(build().header("x").start(ramBlock, biosBlock)).tail(), resumed(), liveSections(build().header("x")), mapped(),
	} {
		f.Add(w.b, uint8(i), uint64(2))
	}
	f.Fuzz(func(t *testing.T, stream []byte, kind uint8, seed uint64) {
		fresh := scanners[int(kind)%len(scanners)]
		plain := fuzzed(t, fresh, stream, seed)
		if plain.facts.Format == "qemu-multifd" {
			checkPackets(t, plain)
		} else {
			checkRecords(t, plain)
		}
	})
}

// FuzzMultifd is FuzzScanner for multifd channels only.
func FuzzMultifd(f *testing.F) {
	for _, s := range seeds(f) {
		if recognised(s).Facts().Format == "qemu-multifd" {
			f.Add(s[:min(len(s), 24<<10)], uint64(0))
		}
	}
	for i, w := range []*builder{oldMultifd(build()), newMultifd(build()), zipped(methodZlib), zipped(methodUADK)} {
		f.Add(w.b, uint64(i))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		checkPackets(t, fuzzed(t, multifd, stream, seed))
	})
}

// fuzzed checks what must hold for any stream and any scanner.
func fuzzed(t *testing.T, fresh func() page.Scanner, stream []byte, seed uint64) *found {
	t.Helper()
	plain := scan(t, fresh(), stream, whole, never)
	r := rand.New(rand.NewPCG(seed, 3))
	size := func() int { return 1 + r.IntN(1+len(stream)/8) }
	split := scan(t, fresh(), stream, size, never)
	cut := scan(t, fresh(), stream, size, func() bool { return r.IntN(2) == 0 })
	for _, got := range []*found{plain, split, cut} {
		if !bytes.Equal(got.bytes, stream) {
			t.Fatal("stream came out changed")
		}
		checkMarks(t, got)
	}
	if plain.facts != split.facts {
		t.Errorf("in one piece %+v, in several %+v", plain.facts, split.facts)
	}
	if plain.facts.Lost != cut.facts.Lost && plain.facts.Format == "qemu-multifd" {
		t.Errorf("lost because of %q, with cuts %q", plain.facts.Lost, cut.facts.Lost)
	}
	hostile(t, fresh(), stream, r)
	return plain
}

// checkRecords rebuilds the word of each page record from its item.
func checkRecords(t *testing.T, f *found) {
	t.Helper()
	for i, it := range f.items {
		if it.Kind == page.Opaque || it.Kind == page.Chunk {
			continue
		}
		head := f.bytes[f.at[i] : f.at[i]+len(it.Head)]
		flags := uint64(ramPage)
		switch it.Kind {
		case page.Zero:
			flags = ramZero
		case page.XBZRLE:
			flags = ramXBZRLE
		}
		if len(head) == wordSize {
			flags |= ramContinue
		} else if int(head[wordSize]) != len(head)-wordSize-1 {
			t.Fatalf("item at %d: head %x", f.at[i], head)
		}
		if w := binary.BigEndian.Uint64(head); w != it.Addr.Offset|flags {
			t.Fatalf("item at %d: word %#x, address %#x, flags %#x", f.at[i], w, it.Addr.Offset, flags)
		}
	}
}

// checkMarks checks that nothing that is held stays held for ever while more
// of the stream goes out.
func checkMarks(t *testing.T, f *found) {
	t.Helper()
	held := 0
	for i, it := range f.items {
		if it.Mark&page.Hold == 0 {
			held = 0
		} else if held += it.Len(); held > maxHold+maxOpaque {
			t.Fatalf("item at %d: %d bytes are held", f.at[i], held)
		}
	}
}

// hostile calls Cut at any time, which the contract does not ask for, and
// checks that nothing worse than opaque bytes comes of it.
func hostile(t *testing.T, s page.Scanner, stream []byte, r *rand.Rand) {
	t.Helper()
	for b := stream; len(b) > 0; {
		n := 1 + r.IntN(len(b))
		if r.IntN(2) == 0 {
			if it := s.Cut(b[:n]); !bytes.Equal(it.Data, b[:n]) || len(it.Head) > 0 {
				t.Fatal("Cut changed the stream")
			}
			b = b[n:]
		} else if it, n := s.Next(b[:n]); it.Len() != n {
			t.Fatalf("item of %d bytes, n is %d", it.Len(), n)
		} else {
			b = b[n:]
		}
		checkMemory(t, s)
	}
}
