package dedup

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/page/xbzrle"
)

// plant flips a bit in every page of a shelf.
func plant(sh *shelf) {
	for id := sh.free; id < sh.next; id++ {
		if g := sh.at(id); g != nil {
			for i := range int(g.written.Load()) {
				g.slot(i)[100] ^= 4
			}
		}
	}
}

// TestPlanted: an error planted in what either end holds is caught, and the
// error says where.
func TestPlanted(t *testing.T) {
	long(t)
	items := guest(1, 300)
	for _, tt := range []struct {
		name   string
		plant  func(a, b *Store)
		resend []page.Item
		home   bool
		want   string // in the error; "" if the stream must pass
	}{
		{"receiver's page, by reference", func(_, b *Store) { plant(b.received) }, items, false, "has changed in our memory"},
		{"receiver's page, as base", func(_, b *Store) { plant(b.received) }, changeSome(items, 1, 1), false, "has changed in our memory"},
		{"sender's page, same content again", func(a, _ *Store) { plant(a.sent) }, items, false, ""},
		{"sender's page, as base", func(a, _ *Store) { plant(a.sent) }, changeSome(items, 1, 1), false, ""}, // the flipped bit is inserted
		{"own page, on the trip home", func(a, _ *Store) { plant(a.sent) }, items, true, "of ours has changed in our memory"},
		{"peer's page, on the trip home", func(_, b *Store) { plant(b.received) }, items, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := NewStore(Config{}), NewStore(Config{})
			w := newWire(t, a, b, EncoderConfig{})
			w.add(items...)
			w.flush()
			w.ack()
			if tt.home {
				w.close()
				w = newWire(t, b, a, EncoderConfig{PeerReady: true})
			}
			tt.plant(a, b)
			err := try(t, w, tt.resend)
			switch {
			case tt.want == "" && err != nil:
				t.Fatalf("refused a good stream: %v", err)
			case tt.want == "":
				return
			case err == nil:
				t.Fatal("nobody noticed")
			case !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "batch "):
				t.Errorf("got error %q, want one with %q", err, tt.want)
			}
			if tt.home {
				return
			}
			// The sender hears of it, and the next try goes through.
			w.e.Close()
			a.Forget()
			w = newWire(t, a, b, EncoderConfig{})
			w.add(tt.resend...)
			w.close()
		})
	}
}

// try sends items until an error, and fails the test on a byte that changed.
func try(t *testing.T, w *wire, items []page.Item) error {
	t.Helper()
	w.want = nil
	carry := func() error {
		for b := w.e.Cut(); b != nil; b = w.e.Cut() {
			raw, err := w.carry(b)
			if err != nil {
				return err
			}
			if !bytes.Equal(raw, w.want[:len(raw)]) {
				t.Fatal("wrong bytes came out")
			}
			w.want = w.want[len(raw):]
		}
		return nil
	}
	for _, it := range items {
		w.want = append(append(w.want, it.Head...), it.Data...)
		if w.e.Add(it) {
			if err := carry(); err != nil {
				return err
			}
		}
	}
	return carry()
}

// TestFlippedSender: the sender's memory rots after the ack, and what is sent
// next is just what the rotten copy says: only the digest can tell.
func TestFlippedSender(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{})
	items := guest(1, 50)
	w.add(items...)
	w.flush()
	w.ack()
	plant(a.sent)
	for id := a.sent.free; id < a.sent.next; id++ { // even the fingerprints
		g := a.sent.at(id)
		for i := range int(g.filled) {
			g.sums[i] = fingerprint(g.slot(i))
		}
	}
	for i := range items {
		if items[i].Kind == page.Full && !isZero(items[i].Data) {
			items[i].Data = bytes.Clone(items[i].Data)
			items[i].Data[100] ^= 4
		}
	}
	err := try(t, w, items)
	if !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "digest") {
		t.Errorf("got error %v, want one about the digest", err)
	}
	raw, _, again := w.d.Decode([]byte("x"), &Expanded{bufs: new(buffers)})
	if string(raw) != "x" || again == nil || again.Error() != err.Error() {
		t.Errorf("after an error: %q, %v", raw, again)
	}
}

// TestFlippedMessage flips every bit of a message that uses most of the
// format: what comes out is an error, or the right bytes with the right mark.
func TestFlippedMessage(t *testing.T) {
	long(t)
	msg, raw := variety(t)
	for i := range len(msg) * 8 {
		bad := bytes.Clone(msg)
		bad[i/8] ^= 1 << (i % 8)
		x, err := Expand(bad)
		if err != nil {
			continue
		}
		got, mark, err := NewStore(Config{Budget: 1}).NewDecoder(DecoderConfig{}).Decode(nil, x)
		if err == nil && (!bytes.Equal(got, raw) || mark != page.Hold) {
			t.Fatalf("bit %d of byte %d: wrong bytes came out, or mark %v", i%8, i/8, mark)
		}
	}
	for n := range msg {
		if _, err := Expand(msg[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes expand", n, len(msg))
		}
	}
}

// variety is a first batch with all kinds that a first batch can have, and its
// bytes.
func variety(tb testing.TB) (msg, raw []byte) {
	tb.Helper()
	text := bytes.Repeat([]byte("all work and no play "), 200)[:page.Size]
	changed := bytes.Clone(text)
	changed[1000]++
	items := []page.Item{
		opaqueItem([]byte("QEVM\x00\x00\x00\x03")), zeroItem(1, 0), zeroItem(1, 1), zeroItem(1, 5),
		fullPage(1, 6, text), fullPage(1, 7, text), fullPage(1, 8, text), fullPage(1, 7, changed),
		fullPage(2, 0, changed), fullPage(2, 1, make([]byte, page.Size)), fullPage(0, 0, text),
		{Kind: page.Full, Addr: page.Addr{Space: 3, Offset: 1 << 40}, Data: changed},
		{Kind: page.Full, Addr: page.Addr{Space: 3, Offset: 1 << 30}, Head: bytes.Repeat([]byte("h"), 265), Data: text},
		{Kind: page.Zero, Addr: page.Addr{Space: 3, Offset: 77}, Head: []byte("odd"), Data: []byte{0}},
		{Kind: page.Zero, Data: []byte{9}}, {Kind: page.Full, Data: []byte("short")},
		diffItem(1, 7, xbzrle.Append(nil, changed, edited(changed, 5, 9))), diffItem(1, 8, xbzrle.Append(nil, text, edited(text, 3, 20))),
		diffItem(1, 7, xbzrle.Append(nil, edited(changed, 5, 9), text)),
		{Kind: page.Chunk, Data: append(bytes.Clone(text), changed[:3000]...)}, {Kind: page.Chunk, Data: changed[:3000]},
		{Kind: page.Table, Data: changed[:64]},
	}
	e := NewStore(Config{ID: 1, Budget: 1}).NewEncoder(EncoderConfig{Setting: Setting{Codec: LZ4}})
	for _, it := range items {
		it.Mark = page.Hold
		raw = append(append(raw, it.Head...), it.Data...)
		e.Add(it)
	}
	msg, err := e.Cut().Compress()
	if err != nil {
		tb.Fatal(err)
	}
	return msg, raw
}
