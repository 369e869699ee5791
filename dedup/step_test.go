package dedup

import (
	"bytes"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/page/xbzrle"
)

// A memory is a small guest: pages of few kinds, rewritten now and then.
type memory struct {
	rng   *rand.Rand
	space uint32
	pages [][]byte
	last  [][]byte // as they were last sent, on any channel
}

func newMemory(seed uint64, space uint32, n int) *memory {
	m := &memory{rng: rand.New(rand.NewPCG(seed, 1)), space: space, pages: make([][]byte, n), last: make([][]byte, n)}
	for i := range m.pages {
		m.write(i)
	}
	return m
}

// write gives page i other content: zero, common to all guests, new, or a
// little changed.
func (m *memory) write(i int) {
	p := make([]byte, page.Size)
	switch m.rng.IntN(8) {
	case 0:
	case 1, 2:
		fillRandom(p, uint64(m.rng.IntN(600)))
	case 3, 4, 5:
		fillRandom(p, m.rng.Uint64())
	default:
		if m.pages[i] != nil {
			copy(p, m.pages[i])
		}
		for range 1 + m.rng.IntN(20) {
			p[m.rng.IntN(page.Size)] = byte(m.rng.Uint32())
		}
	}
	m.pages[i] = p
}

func fillRandom(p []byte, seed uint64) {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	_, _ = rand.NewChaCha8(key).Read(p) // never fails
}

// item is page i as a migration sends it, and now and then as something else.
func (m *memory) item(i int) page.Item {
	old := m.last[i]
	m.last[i] = m.pages[i]
	if isZero(m.pages[i]) && m.rng.IntN(4) > 0 {
		return zeroItem(m.space, uint64(i))
	}
	if old != nil && !bytes.Equal(old, m.pages[i]) && m.rng.IntN(2) == 0 { // as it may be right, or not
		if diff := xbzrle.Append(nil, old, m.pages[i]); len(diff) <= page.Size {
			return diffItem(m.space, uint64(i), diff)
		}
	}
	if m.rng.IntN(20) == 0 {
		return page.Item{Kind: page.Chunk, Data: bytes.Join([][]byte{m.pages[i], m.pages[0][:m.rng.IntN(page.Size)]}, nil)}
	}
	it := fullPage(m.space, uint64(i), m.pages[i])
	switch m.rng.IntN(40) {
	case 0:
		it.Head = append(it.Head, "\x06pc.ram"...)
	case 1:
		it.Head = nil
	case 2:
		it.Addr = page.Addr{}
	}
	return it
}

// A line is one channel of the machine below: what is in flight on it.
type line struct {
	e       *Encoder
	d       *Decoder // nil before the channel has arrived
	to      *Store
	mem     *memory
	back    bool // from b to a
	msgs    [][]byte
	want    [][]byte // raw bytes of flying, then of msgs
	flying  []flight // resolved and not yet taken
	pending []byte
	decoded uint64
	acked   uint64
}

// A flight is a batch that is being rebuilt by a goroutine of its own.
type flight struct {
	r    *Resolved
	done chan error // capacity 1: its end
}

// burst is how many pages come at once at most: enough to fill a tiny store
// in a few steps.
const burst = 600

// A machine is two tiny stores and the channels between them. Every step is
// one that the outside may do at any time.
type machine struct {
	a, b  *Store
	mems  []*memory
	lines []*line
}

func (m *machine) open(t *rapid.T) {
	if len(m.lines) >= 4 {
		return
	}
	l := &line{mem: rapid.SampledFrom(m.mems).Draw(t, "memory"), back: rapid.Bool().Draw(t, "back")}
	from, to := m.a, m.b
	if l.back {
		from, to = to, from
	}
	l.to = to
	ready := rapid.Bool().Draw(t, "ready")
	if ready { // else the channel arrives with its first message
		l.arrive()
	}
	l.e = from.NewEncoder(EncoderConfig{Setting: Setting{Codec: Raw}, PeerReady: ready})
	m.lines = append(m.lines, l)
}

func (l *line) arrive() {
	if l.d == nil {
		l.d = l.to.NewDecoder(DecoderConfig{})
	}
}

func (m *machine) line(t *rapid.T) *line {
	if len(m.lines) == 0 {
		t.Skip("no channel")
	}
	return m.lines[rapid.IntRange(0, len(m.lines)-1).Draw(t, "channel")]
}

// send adds a burst of pages, some of them rewritten before.
func (m *machine) send(t *rapid.T) {
	l := m.line(t)
	first := rapid.IntRange(0, len(l.mem.pages)-1).Draw(t, "first")
	for i := range rapid.IntRange(1, burst).Draw(t, "pages") {
		n := (first + i) % len(l.mem.pages)
		if l.mem.rng.IntN(3) == 0 {
			l.mem.write(n)
		}
		it := l.mem.item(n)
		l.pending = append(append(l.pending, it.Head...), it.Data...)
		if l.e.Add(it) {
			l.cut(t)
		}
	}
	if rapid.Bool().Draw(t, "cut") {
		l.cut(t)
	}
}

func (l *line) cut(t *rapid.T) {
	for b := l.e.Cut(); b != nil; b = l.e.Cut() {
		msg, err := b.Compress()
		if err != nil {
			t.Fatal(err)
		}
		l.msgs = append(l.msgs, msg)
		l.want = append(l.want, bytes.Clone(l.pending[:b.Raw]))
		l.pending = l.pending[b.Raw:]
	}
}

// deliver decodes some of the messages in flight.
func (m *machine) deliver(t *rapid.T) {
	l := m.line(t)
	for range rapid.IntRange(0, len(l.msgs)).Draw(t, "messages") {
		l.decode(t)
	}
}

// begin resolves some of the messages in flight, and has all of them rebuilt at once.
func (m *machine) begin(t *rapid.T) {
	l := m.line(t)
	l.arrive()
	for range rapid.IntRange(0, len(l.msgs)).Draw(t, "messages") {
		x, err := Expand(l.msgs[0])
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.d.Resolve(x)
		if err != nil {
			t.Fatal(err)
		}
		f := flight{r, make(chan error, 1)}
		go func() { f.done <- r.Rebuild() }()
		l.flying, l.msgs = append(l.flying, f), l.msgs[1:]
	}
}

// land takes the first of the batches that are being rebuilt.
func (l *line) land(t *rapid.T) {
	f := l.flying[0]
	if err := <-f.done; err != nil {
		t.Fatal(err)
	}
	raw, _, err := f.r.Take()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, l.want[0]) {
		t.Fatalf("batch %d: the stream has changed", l.decoded+1)
	}
	f.r.Release()
	l.decoded++
	l.flying, l.want = l.flying[1:], l.want[1:]
}

// land takes some of what is being rebuilt.
func (m *machine) land(t *rapid.T) {
	l := m.line(t)
	for range rapid.IntRange(0, len(l.flying)).Draw(t, "batches") {
		l.land(t)
	}
}

func (l *line) decode(t *rapid.T) {
	l.arrive()
	for len(l.flying) > 0 {
		l.land(t)
	}
	x, err := Expand(l.msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := l.d.Decode(nil, x)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, l.want[0]) {
		t.Fatalf("batch %d: the stream has changed", l.decoded+1)
	}
	l.decoded++
	l.msgs, l.want = l.msgs[1:], l.want[1:]
}

// ack acknowledges some of what was decoded.
func (m *machine) ack(t *rapid.T) {
	l := m.line(t)
	l.acked = rapid.Uint64Range(l.acked, l.decoded).Draw(t, "acked")
	l.e.Acked(l.acked)
}

// end closes a channel: at its end, or in the middle with messages in flight.
func (m *machine) end(t *rapid.T) {
	l := m.line(t)
	l.arrive()
	if rapid.Bool().Draw(t, "abort") {
		l.e.Close()
		if rapid.Bool().Draw(t, "late") && len(l.msgs) > 0 {
			// What was on its way is decoded, or refused, but never wrong.
			for len(l.flying) > 0 {
				l.land(t)
			}
			if x, err := Expand(l.msgs[0]); err != nil {
				t.Fatal(err)
			} else if raw, _, err := l.d.Decode(nil, x); err == nil && !bytes.Equal(raw, l.want[0]) {
				t.Fatal("a late batch has changed")
			}
		}
		l.d.Close()
		for _, f := range l.flying {
			<-f.done // rebuilt, or not
		}
	} else {
		l.cut(t)
		l.rest(t)
		if l.e.Digest() != l.d.Digest() {
			t.Fatal("digests differ")
		}
		l.e.Acked(l.decoded)
		l.e.Close()
		l.d.Close()
	}
	for i := range m.lines {
		if m.lines[i] == l {
			m.lines = append(m.lines[:i], m.lines[i+1:]...)
			break
		}
	}
}

// rest decodes all that is in flight.
func (l *line) rest(t *rapid.T) {
	for len(l.msgs) > 0 {
		l.decode(t)
	}
	for len(l.flying) > 0 {
		l.land(t)
	}
}

func (m *machine) forget(t *rapid.T) {
	if rapid.IntRange(0, 4).Draw(t, "forget") == 0 {
		rapid.SampledFrom([]*Store{m.a, m.b}).Draw(t, "store").Forget()
	}
}

// check: no store is over its budget.
func (m *machine) check(t *rapid.T) {
	for _, s := range []*Store{m.a, m.b} {
		if st := s.Stats(); st.Bytes > st.Budget {
			t.Fatalf("%d bytes held, over %d", st.Bytes, st.Budget)
		}
	}
}

// TestStores drives two tiny stores through everything that may happen to
// them, in any order: they stay in step, and no byte changes.
func TestStores(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); underRace && f.Value.String() == f.DefValue {
		_ = flag.Set("rapid.checks", "10") // known to exist; the Makefile runs all of them without
	}
	var evicted, deltas, refs int64
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{a: NewStore(Config{Budget: 1}), b: NewStore(Config{Budget: 1})}
		for i := range uint64(3) {
			m.mems = append(m.mems, newMemory(i+1, uint32(i+1), burst))
		}
		t.Repeat(map[string]func(*rapid.T){
			"open": m.open, "send": m.send, "send2": m.send, "deliver": m.deliver, "begin": m.begin, "land": m.land, "ack": m.ack, "end": m.end,
			"forget": m.forget, "": m.check,
		})
		for len(m.lines) > 0 {
			l := m.lines[0]
			l.arrive()
			l.cut(t)
			l.rest(t)
			if l.e.Digest() != l.d.Digest() {
				t.Fatal("digests differ")
			}
			c := l.e.Stats()
			deltas, refs = deltas+c.Deltas, refs+c.Refs
			m.lines = m.lines[1:]
		}
		evicted += m.a.Stats().Evicted + m.b.Stats().Evicted
	})
	t.Logf("%d segments evicted, %d references, %d deltas", evicted, refs, deltas)
}
