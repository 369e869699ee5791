package dedup

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// fullPage is a page as QEMU's main channel writes it.
func fullPage(space uint32, n uint64, data []byte) page.Item {
	off := n * page.Size
	return page.Item{Kind: page.Full, Addr: page.Addr{Space: space, Offset: off},
		Head: binary.BigEndian.AppendUint64(nil, off|0x28), Data: data}
}

// zeroItem is a zero page as QEMU's main channel writes it.
func zeroItem(space uint32, n uint64) page.Item {
	off := n * page.Size
	return page.Item{Kind: page.Zero, Addr: page.Addr{Space: space, Offset: off},
		Head: binary.BigEndian.AppendUint64(nil, off|0x22), Data: []byte{0}}
}

func opaqueItem(b []byte) page.Item { return page.Item{Kind: page.Opaque, Data: b} }

// A wire is one channel between two stores, carried by hand.
type wire struct {
	t      testing.TB
	e      *Encoder
	d      *Decoder
	want   []byte // stream not yet compared
	last   uint64 // batch decoded
	sent   int    // bytes of messages
	tamper func(msg []byte) []byte
}

func newWire(t testing.TB, from, to *Store, c EncoderConfig) *wire {
	return &wire{t: t, e: from.NewEncoder(c), d: to.NewDecoder(DecoderConfig{})}
}

// add sends items, and lets full batches through.
func (w *wire) add(items ...page.Item) {
	w.t.Helper()
	for _, it := range items {
		w.want = append(append(w.want, it.Head...), it.Data...)
		if w.e.Add(it) {
			w.flush()
		}
	}
}

// flush carries all that is pending and compares it.
func (w *wire) flush() {
	w.t.Helper()
	for b := w.e.Cut(); b != nil; b = w.e.Cut() {
		raw, err := w.carry(b)
		if err != nil {
			w.t.Fatalf("batch %d: %v", b.Seq, err)
		}
		if !bytes.Equal(raw, w.want[:len(raw)]) {
			w.t.Fatalf("batch %d: the stream has changed", b.Seq)
		}
		w.want = append(w.want[:0], w.want[len(raw):]...)
	}
}

// carry brings one batch across.
func (w *wire) carry(b *Batch) ([]byte, error) {
	msg, err := b.Compress()
	if err != nil {
		return nil, err
	}
	w.sent += len(msg)
	if w.tamper != nil {
		msg = w.tamper(msg)
	}
	x, err := Expand(msg)
	if err != nil {
		return nil, err
	}
	raw, _, err := w.d.Decode(nil, x)
	if err == nil {
		w.last = b.Seq
	}
	return raw, err
}

// ack acknowledges all that was decoded.
func (w *wire) ack() { w.e.Acked(w.last) }

func (w *wire) close() {
	w.t.Helper()
	w.flush()
	if e, d := w.e.Digest(), w.d.Digest(); e != d {
		w.t.Errorf("digests differ: %v sent, %v received", e, d)
	}
	w.ack()
	w.e.Close()
	w.d.Close()
}

func TestRoundTrip(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{})
	text := bytes.Repeat([]byte("the quick brown fox "), 300)[:page.Size]
	w.add(opaqueItem([]byte("QEVM header")), zeroItem(1, 0), zeroItem(1, 1), fullPage(1, 2, text),
		fullPage(1, 3, text), fullPage(1, 9, text))
	changed := bytes.Clone(text)
	changed[77] ^= 1
	w.add(fullPage(1, 3, changed), fullPage(1, 3, text), fullPage(2, 0, make([]byte, page.Size)))
	w.close()
	got := w.e.Stats()
	want := Counts{Pages: 8, Zero: 3, Refs: 3, Deltas: 1, Literals: 1, Opaque: 11, Raw: got.Raw, Plain: got.Plain, Wire: got.Wire}
	if got != want || got.Plain < page.Size {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got.Plain = 0 // only an encoder knows
	if d := w.d.Stats(); d != got {
		t.Errorf("decoder counts %+v, encoder %+v", d, got)
	}
	t.Logf("%d bytes for %d", got.Wire, got.Raw)
}
