package dedup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/page/xbzrle"
)

// diffItem is a page as QEMU's main channel writes it with XBZRLE.
func diffItem(space uint32, n uint64, diff []byte) page.Item {
	off := n * page.Size
	data := binary.BigEndian.AppendUint16([]byte{1}, uint16(len(diff)))
	return page.Item{Kind: page.XBZRLE, Addr: page.Addr{Space: space, Offset: off},
		Head: binary.BigEndian.AppendUint64(nil, off|0x60), Data: append(data, diff...)}
}

// edited is p with some bytes changed.
func edited(p []byte, seed, n int) []byte {
	q := bytes.Clone(p)
	for i := range n {
		q[(seed*977+i*131)%len(q)] += byte(seed) | 1
	}
	return q
}

// TestDifferences: pages that came as QEMU's differences are known as pages
// afterwards, on both ends.
func TestDifferences(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{Setting: Setting{Codec: Raw}})
	const n = 40
	first, second, third := make([][]byte, n), make([][]byte, n), make([][]byte, n)
	for i := range n {
		p := make([]byte, page.Size)
		fillRandom(p, uint64(i))
		first[i], second[i] = p, edited(p, i, 30)
		third[i] = edited(second[i], i+7, 5)
		w.add(fullPage(1, uint64(i), first[i]))
	}
	w.flush()
	w.ack()
	for i := range n {
		w.add(diffItem(1, uint64(i), xbzrle.Append(nil, first[i], second[i])))
	}
	w.flush()
	before := w.sent
	for i := range n { // they come in full, and have not changed
		w.add(fullPage(1, uint64(i), second[i]))
	}
	w.flush()
	if used := w.sent - before; used > 200 {
		t.Errorf("%d pages that differences have told took %d bytes", n, used)
	}
	before = w.sent
	for i := range n { // as pages that were there before, though as differences to those after
		w.add(diffItem(1, uint64(i), xbzrle.Append(nil, second[i], first[i])))
	}
	w.flush()
	if used := w.sent - before; used > n*8 {
		t.Errorf("%d known pages as differences took %d bytes", n, used)
	}
	for i := range n { // a difference to a page of zeros, and one after it
		zero := make([]byte, page.Size)
		few := edited(zero, i, 3)
		w.add(zeroItem(1, uint64(i)), diffItem(1, uint64(i), xbzrle.Append(nil, zero, few)),
			diffItem(1, uint64(i), xbzrle.Append(nil, few, edited(few, i, 9))))
	}
	w.flush()
	got := w.e.Stats()
	if want := w.d.Stats(); got.Refs != want.Refs || got.Deltas != want.Deltas || got.Pages != want.Pages || got.Deltas != 3*n {
		t.Errorf("encoder %+v, decoder %+v", got, want)
	}
}

// TestOddDifferences: what is no difference to a known page passes as it is.
func TestOddDifferences(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{})
	p := make([]byte, page.Size)
	fillRandom(p, 1)
	good := xbzrle.Append(nil, p, edited(p, 3, 9))
	long := diffItem(1, 0, good)
	long.Data = append(long.Data, 0)
	other := diffItem(1, 0, good)
	other.Data[0] = 2
	bare := diffItem(1, 0, good)
	bare.Head = nil
	w.add(diffItem(1, 0, good), zeroItem(1, 1), diffItem(1, 1, good), fullPage(1, 0, p), long, other, bare,
		diffItem(1, 0, []byte{0, 0}), diffItem(1, 0, nil), diffItem(0, 0, good), page.Item{Kind: page.XBZRLE, Head: []byte("h")},
		diffItem(1, 0, good))
	// A writer that is not QEMU may tell bytes that have not changed.
	clumsy := append([]byte{0, 20}, edited(p, 3, 9)[:20]...)
	w.add(diffItem(1, 0, clumsy))
	w.flush()
	if got := w.d.Stats(); got.Deltas != 2 {
		t.Errorf("%+v", got)
	}
}

// TestRottenBase: a difference is not applied to a page that has rotten.
func TestRottenBase(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{})
	p := make([]byte, page.Size)
	fillRandom(p, 1)
	w.add(fullPage(1, 0, p))
	w.flush()
	b.received.at(1).slot(0)[77] ^= 1
	err := try(t, w, []page.Item{diffItem(1, 0, xbzrle.Append(nil, p, edited(p, 1, 9)))})
	if !errors.Is(err, ErrMismatch) {
		t.Errorf("error %v, want %v", err, ErrMismatch)
	}
}

// TestChunks: chunks that come again cost references, whatever stands before
// them, also those that are known as pages of a guest.
func TestChunks(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{Setting: Setting{Codec: Raw}})
	const n = 30
	var chunks []page.Item
	for i := range n {
		c := make([]byte, 3*page.Size+i*100)
		fillRandom(c, uint64(i))
		chunks = append(chunks, page.Item{Kind: page.Chunk, Data: c})
		w.add(fullPage(1, uint64(i), c[:page.Size]))
	}
	w.add(chunks...)
	w.flush()
	before := w.sent
	w.add(page.Item{Kind: page.Chunk, Data: []byte("something else")})
	w.add(chunks...)
	w.flush()
	if used := w.sent - before; used > n*16 {
		t.Errorf("%d known chunks took %d bytes", n, used)
	}
	if got, want := w.e.Stats(), w.d.Stats(); got.Refs != want.Refs || got.Literals != want.Literals || got.Literals > n*4 {
		t.Errorf("encoder %+v, decoder %+v", got, want)
	}
	w.add(page.Item{Kind: page.Chunk}, page.Item{Kind: page.Chunk, Head: []byte("h"), Data: make([]byte, 5000)})
	w.flush()
}

func noise(n int) []byte {
	b := make([]byte, page.Size*2)
	fillRandom(b, uint64(n)+1000)
	return b[:n]
}

// TestPagesInChunks: the pages of a guest are found in chunks, wherever they lie.
func TestPagesInChunks(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{Setting: Setting{Codec: Raw}})
	const n = 200
	var chunk []byte
	for i := range n {
		p := make([]byte, page.Size)
		fillRandom(p, uint64(i))
		w.add(fullPage(1, uint64(i), p))
		chunk = append(append(chunk, bytes.Repeat([]byte{byte(i)}, 3+i*7%300)...), p...)
	}
	w.flush()
	before := w.sent
	for len(chunk) > 0 {
		m := min(len(chunk), 128<<10)
		w.add(page.Item{Kind: page.Chunk, Data: chunk[:m]})
		chunk = chunk[m:]
	}
	w.flush()
	p, q := make([]byte, page.Size), make([]byte, page.Size)
	fillRandom(p, 6)
	fillRandom(q, 7)
	for _, n := range []int{1, page.Size - 1, page.Size, page.Size + 1} { // between two known pages
		w.add(page.Item{Kind: page.Chunk, Data: bytes.Join([][]byte{p, noise(n), q}, nil)})
	}
	w.flush()
	if got := w.e.Stats(); w.sent-before > n*page.Size/8 || got.Refs < n*9/10 {
		t.Errorf("%d bytes for %d known pages in chunks: %+v", w.sent-before, n, got)
	}
}
