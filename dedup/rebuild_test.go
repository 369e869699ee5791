package dedup

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// rounds encodes items, three times with changes in between, and returns the
// messages and the stream.
func rounds(t *testing.T, s *Store) (msgs [][]byte, want []byte) {
	t.Helper()
	e := s.NewEncoder(EncoderConfig{})
	items := guest(1, 900)
	for round := range 3 {
		for _, it := range items {
			want = append(append(want, it.Head...), it.Data...)
		}
		more, _ := encodeAll(t, e, items, true)
		msgs = append(msgs, more...)
		items = changeSome(items, round+2, 3)
	}
	if len(msgs) < 5 {
		t.Fatalf("%d batches are too few", len(msgs))
	}
	return msgs, want
}

// resolveAll resolves messages, in order.
func resolveAll(t *testing.T, d *Decoder, msgs [][]byte) (all []*Resolved) {
	t.Helper()
	for _, msg := range msgs {
		x, err := Expand(msg)
		if err != nil {
			t.Fatal(err)
		}
		r, err := d.Resolve(x)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// rebuildAll resolves messages, and rebuilds all at once.
func rebuildAll(t *testing.T, d *Decoder, msgs [][]byte) (all []*Resolved, errs []error) {
	t.Helper()
	all = resolveAll(t, d, msgs)
	errs = make([]error, len(all))
	var wg sync.WaitGroup
	for i, r := range all {
		wg.Go(func() { errs[i] = r.Rebuild() })
	}
	wg.Wait()
	return all, errs
}

// pinned counts the pins of a shelf's segments beside the shelf's own.
func pinned(sh *shelf) (n int) {
	for id := sh.free; id < sh.next; id++ {
		if g := sh.at(id); g != nil {
			n += int(g.refs.Load()&^(sealed|evicting)) - 1
		}
	}
	return n
}

// All batches of a channel may be rebuilt at once, though each is made of pages of
// those before it.
func TestRebuildAtOnce(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	msgs, want := rounds(t, a)
	d := b.NewDecoder(DecoderConfig{})
	all, errs := rebuildAll(t, d, msgs)
	needs := 0
	for i, r := range all {
		if errs[i] != nil {
			t.Fatalf("batch %d: %v", i+1, errs[i])
		}
		if r.needs != nil {
			t.Errorf("batch %d keeps those before it in memory", i+1)
		}
		raw, _, err := r.Take()
		if err != nil || !bytes.Equal(raw, want[:len(raw)]) {
			t.Fatalf("batch %d: the stream has changed, or %v", i+1, err)
		}
		want = want[len(raw):]
		needs += int(r.stats.Deltas)
		r.Release()
	}
	if len(want) > 0 || needs == 0 || pinned(b.received) > 0 {
		t.Errorf("%d bytes are missing, %d deltas, %d pins are left", len(want), needs, pinned(b.received))
	}
}

// What rots while batches are in flight comes from the peer, though they ask at
// once.
func TestRebuildRotten(t *testing.T) {
	for name, asks := range map[string]bool{"asked": true, "not": false} {
		t.Run(name, func(t *testing.T) {
			a, b := NewStore(Config{}), NewStore(Config{})
			w := newWire(t, a, b, EncoderConfig{})
			w.add(guest(1, 900)...)
			w.close()
			msgs, _ := encodeAll(t, a.NewEncoder(EncoderConfig{}), changeSome(guest(1, 900), 7, 3), true)
			plant(b.received)
			var c DecoderConfig
			if asks {
				c.Fetch = a.Pages
			}
			d := b.NewDecoder(c)
			defer d.Close()
			all, errs := rebuildAll(t, d, msgs)
			if !asks {
				if err := errors.Join(errs...); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "has changed in our memory") {
					t.Errorf("got error %v", err)
				}
				if _, _, err := all[len(all)-1].Take(); !errors.Is(err, ErrMismatch) {
					t.Errorf("a batch was taken after %v", err)
				}
				return
			}
			for i, r := range all {
				if _, _, err := r.Take(); errs[i] != nil || err != nil {
					t.Fatalf("batch %d: %v, %v", i+1, errs[i], err)
				}
			}
		})
	}
}

// A batch that is not what was sent ends the channel: nothing of it or of what
// follows comes out, and the pages of both are never published.
func TestRebuildWrong(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	msgs, _ := rounds(t, a)
	msg := msgs[1]
	x, err := Expand(msg)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(msg, x.msg.Digest[:])
	msg[at] ^= 1
	d := b.NewDecoder(DecoderConfig{})
	all, errs := rebuildAll(t, d, msgs)
	if errs[0] != nil || !errors.Is(errs[1], ErrMismatch) || !strings.Contains(errs[1].Error(), "batch 2") {
		t.Fatal(errs)
	}
	before := b.Stats().Received
	for _, r := range all {
		if raw, mark, err := r.Take(); err == nil || err.Error() != errs[1].Error() || raw != nil || mark != 0 {
			t.Errorf("taken: %d bytes, %v", len(raw), err)
		}
		r.Release()
	}
	if n := b.Stats().Received; n != before || pinned(b.received) > 0 {
		t.Errorf("%d pages published, %d pins left", n-before, pinned(b.received))
	}
	if _, err := d.Resolve(&Expanded{bufs: new(buffers)}); err == nil || err.Error() != errs[1].Error() {
		t.Errorf("after an error: %v", err)
	}
}

// Close lets go of what nobody has begun to rebuild, and who waits for it fails.
func TestCloseInFlight(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	msgs, _ := rounds(t, a)
	d := b.NewDecoder(DecoderConfig{})
	all := resolveAll(t, d, msgs)
	if pinned(b.received) == 0 {
		t.Fatal("nothing is pinned")
	}
	last := make(chan error, 1)
	go func() { last <- all[len(all)-1].Rebuild() }() // waits for those before it, or comes too late
	d.Close()
	d.Close()
	if err := <-last; !errors.Is(err, errClosed) {
		t.Errorf("got error %v", err)
	}
	if err := all[0].Rebuild(); !errors.Is(err, errClosed) {
		t.Errorf("got error %v", err)
	}
	if n := pinned(b.received); n > 0 {
		t.Errorf("%d pins are left", n)
	}
	if _, mark, err := all[0].Take(); !errors.Is(err, errClosed) || mark != page.Mark(0) {
		t.Errorf("got error %v", err)
	}
}
