package dedup

import (
	"math/rand/v2"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// guest makes the items of a small guest: zero pages, text, code-like and
// random ones.
func guest(seed uint64, pages int) []page.Item {
	m := newMemory(seed, 1, pages)
	var items []page.Item
	for i := range pages {
		if isZero(m.pages[i]) {
			items = append(items, zeroItem(1, uint64(i)))
		} else {
			items = append(items, fullPage(1, uint64(i), m.pages[i]))
		}
	}
	return items
}

// unknown counts the pages that were not known whole. Which of them resemble a
// page before them on the channel is found by chance.
func unknown(c Counts) int64 { return c.Literals + c.Deltas }

// changeSome gives every n-th page a few other bytes.
func changeSome(items []page.Item, n int, seed uint64) []page.Item {
	rng := rand.New(rand.NewPCG(seed, 3))
	out := append([]page.Item(nil), items...)
	for i := range out {
		if out[i].Kind != page.Full || i%n != 0 {
			continue
		}
		b := append([]byte(nil), out[i].Data...)
		for range 10 {
			b[rng.IntN(len(b))]++
		}
		out[i].Data = b
	}
	return out
}

// TestTripHome: what went there comes home as references, at once or after
// the first acknowledgement; changed pages as deltas of what went there.
func TestTripHome(t *testing.T) {
	long(t)
	items := guest(1, 1500)
	for _, tt := range []struct {
		name     string
		ready    bool
		literals int64 // at most
	}{{"peer ready", true, 15}, {"after the first ack", false, 16}} { // a few changed pages follow zero pages
		t.Run(tt.name, func(t *testing.T) {
			a, b := NewStore(Config{}), NewStore(Config{})
			out := newWire(t, a, b, EncoderConfig{})
			out.add(items...)
			out.close()

			if tt.ready {
				defer a.Keep()()
			}
			back := newWire(t, b, a, EncoderConfig{PeerReady: tt.ready})
			for _, it := range changeSome(items, 50, 1) {
				back.add(it)
				back.ack()
			}
			back.close()
			c := back.e.Stats()
			if c.Literals > tt.literals {
				t.Errorf("%d literals on the way home, want at most %d: %+v", c.Literals, tt.literals, c)
			}
			if c.Deltas == 0 {
				t.Errorf("no deltas: %+v", c)
			}

			again := newWire(t, a, b, EncoderConfig{PeerReady: true})
			again.add(changeSome(items, 50, 1)...)
			again.close()
			if c := again.e.Stats(); c.Literals+c.Deltas > 0 {
				t.Errorf("sent again what came from there: %+v", c)
			}
		})
	}
}

// TestHomeBeforeThePeerIsKnown: a channel whose first batch cannot ask the peer to keep what
// it sent, for want of its name, refers to none of that before the peer was asked.
func TestHomeBeforeThePeerIsKnown(t *testing.T) {
	long(t)
	a, b := NewStore(Config{Budget: 8 << 20}), NewStore(Config{Budget: 8 << 20})
	back := newWire(t, b, a, EncoderConfig{PeerReady: true})
	back.add(opaqueItem([]byte("QEVM header")))
	back.flush()

	out, items := newWire(t, a, b, EncoderConfig{}), guest(1, 300)
	out.add(items...)
	out.flush()
	out.ack()
	home := changeSome(items, 50, 1)
	for _, it := range home { // on its way while a goes on, and forgets what it sent
		back.e.Add(it)
	}
	for seed := range uint64(40) {
		out.add(guest(100+seed, 200)...)
		out.flush()
		out.ack()
	}
	if a.Stats().Evicted == 0 {
		t.Fatal("nothing was evicted")
	}
	for m := back.e.Cut(); m != nil; m = back.e.Cut() {
		if _, err := back.carry(m); err != nil {
			t.Fatalf("batch %d: %v", m.Seq, err)
		}
	}
	if back.ack(); back.e.Asks() {
		t.Error("what a was asked for is not used")
	}
	back.e.Close()
	back.d.Close()
}

// TestUnacked: nothing that is not acknowledged is referred to by another
// channel, and nothing of a closed channel ever.
func TestUnacked(t *testing.T) {
	long(t)
	a, b := NewStore(Config{}), NewStore(Config{})
	items := guest(1, 800)
	one := newWire(t, a, b, EncoderConfig{})
	one.add(items...)
	one.flush() // decoded, but we have not heard of it

	two := newWire(t, a, b, EncoderConfig{})
	two.add(items...)
	two.flush()
	if c, want := unknown(two.e.Stats()), unknown(one.e.Stats()); c != want {
		t.Errorf("%d unknown pages while nothing was acknowledged, want %d", c, want)
	}
	one.e.Close()
	two.e.Close()

	three := newWire(t, a, b, EncoderConfig{})
	three.add(items...)
	three.close()
	if c, want := unknown(three.e.Stats()), unknown(one.e.Stats()); c != want {
		t.Errorf("%d unknown pages after two aborted channels, want %d", c, want)
	}
	four := newWire(t, a, b, EncoderConfig{})
	four.add(items...)
	four.close()
	if c := four.e.Stats(); c.Literals != 0 {
		t.Errorf("%d literals after a channel that was acknowledged", c.Literals)
	}
}

// TestEviction: streams far larger than the stores pass, in step, and the
// content in use stays known.
func TestEviction(t *testing.T) {
	long(t)
	a, b := NewStore(Config{Budget: 64 << 20}), NewStore(Config{Budget: 64 << 20})
	hot := guest(7, 200)
	hotLiterals := int64(0)
	for round := range uint64(25) {
		w := newWire(t, a, b, EncoderConfig{Setting: Setting{Codec: Raw}})
		for _, it := range guest(100+round, 500) {
			w.add(it)
			if w.e.Pending() == 0 {
				w.ack()
			}
		}
		w.flush()
		w.ack()
		before := w.e.Stats()
		w.add(hot...)
		w.close()
		if round > 0 {
			c := w.e.Stats()
			hotLiterals += c.Literals - before.Literals
		}
	}
	sa, sb := a.Stats(), b.Stats()
	if sa.Bytes > sa.Budget || sb.Bytes > sb.Budget {
		t.Errorf("over the budget: %+v, %+v", sa, sb)
	}
	if sa.Evicted < 8 || sb.Evicted < 8 {
		t.Errorf("nothing was evicted: %+v, %+v", sa, sb)
	}
	if sa.Sent < sa.Budget/2/page.Size/4 {
		t.Errorf("hardly anything is held: %+v", sa)
	}
	if hotLiterals > 30 {
		t.Errorf("pages in use were forgotten: %d of them sent in full", hotLiterals)
	}
}

// TestUnackedEviction: nothing acknowledged means nothing evicted, no memory
// over the budget, and a stream that still passes.
func TestUnackedEviction(t *testing.T) {
	long(t)
	a, b := NewStore(Config{Budget: 8 << 20}), NewStore(Config{Budget: 8 << 20})
	w := newWire(t, a, b, EncoderConfig{Setting: Setting{Codec: Raw}})
	for seed := range uint64(12) {
		w.add(guest(seed, 500)...)
	}
	w.flush()
	for _, s := range []*Store{a, b} {
		if st := s.Stats(); st.Evicted > 0 || st.Bytes > st.Budget {
			t.Errorf("%+v", st)
		}
	}
	w.ack() // and now it goes on keeping
	before := a.Stats()
	w.add(guest(50, 500)...)
	w.close()
	if after := a.Stats(); after.Evicted == before.Evicted {
		t.Errorf("still stuck: %+v", after)
	}
}

// TestForget: after Forget nothing held before is referred to, in either
// direction.
func TestForget(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	items := guest(1, 600)
	w := newWire(t, a, b, EncoderConfig{})
	w.add(items...)
	w.close()
	want := unknown(w.e.Stats())
	for _, s := range []*Store{a, b} {
		s.Forget()
	}
	w = newWire(t, a, b, EncoderConfig{PeerReady: true})
	w.add(items...)
	w.close()
	if got := unknown(w.e.Stats()); got != want {
		t.Errorf("%d unknown pages after Forget, want %d", got, want)
	}
	w = newWire(t, b, a, EncoderConfig{PeerReady: true})
	w.add(items...)
	w.close()
	if got := w.e.Stats(); got.Literals != 0 {
		t.Errorf("content sent after Forget is not known: %+v", got)
	}
}

// TestSmallerPeer: a sender that knows the peer's budget stays within it; one
// that does not is refused, with the reason.
func TestSmallerPeer(t *testing.T) {
	long(t)
	items := guest(1, 4000)
	a, b := NewStore(Config{Budget: 64 << 20, PeerBudget: 8 << 20}), NewStore(Config{Budget: 8 << 20})
	w := newWire(t, a, b, EncoderConfig{})
	w.add(items...)
	w.close()

	a, b = NewStore(Config{Budget: 64 << 20}), NewStore(Config{Budget: 8 << 20})
	w = newWire(t, a, b, EncoderConfig{})
	var err error
	for _, it := range items {
		if w.e.Add(it) && err == nil {
			_, err = w.carry(w.e.Cut())
		}
	}
	if err == nil {
		t.Error("a sender over our budget was not refused")
	}
	t.Log(err)
}

// TestCollision: a page whose fingerprint is that of another one is sent in
// full. 64 bits can be made to collide by a guest.
func TestCollision(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{})
	one, two := make([]byte, page.Size), make([]byte, page.Size)
	fillRandom(one, 1)
	fillRandom(two, 2)
	w.add(fullPage(1, 0, one))
	w.flush()
	h := fingerprint(two)
	a.sent.at(1).sums[0] = h
	a.index.put(h, handle(firstNumber(1)))
	w.add(fullPage(1, 0, two), fullPage(1, 1, two))
	w.close()
	if c := w.e.Stats(); c.Literals != 2 || c.Refs != 1 {
		t.Errorf("%+v", c)
	}
}

// TestLease: what comes home late finds the pages that it refers to, however
// much went out in between; and without a lease it refers to none.
func TestLease(t *testing.T) {
	long(t)
	for _, tt := range []struct {
		name  string
		ready bool
	}{{"kept", true}, {"nothing promised", false}} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := NewStore(Config{Budget: 1}), NewStore(Config{Budget: 1})
			items := guest(1, 300)
			w := newWire(t, a, b, EncoderConfig{Setting: Setting{Codec: Raw}})
			w.add(items...)
			w.close()

			release := func() {}
			if tt.ready {
				release = a.Keep()
			}
			e := b.NewEncoder(EncoderConfig{PeerReady: tt.ready})
			var msgs [][]byte // on their way for a long time
			for i, it := range items {
				if !e.Add(it) && i < len(items)-1 {
					continue
				}
				for b := e.Cut(); b != nil; b = e.Cut() {
					msg, err := b.Compress()
					if err != nil {
						t.Fatal(err)
					}
					msgs = append(msgs, msg)
				}
			}
			if c := e.Stats(); (c.Literals == 0) != tt.ready {
				t.Errorf("%+v", c)
			}
			flood := func(seed uint64) Stats {
				w := newWire(t, a, b, EncoderConfig{Setting: Setting{Codec: Raw}})
				for _, it := range guest(seed, 4000) {
					w.add(it)
					w.ack()
				}
				w.close()
				return a.Stats()
			}
			flood(2)
			d := a.NewDecoder(DecoderConfig{})
			decodeAll(t, d, nil, msgs)
			d.Close()
			release()
			if st := flood(3); st.Evicted == 0 {
				t.Errorf("nothing was evicted after the release: %+v", st)
			}
		})
	}
}

// TestAsks: an encoder asks the peer to keep what came from it, if something did, until
// the batch that says so was decoded.
func TestAsks(t *testing.T) {
	items := guest(2, 300)
	a, b := NewStore(Config{}), NewStore(Config{})
	out := newWire(t, a, b, EncoderConfig{})
	out.add(items...)
	if out.ack(); out.e.Asks() {
		t.Error("it asks for what never came")
	}
	out.close()
	for _, ready := range []bool{true, false} {
		e := b.NewEncoder(EncoderConfig{PeerReady: ready})
		if e.Asks() {
			t.Error("it asks before there is a batch that says so")
		}
		for _, it := range items {
			if e.Add(it) {
				break
			}
		}
		if e.Cut() == nil || e.Asks() == ready {
			t.Errorf("peer ready %v: it asks: %v", ready, e.Asks())
		}
		if e.Acked(1); e.Asks() {
			t.Error("it asks for what it has got")
		}
		e.Close()
	}
}
