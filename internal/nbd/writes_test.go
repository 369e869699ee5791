package nbd

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// A client says what an NBD client does.
type client struct{ b []byte }

func (c *client) greet() *client {
	c.b = append(c.b, 0, 0, 0, flagFixedNewstyle|flagNoZeroes)
	c.b = option(c.b, optionStructuredReply, nil)
	c.b = option(c.b, optionGo, append(text(nil, "drive-virtio-disk0"), 0, 1, 0, 3))
	return c
}

func (c *client) request(command uint16, off, n uint64) *client {
	c.b = request(c.b, command, 7, int64(off), int(n))
	return c
}

func (c *client) extended(command uint16, off, n uint64) *client {
	b := binary.BigEndian.AppendUint32(c.b, magicExtended)
	b = binary.BigEndian.AppendUint32(b, uint32(command))
	b = binary.BigEndian.AppendUint64(b, 7)
	b = binary.BigEndian.AppendUint64(b, off)
	c.b = binary.BigEndian.AppendUint64(b, n)
	return c
}

func (c *client) flags(f uint16) *client { // of the extended request that was just made
	binary.BigEndian.PutUint16(c.b[len(c.b)-extendedLen+4:], f)
	return c
}

func (c *client) data(b []byte) *client { c.b = append(c.b, b...); return c }

// noise is bytes that seldom repeat.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 17))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// bytesOnly is a scanner of what is not understood.
type bytesOnly struct{}

func (bytesOnly) Next(b []byte) (page.Item, int) {
	n := min(len(b), maxBytes)
	return page.Item{Kind: page.Opaque, Data: b[:n]}, n
}
func (bytesOnly) Cut(b []byte) page.Item { return page.Item{Kind: page.Opaque, Data: b} }
func (bytesOnly) Facts() page.Facts      { return page.Facts{} }

// cutUp gives a stream to s in pieces, of which size tells the length, and cuts
// where cut says so. It returns the items, with copies of their data.
func cutUp(tb testing.TB, s page.Scanner, stream []byte, size func() int, cut func() bool) (items []page.Item) {
	tb.Helper()
	var buf, out []byte
	take := func(it page.Item, n int) {
		if it.Len() != n || n == 0 || n > page.MaxItem || len(it.Head) > 0 {
			tb.Fatalf("at %d: item of %d bytes, n is %d", len(out), it.Len(), n)
		}
		if it.Kind == page.Full && (n != page.Size || it.Addr.Offset%page.Size != 0 || it.Addr.Space != 1) {
			tb.Fatalf("at %d: page of %d bytes at %+v", len(out), n, it.Addr)
		}
		it.Data = bytes.Clone(it.Data)
		items, out = append(items, it), append(out, it.Data...)
		clear(buf[:n]) // as the owner of the buffer may do
		buf = buf[n:]
	}
	for len(stream) > 0 || len(buf) > 0 {
		n := min(len(stream), size())
		buf = append(bytes.Clone(buf), stream[:n]...)
		stream = stream[n:]
		for len(buf) > 0 {
			it, n := s.Next(buf)
			if n == 0 {
				break
			}
			take(it, n)
		}
		if len(buf) >= page.Size {
			tb.Fatalf("at %d: it wants more than %d bytes", len(out), len(buf))
		}
		if len(buf) > 0 && (len(stream) == 0 || cut()) {
			take(s.Cut(buf), len(buf))
		}
	}
	return items
}

func whole() int  { return page.MaxItem }
func never() bool { return false }

// stream is the concatenation of items.
func stream(items []page.Item) (b []byte) {
	for _, it := range items {
		b = append(b, it.Data...)
	}
	return b
}

// TestWrites: whole blocks are pages at their address; everything leaves as it came.
func TestWrites(t *testing.T) {
	disk := noise(1, 5*page.Size)
	for _, tt := range []struct {
		name string
		said *client
		at   []uint64 // offsets of pages
		lost bool
	}{
		{"whole blocks", new(client).greet().request(commandWrite, 8192, 3*page.Size).data(disk[:3*page.Size]), []uint64{8192, 12288, 16384}, false},
		{"within blocks", new(client).greet().request(commandWrite, 8192-512, 2*page.Size).data(disk[:2*page.Size]), []uint64{8192}, false},
		{"less than one", new(client).greet().request(commandWrite, 512, 1024).data(disk[:1024]), nil, false},
		{"nothing", new(client).greet().request(commandWrite, 0, 0).request(commandWrite, 4096, page.Size).data(disk[:page.Size]), []uint64{4096}, false},
		{"extended", new(client).greet().extended(commandWrite, 1<<40, page.Size).data(disk[:page.Size]).extended(3, 0, 0), []uint64{1 << 40}, false},
		{"other requests", new(client).greet().request(commandWriteZeroes, 0, 32<<20).request(commandTrim, 1<<30, 65536).request(3, 0, 0).
			request(commandWrite, 0, page.Size).data(disk[:page.Size]).request(commandDisconnect, 0, 0), []uint64{0}, false},
		{"a payload that is not written", new(client).greet().extended(commandBlockStatus, 0, 16).flags(flagPayload).data(make([]byte, 16)).
			extended(commandBlockStatus, 0, 1<<20).extended(commandWrite, 0, page.Size).flags(flagPayload).data(disk[:page.Size]), []uint64{0}, false},
		{"TLS that is refused", &client{append(option([]byte{0, 0, 0, 3}, optionStartTLS, nil), new(client).greet().request(commandWrite, 0, page.Size).data(disk[:page.Size]).b[greetingLen:]...)}, []uint64{0}, false},
		{"the end of addresses", new(client).greet().extended(commandWrite, 1<<64-page.Size, 2*page.Size).data(disk[:2*page.Size]), []uint64{1<<64 - page.Size, 0}, false},
		{"no client", &client{[]byte("GET / HTTP/1.1\r\n")}, nil, true},
		{"no option", new(client).data([]byte{0, 0, 0, 1}).data([]byte("IHAVENOT")), nil, true},
		{"no request", new(client).greet().request(commandWrite, 0, page.Size).data(disk[:page.Size]).data([]byte("what is this?")), []uint64{0}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := NewWrites(bytesOnly{})
			items := cutUp(t, w, tt.said.b, whole, never)
			if !bytes.Equal(stream(items), tt.said.b) {
				t.Error("the stream came out changed")
			}
			var at []uint64
			for _, it := range items {
				if it.Kind == page.Full {
					at = append(at, it.Addr.Offset)
				}
			}
			if !slices.Equal(at, tt.at) {
				t.Errorf("pages at %v, want %v", at, tt.at)
			}
			if f := w.Facts(); f.Format != "nbd" || f.Pages != uint64(len(tt.at)) || (f.Lost != "") != tt.lost {
				t.Errorf("facts %+v", f)
			}
		})
	}
}

// TestMirror: of what QEMU 7.2 has said while blockdev-mirror copied realDisk to an
// export and was then completed, every block is a page.
func TestMirror(t *testing.T) {
	said, err := os.ReadFile("testdata/mirror-7.2")
	if err != nil {
		t.Fatal(err)
	}
	want := realDisk()
	got := make([]byte, len(want))
	w := NewWrites(bytesOnly{})
	for _, it := range cutUp(t, w, said, whole, never) {
		if it.Kind == page.Full {
			copy(got[it.Addr.Offset:], it.Data)
		}
	}
	if last := len(want) &^ (page.Size - 1); !bytes.Equal(got[:last], want[:last]) { // the rest is no whole block
		t.Error("the pages are not the disk")
	}
	if f := w.Facts(); f.Lost != "" {
		t.Errorf("lost: %s", f.Lost)
	}
}

// TestWritesCut: wherever the stream is cut, at most the block there is not seen as
// a page; everything after it is.
func TestWritesCut(t *testing.T) {
	said := new(client).greet().request(commandWrite, 4096, page.Size).data(noise(1, page.Size)).
		extended(commandWrite, 65536, 2*page.Size).data(noise(2, 2*page.Size)).request(3, 0, 0).request(commandWrite, 0, page.Size).data(noise(3, page.Size)).b
	for at := 1; at < len(said); at++ {
		if at%50 != 0 && at%page.Size > 300 { // far from any beginning
			continue
		}
		w := NewWrites(bytesOnly{})
		first := true
		size := func() int {
			if first {
				return at
			}
			return whole()
		}
		cut := func() bool { c := first; first = false; return c }
		items := cutUp(t, w, said, size, cut)
		if f := w.Facts(); f.Lost != "" || f.Pages < 3 || !bytes.Equal(stream(items), said) {
			t.Fatalf("cut at %d of %d: %+v", at, len(said), f)
		}
	}
}

// TestWritesCutUnseen: what Next has not seen may be cut off as well, as what ends a
// silence is; what follows is understood.
func TestWritesCutUnseen(t *testing.T) {
	first := new(client).greet().request(commandWrite, 4096, 2*page.Size).data(noise(1, 2*page.Size)).b
	said := new(client).data(first).request(commandWrite, 0, page.Size).data(noise(2, page.Size)).b
	for at := 1; at <= len(first); at++ {
		if at > 300 && at%100 != 0 && at < len(first)-2 {
			continue
		}
		w := NewWrites(bytesOnly{})
		if it := w.Cut(said[:at]); it.Kind != page.Opaque || !bytes.Equal(it.Data, said[:at]) {
			t.Fatalf("cut at %d: kind %d, %d bytes", at, it.Kind, len(it.Data))
		}
		pages := uint64(0)
		for _, it := range cutUp(t, w, said[at:], whole, never) {
			if it.Kind == page.Full {
				pages++
			}
		}
		if f := w.Facts(); f.Lost != "" || pages < 1 || f.Pages != pages {
			t.Fatalf("cut at %d of %d: %d pages, %+v", at, len(said), pages, f)
		}
	}
	w := NewWrites(bytesOnly{})
	for _, what := range []string{"\x00\x00\x00\x03no option", "and more"} {
		if it := w.Cut([]byte(what)); string(it.Data) != what || w.Facts().Lost == "" {
			t.Errorf("of %q %q is cut: %+v", what, it.Data, w.Facts())
		}
	}
}

// TestWritesTLS: of a client that goes over to TLS it is told why nothing is understood.
func TestWritesTLS(t *testing.T) {
	const hello = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
	for name, tt := range map[string]struct {
		said []byte
		tls  bool
	}{
		"asked for": {append(option([]byte{0, 0, 0, 3}, optionStartTLS, nil), hello...), true},
		"not asked": {append(option([]byte{0, 0, 0, 3}, optionStructuredReply, nil), hello...), false},
	} {
		w := NewWrites(bytesOnly{})
		if got := stream(cutUp(t, w, tt.said, whole, never)); !bytes.Equal(got, tt.said) {
			t.Errorf("%s: the stream came out changed", name)
		}
		if lost := w.Facts().Lost; lost == "" || strings.Contains(lost, "encrypted") != tt.tls {
			t.Errorf("%s: lost: %q", name, lost)
		}
	}
}

// TestWritesHurry: what a client waits for with nothing else under way leaves at once.
func TestWritesHurry(t *testing.T) {
	said := new(client).greet().request(commandWriteZeroes, 0, 1<<20).request(commandWrite, 0, page.Size).data(noise(1, page.Size)).request(3, 0, 0).b
	var got []bool
	for _, it := range cutUp(t, NewWrites(bytesOnly{}), said, whole, never) {
		got = append(got, it.Mark&page.Flush != 0)
	}
	//                 flags option option data zero  write  page   flush
	if want := []bool{true, true, false, true, false, false, false, true}; !slices.Equal(got, want) {
		t.Errorf("at once: %v, want %v", got, want)
	}
}

func TestMayBeClient(t *testing.T) {
	said := new(client).greet().b
	for n := range 40 {
		if may, sure := MayBeClient(said[:n]); may != (n >= 4) || sure != (n >= 12) {
			t.Errorf("%d bytes: %v, %v", n, may, sure)
		}
	}
	for _, b := range []string{"\x00\x00\x00\x02IHAVEOPT", "\x00\x00\x00\x05IHAVEOPT", "\x00\x00\x00\x01IHAVENOT", "\x00\x00\x00\x01\x00", "QEVM"} {
		if may, sure := MayBeClient([]byte(b)); may || sure {
			t.Errorf("%q is taken for a client", b)
		}
	}
}

// FuzzWrites: no stream, however it arrives, comes out changed, and with cuts only
// at where the scanner waits it is understood as without.
func FuzzWrites(f *testing.F) {
	real, err := os.ReadFile("testdata/mirror-7.2")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(real[:12<<10], uint64(0))
	f.Add(new(client).greet().request(commandWrite, 512, 2*page.Size).data(noise(1, 2*page.Size)).request(3, 0, 0).b, uint64(1))
	f.Add(new(client).greet().extended(commandWrite, 1<<64-100, 2*page.Size).data(noise(1, 2*page.Size)).b, uint64(2))
	f.Add(new(client).greet().request(commandWrite, 0, 1<<31).data(noise(1, 100)).b, uint64(3))
	f.Add([]byte("\x00\x00\x00\x01nothing of the kind"), uint64(4))
	f.Fuzz(func(t *testing.T, said []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 5))
		size := func() int { return 1 + r.IntN(1+len(said)/4) }
		plain, split, cut := NewWrites(bytesOnly{}), NewWrites(bytesOnly{}), NewWrites(bytesOnly{})
		for _, got := range [][]page.Item{
			cutUp(t, plain, said, whole, never), cutUp(t, split, said, size, never), cutUp(t, cut, said, size, func() bool { return r.IntN(2) == 0 }),
		} {
			if !bytes.Equal(stream(got), said) {
				t.Fatal("the stream came out changed")
			}
		}
		if plain.Facts() != split.Facts() || plain.Facts().Lost != cut.Facts().Lost {
			t.Errorf("in one piece %+v, in several %+v, with cuts %+v", plain.Facts(), split.Facts(), cut.Facts())
		}
		// Cut at any time, also what Next would take.
		w := NewWrites(bytesOnly{})
		for b := said; len(b) > 0; {
			n := 1 + r.IntN(len(b))
			it := page.Item{Data: b[:0]}
			if r.IntN(2) > 0 {
				it, n = w.Next(b[:n])
			} else {
				it = w.Cut(b[:n])
			}
			if !bytes.Equal(it.Data, b[:n]) {
				t.Fatal("the stream came out changed")
			}
			b = b[n:]
		}
		if plain.Facts().Lost != w.Facts().Lost {
			t.Errorf("in one piece %+v, cut at any time %+v", plain.Facts(), w.Facts())
		}
	})
}
