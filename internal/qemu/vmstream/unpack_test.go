package vmstream

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/qemutest"
)

// A packing compresses the payloads of one channel, as QEMU does: one stream,
// flushed after each packet.
type packing struct {
	method uint32
	buf    bytes.Buffer
	w      interface {
		io.Writer
		Flush() error
	}
	pages [][]byte // all pages so far
	seed  uint64
}

func newPacking(tb testing.TB, method uint32) *packing {
	tb.Helper()
	p := &packing{method: method}
	if method == methodZlib {
		p.w = zlib.NewWriter(&p.buf)
		return p
	}
	z, err := zstd.NewWriter(&p.buf, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(512<<10))
	if err != nil {
		tb.Fatal(err)
	}
	p.w = z
	return p
}

// packet is a packet with n pages: text, noise, and what came before.
func (p *packing) packet(n int, flags uint32) multi {
	r := rand.New(rand.NewPCG(p.seed, 7))
	p.seed++
	for i := range n {
		b := bytes.Repeat([]byte(fmt.Sprint("page ", i, p.seed, "; ")), page.Size)[:page.Size]
		switch r.IntN(4) {
		case 0:
			for j := range b {
				b[j] = byte(r.Uint32())
			}
		case 1:
			if k := len(p.pages); k > 0 {
				copy(b, p.pages[r.IntN(k)])
			}
		case 2:
			clear(b[r.IntN(page.Size):])
		}
		p.pages = append(p.pages, b)
		if _, err := p.w.Write(b); err != nil {
			panic(err)
		}
	}
	return p.flushed(n, flags)
}

// flushed is a packet that tells of n pages, with all that was compressed.
func (p *packing) flushed(n int, flags uint32) multi {
	if err := p.w.Flush(); err != nil {
		panic(err)
	}
	return p.taken(n, flags)
}

func (p *packing) taken(n int, flags uint32) multi {
	data := p.buf.String()
	p.buf.Reset()
	return multi{flags: p.method | flags, block: "pc.ram", normal: row(uint64(len(p.pages)-n), uint64(n), page.Size), data: data}
}

// reads is what a QEMU reads of a channel that it has compressed by a method:
// headers, without the lengths of payloads, and pages.
func reads(tb testing.TB, stream []byte) (heads, pages []byte) {
	tb.Helper()
	b := stream[multifdInit:]
	heads = append(heads, stream[:multifdInit]...)
	var all []byte
	method, slots := uint32(0), 0
	for len(b) > 0 {
		size, why := packet(b).headSize(slots)
		if why != "" {
			tb.Fatalf("%d bytes before the end: %s", len(b), why)
		}
		h := packet(bytes.Clone(b[:size]))
		b = b[size:]
		normal, _, why := h.counts()
		next, why2 := h.payload(normal)
		if why != "" || why2 != "" || next > len(b) {
			tb.Fatalf("packet: %s%s, %d bytes of %d", why, why2, next, len(b))
		}
		if normal > 0 && h.flags()&packetMethod != 0 {
			method = h.flags() & packetMethod
			all = append(all, b[:next]...)
			binary.BigEndian.PutUint32(h[packetNext:], 0)
		} else {
			pages = append(pages, b[:next]...)
		}
		b = b[next:]
		heads = append(heads, h...)
	}
	if method == 0 {
		return heads, pages
	}
	return heads, append(pages, expanded(tb, method, all)...)
}

// expanded is what all payloads of a channel expand to.
func expanded(tb testing.TB, method uint32, all []byte) []byte {
	tb.Helper()
	var r io.Reader
	var err error
	if method == methodZlib {
		r, err = zlib.NewReader(bytes.NewReader(all))
	} else {
		// The flag of the last block is not set in a stream that was only flushed.
		r, err = zstd.NewReader(bytes.NewReader(all), zstd.WithDecoderConcurrency(1))
	}
	if err != nil {
		tb.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		tb.Fatalf("a stream that does not end expands with error %v", err)
	}
	return got
}

// passed is what comes out of a stream at both ends of the WAN.
type passed struct {
	unpacked, packed []byte
	packets          int    // unpacked
	why              string // the unpacker has given up
	err              error  // it has failed
}

// pass unpacks a stream that comes in pieces of some size, and packs it again.
func pass(tb testing.TB, stream []byte, size func() int) (p passed) {
	tb.Helper()
	m := NewMultifd()
	r := m.Unpack(&pieces{stream, size})
	var out bytes.Buffer
	w := NewPacker(&out)
	buf := make([]byte, 64<<10)
	for p.err == nil {
		n, err := r.Read(buf[:min(size(), len(buf))])
		p.unpacked = append(p.unpacked, buf[:n]...)
		if _, err := w.Write(buf[:n]); err != nil {
			tb.Fatalf("packing: %v", err)
		}
		if c := cap(m.unpack.in); c > 4*maxCompressed {
			tb.Fatalf("the unpacker holds %d bytes", c)
		}
		p.err = err
	}
	if errors.Is(p.err, io.EOF) {
		p.err = nil
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	p.packed, p.packets, p.why = out.Bytes(), m.unpack.unpacked, m.unpack.why
	return p
}

// pieces gives a stream piece by piece, and now and then nothing.
type pieces struct {
	rest []byte
	size func() int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size())], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// TestUnpack carries compressed channels across: the pages are seen, and QEMU
// reads the same.
func TestUnpack(t *testing.T) {
	for name, method := range map[string]uint32{"zlib": methodZlib, "zstd": methodZstd} {
		t.Run(name, func(t *testing.T) {
			p := newPacking(t, method)
			w := build().init(3).multi(
				multi{flags: packetSync, stale: true}, p.packet(128, 0), p.packet(1, 0), p.packet(77, packetSync),
				multi{stale: true}, multi{flags: method, block: "pc.ram", zero: row(5, 9, page.Size)},
				p.packet(128, 0), multi{flags: packetSync, bare: true}, p.packet(8, 0))
			checkUnpacked(t, w.b, len(p.pages))
			if _, pages := reads(t, w.b); !bytes.Equal(pages, bytes.Join(p.pages, nil)) {
				t.Fatal("the reader of this test does not read what was written")
			}
		})
	}
	for name, w := range map[string]*builder{"old": oldMultifd(build()), "new": newMultifd(build()), "qpl": zipped(methodQPL)} {
		if got := pass(t, w.b, whole); !bytes.Equal(got.unpacked, w.b) || !bytes.Equal(got.packed, w.b) || got.why != "" || got.err != nil {
			t.Errorf("%s: not compressed, and changed: %q, %v", name, got.why, got.err)
		}
	}
}

// checkUnpacked checks that n pages of a channel are seen, and that a QEMU reads
// the same pages, however the channel comes.
func checkUnpacked(t *testing.T, stream []byte, n int) {
	t.Helper()
	want := pass(t, stream, whole)
	if want.why != "" || want.err != nil {
		t.Fatalf("unpacking: %s, %v", want.why, want.err)
	}
	heads, pages := reads(t, stream)
	if h, p := reads(t, want.packed); !bytes.Equal(h, heads) || !bytes.Equal(p, pages) {
		t.Fatalf("headers are the same: %v, %d pages read, want %d", bytes.Equal(h, heads), len(p)/page.Size, len(pages)/page.Size)
	}
	m := NewMultifd()
	m.unpack = &unpacker{}
	f := scan(t, m, want.unpacked, whole, never)
	if f.count(page.Full) != n || f.facts.Lost != "" {
		t.Errorf("%d pages, want %d: %+v", f.count(page.Full), n, f.facts)
	}
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 8))
		got := pass(t, stream, func() int { return 1 + r.IntN(5000) })
		if !bytes.Equal(got.unpacked, want.unpacked) || !bytes.Equal(got.packed, want.packed) {
			t.Fatalf("seed %d: in pieces something else", seed)
		}
	}
}

// TestUnpackReal does it with what real QEMUs send.
func TestUnpackReal(t *testing.T) {
	long(t)
	for _, method := range []string{"zlib", "zstd"} {
		t.Run(method, func(t *testing.T) {
			c := qemutest.Relay(t, qemutest.Config{Memory: 16, Dirty: 4, Multifd: 2, Compression: method})
			pages := 0
			for i, ch := range c.Channels[1:] {
				n := countPages(t, ch.Forward)
				pages += n
				checkUnpacked(t, ch.Forward, n)
				t.Logf("channel %d: %d bytes, %d pages", i, len(ch.Forward), n)
			}
			if pages < int(c.Pages) {
				t.Errorf("%d pages, QEMU counts %d", pages, c.Pages)
			}
		})
	}
}

// countPages is how many pages the headers of a channel announce.
func countPages(t *testing.T, stream []byte) (n int) {
	f := scan(t, multifd(), stream, whole, never)
	for i, it := range f.items[1:] {
		if it.Kind == page.Table {
			n += int(packet(f.bytes[f.at[i+1]:]).u32(packetNormal))
		}
	}
	return n
}

// TestUnpackDoubt: what is no payload is carried as it is, from there on.
func TestUnpackDoubt(t *testing.T) {
	p := newPacking(t, methodZlib)
	first, second := p.packet(60, 0), p.packet(20, 0)
	p.pages = append(p.pages, bytes.Repeat([]byte("not flushed "), page.Size)[:page.Size])
	if _, err := p.w.Write(p.pages[len(p.pages)-1]); err != nil {
		t.Fatal(err)
	}
	inner := p.taken(1, 0) // its page is in the next payload
	w := build().init(0).multi(first, second, inner, p.flushed(1, 0), p.packet(30, packetSync))
	got := pass(t, w.b, whole)
	if got.why == "" || got.err != nil {
		t.Fatalf("no doubt: %q, %v", got.why, got.err)
	}
	heads, pages := reads(t, w.b)
	if h, p := reads(t, got.packed); !bytes.Equal(h, heads) || !bytes.Equal(p, pages) {
		t.Errorf("after a doubt: %d pages read, want %d", len(p)/page.Size, len(pages)/page.Size)
	}
	m := NewMultifd()
	m.unpack = &unpacker{why: got.why}
	if f := scan(t, m, got.unpacked, whole, never); f.count(page.Full) != 80 || f.facts.Lost != got.why {
		t.Errorf("%d pages, lost: %q, want %q", f.count(page.Full), f.facts.Lost, got.why)
	}

	for name, bad := range map[string]multi{
		"noise":      {flags: methodZstd, block: "pc.ram", normal: row(0, 1, page.Size), data: "no zstd"},
		"too short":  func() multi { m := newPacking(t, methodZstd).packet(2, 0); m.normal = row(0, 3, page.Size); return m }(),
		"too long":   func() multi { m := newPacking(t, methodZstd).packet(80, 0); m.normal = row(0, 1, page.Size); return m }(),
		"trailing":   func() multi { m := newPacking(t, methodZlib).packet(2, 0); m.data += "\x00"; return m }(),
		"cut":        func() multi { m := newPacking(t, methodZlib).packet(2, 0); m.data = m.data[:len(m.data)-5]; return m }(),
		"long pages": func() multi { m := newPacking(t, methodZlib).packet(2, 0); m.normal = row(0, 1, page.Size); return m }(),
		"dictionary": {flags: methodZlib, block: "pc.ram", normal: row(0, 1, page.Size), data: "\x78\xbb...."},
		"flags":      {flags: 1 << 7, block: "pc.ram"},
	} {
		w := build().init(0).multi(bad, multi{flags: packetSync})
		if got := pass(t, w.b, whole); !bytes.Equal(got.packed, w.b) || got.why == "" || got.err != nil {
			t.Errorf("%s, first of all: %q, %v; as it is: %v", name, got.why, got.err, bytes.Equal(got.packed, w.b))
		}
		z := newPacking(t, methodZstd)
		w = build().init(0).multi(z.packet(5, 0))
		n := len(w.b)
		w.multi(bad, multi{flags: packetSync})
		switch got := pass(t, w.b, whole); {
		case got.err == nil:
			t.Errorf("%s, after a payload of zstd: no error, why %q", name, got.why)
		case len(got.unpacked) != len(pass(t, w.b[:n], whole).unpacked):
			t.Errorf("%s, after a payload of zstd: something of it has passed", name)
		}
	}
}

// TestUnpackEnd: a source that ends, or fails, anywhere.
func TestUnpackEnd(t *testing.T) {
	p := newPacking(t, methodZlib)
	w := build().init(0).multi(p.packet(3, 0), multi{flags: packetSync}, p.packet(2, 0))
	want := pass(t, w.b, whole)
	for n := 0; n < len(w.b); n += 13 {
		got := pass(t, w.b[:n], whole)
		if got.err != nil {
			t.Fatalf("end at %d: %v", n, got.err)
		}
		// All packets that were whole, and of the last one what there was.
		same := 0
		for same < len(got.packed) && got.packed[same] == want.packed[same] {
			same++
		}
		if !bytes.HasSuffix(w.b[:n], got.packed[same:]) {
			t.Fatalf("end at %d: %d bytes that nobody has sent", n, len(got.packed)-same)
		}
	}
	broken := errors.New("broken")
	r := NewMultifd().Unpack(io.MultiReader(bytes.NewReader(w.b[:2000]), iotest.ErrReader(broken)))
	if _, err := io.ReadAll(r); !errors.Is(err, broken) {
		t.Errorf("error of the reader: %v", err)
	}
	if _, err := NewPacker(io.Discard).Write(append(bytes.Clone(w.b[:multifdInit]), make([]byte, 2000)...)); err == nil {
		t.Error("the packer takes what no unpacker makes")
	}
}

// FuzzUnpack checks that whatever a channel holds, and however it comes, the far
// end can pack what was unpacked, and that what is not compressed is not changed.
func FuzzUnpack(f *testing.F) {
	for i, w := range []*builder{oldMultifd(build()), newMultifd(build()), zipped(methodZlib), zipped(methodUADK)} {
		f.Add(w.b, uint64(i))
	}
	for _, method := range []uint32{methodZlib, methodZstd} {
		p := newPacking(f, method)
		f.Add(build().init(0).multi(p.packet(2, 0), p.packet(1, packetSync)).b, uint64(9))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 9))
		want := pass(t, stream, whole)
		got := pass(t, stream, func() int { return 1 + r.IntN(1+len(stream)/4) })
		if !bytes.Equal(got.unpacked, want.unpacked) || !bytes.Equal(got.packed, want.packed) || got.why != want.why {
			t.Fatalf("in pieces something else: %q, %q", got.why, want.why)
		}
		m := NewMultifd()
		m.unpack = &unpacker{why: want.why}
		scan(t, m, want.unpacked, whole, never)
		if want.packets == 0 && !bytes.Equal(want.packed, stream) {
			t.Fatal("a stream in which nothing was unpacked has changed")
		}
	})
}
