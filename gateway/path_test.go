package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
	"github.com/longhaul-project/longhaul/internal/page"
)

// realPages reads pages of real content: programs and libraries of this
// machine, which a guest of the same system has in its page cache; an eighth of
// them is zero.
func realPages(tb testing.TB, n int) []byte {
	tb.Helper()
	out := make([]byte, 0, n*page.Size)
	err := filepath.WalkDir("/usr/lib/x86_64-linux-gnu", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.Contains(path, ".so") {
			return nil // what cannot be read is not needed
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for len(b) >= page.Size && len(out) < cap(out) {
			if len(out)/page.Size%8 == 7 {
				out = append(out, make([]byte, page.Size)...)
				continue
			}
			out, b = append(out, b[:page.Size]...), b[page.Size:]
		}
		if len(out) >= cap(out) {
			return fs.SkipAll
		}
		return nil
	})
	if err != nil || len(out) < n*page.Size {
		tb.Fatalf("%d bytes of real content, want %d: %v", len(out), n*page.Size, err)
	}
	return out
}

// ramStream is a main channel of QEMU 7.2 (hypervisor-wire.md, section 1) that
// sends every page once, in order.
func ramStream(pages []byte) []byte {
	var b bytes.Buffer
	u32 := func(v uint32) { b.Write(binary.BigEndian.AppendUint32(nil, v)) }
	u64 := func(v uint64) { b.Write(binary.BigEndian.AppendUint64(nil, v)) }
	str := func(s string) { b.WriteByte(byte(len(s))); b.WriteString(s) }
	footer := func() { b.WriteByte(0x7e); u32(2) }
	u32(0x5145564d)
	u32(3)
	b.WriteByte(0x07) // configuration
	u32(uint32(len("pc-q35-7.2")))
	b.WriteString("pc-q35-7.2")
	b.WriteByte(0x01) // section start
	u32(2)
	str("ram")
	u32(0)
	u32(4)
	u64(uint64(len(pages)) | 0x04)
	str("pc.ram")
	u64(uint64(len(pages)))
	u64(0x10)
	footer()
	b.WriteByte(0x02) // section part
	u32(2)
	for off := 0; off < len(pages); off += page.Size {
		p := pages[off : off+page.Size]
		flags := uint64(0x20)
		if off == 0 {
			flags = 0
		}
		if len(bytes.Trim(p, "\x00")) == 0 {
			u64(uint64(off) | 0x02 | flags)
		} else {
			u64(uint64(off) | 0x08 | flags)
		}
		if off == 0 {
			str("pc.ram")
		}
		if len(bytes.Trim(p, "\x00")) == 0 {
			b.WriteByte(0)
		} else {
			b.Write(p)
		}
	}
	u64(0x10)
	footer()
	b.WriteByte(0x03) // section end
	u32(2)
	u64(0x10)
	footer()
	b.WriteByte(0x00)
	return b.Bytes()
}

// through sends a stream through a forward from a to b and returns the digest
// of what comes out.
type through struct {
	tb     testing.TB
	listen string // at a
	out    net.Listener
}

func newThrough(tb testing.TB, a, b *site) *through {
	tb.Helper()
	target := filepath.Join(b.run, "target.sock")
	ln, err := net.Listen("unix", target)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ln.Close() })
	listen := filepath.Join(a.run, "fwd.sock")
	if _, err := a.g.AddForward(context.Background(), gateway.Forward{
		Name: "path", Listen: "unix:" + listen, To: b.name, Target: "unix:" + target, Kind: "migration",
	}); err != nil {
		tb.Fatal(err)
	}
	return &through{tb, listen, ln}
}

func (p *through) send(stream []byte) [32]byte {
	p.tb.Helper()
	sum := make(chan [32]byte, 1) // the one result
	go func() {
		h := sha256.New()
		if c, err := p.out.Accept(); err == nil {
			n, err := io.Copy(h, c)
			c.Close()
			if n != int64(len(stream)) {
				p.tb.Logf("%d of %d bytes came out: %v", n, len(stream), err) // cut off, not changed
			}
		}
		sum <- [32]byte(h.Sum(nil))
	}()
	c, err := net.Dial("unix", p.listen)
	if err != nil {
		p.tb.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(stream); err != nil {
		p.tb.Fatal(err)
	}
	c.(*net.UnixConn).CloseWrite()
	if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, io.EOF) {
		p.tb.Fatal(err)
	}
	return <-sum
}

// TestPathIsExactAndLean sends real pages through both gateways: what comes out
// is what went in, and no step of ours allocates for a page: what allocates does
// so for a batch. QUIC allocates a few times for each packet, which is not ours
// to change. Whose an allocation is, its stack tells.
func TestPathIsExactAndLean(t *testing.T) {
	a, b, _ := newPair(t, hvtest.Guest{})
	p := newThrough(t, a, b)
	const n = 8192
	if !gateway.RaceEnabled { // whose allocations are not its own
		defer func(rate int) { runtime.MemProfileRate = rate }(runtime.MemProfileRate)
		runtime.MemProfileRate = 1 // every allocation
	}
	stream := ramStream(realPages(t, n))
	for _, content := range []string{"new", "known"} {
		before := allocations(t)
		if got := p.send(stream); got != sha256.Sum256(stream) {
			t.Fatalf("%s: another stream came out", content)
		}
		owners, most := allocations(t).since(before)
		t.Logf("%s: %d pages, allocations by %v; %d by one place of ours", content, n, owners, most)
		// What a batch takes, of 128 pages at most, is within it; what a page
		// takes is far beyond.
		if limit := int64(n / 32); most > limit && !gateway.RaceEnabled {
			t.Errorf("%s: a place in our own code allocates %d times for %d pages, want at most %d", content, most, n, limit)
		}
		// All places together: some 60 for a batch, at both ends.
		if got := owners[ours]; got > n && !gateway.RaceEnabled {
			t.Errorf("%s: our own code allocates %d times for %d pages", content, got, n)
		}
	}
}

// BenchmarkPath is the whole path, from the source's socket to the
// destination's, over QUIC on the loopback.
func BenchmarkPath(b *testing.B) {
	const n = 16384
	pages := realPages(b, n)
	stream := ramStream(pages)
	for _, content := range []string{"new", "known"} {
		b.Run("content="+content, func(b *testing.B) {
			at, bt, _ := newPair(b, hvtest.Guest{})
			p := newThrough(b, at, bt)
			if content == "known" {
				p.send(stream)
			}
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			for b.Loop() {
				if content == "new" { // not known to the peer, nor like anything known
					b.StopTimer()
					stream = ramStream(renameBytes(pages))
					b.StartTimer()
				}
				p.send(stream)
			}
			f, _ := at.g.Forwards(context.Background())
			b.ReportMetric(float64(f[0].Wire)/float64(f[0].Logical), "wire/stream")
		})
	}
}

// renameBytes puts another byte for each byte value but zero, differently each
// time: content of the same compressibility that shares nothing with any before.
func renameBytes(pages []byte) []byte {
	var names [256]byte
	for i, v := range rand.Perm(255) {
		names[1+i] = byte(1 + v)
	}
	out := make([]byte, len(pages))
	for i, v := range pages {
		out[i] = names[v]
	}
	return out
}
