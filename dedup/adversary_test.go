package dedup

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/longhaul-project/longhaul/dedup/record"
)

var (
	adversaryPages = flag.Int("adversary.pages", 20_000, "pages of TestAdversary; make adversary sends 10^7")
	adversarySeed  = flag.Uint64("adversary.seed", 16, "first seed of TestAdversary: with 16 there are errors on disk, and restarts")
)

// TestAdversary sends the pages of hostile guests over stores in which errors are
// planted, with acknowledgements that are lost or out of order, messages that are
// damaged, and ends that start anew. Each batch gives the bytes that were sent or
// is refused; where nothing was done to it, it is not refused.
func TestAdversary(t *testing.T) {
	t.Parallel()
	var sum tally
	var mu sync.Mutex // guards sum
	t.Run("seeds", func(t *testing.T) {
		each := min(adversarySeedPages, max(*adversaryPages, 1))
		for n := range uint64((*adversaryPages + each - 1) / each) {
			seed := *adversarySeed + n
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				t.Parallel()
				m := newMischief(t, seed)
				for m.pages < each {
					m.step()
				}
				m.finish()
				mu.Lock()
				defer mu.Unlock()
				sum.add(m.tally)
			})
		}
	})
	t.Logf("from seed %d: %+v", *adversarySeed, sum)
	if *adversaryPages < adversarySeedPages {
		return // too few for everything to happen
	}
	if sum.refs == 0 || sum.deltas == 0 || sum.nacks == 0 || sum.damages == 0 || sum.damagedFiles == 0 || sum.restarts == 0 || sum.pressed == 0 || sum.folded == 0 {
		t.Errorf("something did not happen: %+v", sum)
	}
}

// adversarySeedPages is how many pages are sent with one seed.
const adversarySeedPages = 20_000

// Press takes 0.3 µs a byte at each end (bench/results/press-2026-11-27.txt), many times
// what the rest takes. So one channel in pressEvery has it, in small batches, and
// no more until pressBytes have gone that way with one seed: 0.6 s of a core.
const (
	pressEvery = 4
	pressShare = 10 // of the pages that other channels have in a batch
	pressBytes = 1 << 20

	foldEvery = 4 // one channel in so many has Fold
)

// A tally is what has happened.
type tally struct {
	pages, batches int
	refs, deltas   int64
	fetched        int64
	nacks          int // batches that were refused
	damages        int // errors planted in a store
	damagedFiles   int // of these, in its files
	tampered       int // messages damaged or out of order
	restarts       int
	late           int // messages that came after a restart
	pressed        int // batches that Press had a part in
	folded         int // and Fold
}

func (t *tally) add(o tally) {
	t.pages, t.batches = t.pages+o.pages, t.batches+o.batches
	t.refs, t.deltas, t.fetched = t.refs+o.refs, t.deltas+o.deltas, t.fetched+o.fetched
	t.nacks, t.damages, t.tampered = t.nacks+o.nacks, t.damages+o.damages, t.tampered+o.tampered
	t.damagedFiles += o.damagedFiles
	t.restarts, t.late = t.restarts+o.restarts, t.late+o.late
	t.pressed, t.folded = t.pressed+o.pressed, t.folded+o.folded
}

// A mischief is two stores, the channels between them, and what is done to
// them.
type mischief struct {
	tally
	t       *testing.T
	rng     *rand.Rand
	guest   *forger
	stores  [2]*Store
	twin    *twin // nil: the stores are in memory only
	lines   []*victim
	damager bool // errors are planted
	damaged bool // … and were
	opened  int  // channels so far
	press   int  // bytes that may still go through Press
}

// A victim is one channel.
type victim struct {
	e        *Encoder
	d        *Decoder
	from     int // the store that sends
	before   map[uint64][]byte
	msgs     [][]byte
	want     [][]byte
	pending  []byte
	decoded  uint64
	tampered bool
}

func newMischief(t *testing.T, seed uint64) *mischief {
	m := &mischief{t: t, rng: rand.New(rand.NewPCG(seed, 22)), guest: newForger(seed), damager: seed%2 == 0, press: pressBytes}
	if seed%16 < 2 {
		m.twin = newTwin(t, LibraryConfig{Memory: 8 << 20, Disk: 64 << 20})
		m.stores = m.twin.stores
	} else {
		m.fresh()
	}
	return m
}

func (m *mischief) fresh() {
	for i := range m.stores {
		m.stores[i] = NewStore(Config{Budget: 32 << 20})
	}
}

// step does one thing that may happen at any time.
func (m *mischief) step() {
	if len(m.lines) == 0 || len(m.lines) < 5 && m.rng.IntN(20) == 0 {
		m.open()
	}
	l := m.lines[m.rng.IntN(len(m.lines))]
	switch n := m.rng.IntN(400); {
	case n < 150:
		m.send(l)
	case n < 280:
		for range m.rng.IntN(len(l.msgs) + 1) {
			if !m.deliver(l) {
				return
			}
		}
	case n < 350:
		l.e.Acked(l.decoded)
	case n < 365: // again, or of the past
		l.e.Acked(uint64(m.rng.IntN(int(l.decoded) + 1)))
	case n < 372:
		m.end(l)
	case n < 376:
		m.drop(l)
	case n < 381:
		m.tamper(l)
	case n < 383:
		m.stores[m.rng.IntN(2)].Forget()
	case n < 385:
		m.restart()
	case n < 388 && m.damager && m.twin != nil:
		m.damageFile()
	case m.damager:
		m.damage()
	}
}

func (m *mischief) open() {
	l := &victim{from: m.rng.IntN(2), before: map[uint64][]byte{}}
	from, to := m.stores[l.from], m.stores[1-l.from]
	var c DecoderConfig
	if m.rng.IntN(2) == 0 {
		c.Fetch = from.Pages
	}
	l.d = to.NewDecoder(c)
	set := Setting{Codec: []Codec{Raw, LZ4, Zstd}[m.rng.IntN(3)]}
	switch {
	case m.opened%pressEvery == 0 && m.press > 0:
		set.Codec = Press
	case m.opened%foldEvery == 1:
		set.Codec = Fold
	}
	m.opened++
	l.e = from.NewEncoder(EncoderConfig{PeerReady: true, Setting: set})
	m.lines = append(m.lines, l)
}

func (m *mischief) send(l *victim) {
	n := 1 + m.rng.IntN(300)
	if l.e.set.Codec == Press {
		n = 1 + n/pressShare
	}
	for range n {
		it := m.guest.item(l.before)
		m.pages++
		l.pending = append(append(l.pending, it.Head...), it.Data...)
		if l.e.Add(it) {
			m.cut(l)
		}
	}
	m.cut(l)
}

func (m *mischief) cut(l *victim) {
	for b := l.e.Cut(); b != nil; b = l.e.Cut() {
		msg, err := b.Compress()
		if err != nil {
			m.t.Fatal(err)
		}
		m.count(msg, l)
		l.msgs, l.want = append(l.msgs, msg), append(l.want, bytes.Clone(l.pending[:b.Raw]))
		l.pending = append(l.pending[:0], l.pending[b.Raw:]...)
	}
}

// count counts what a message has of Fold and of Press, and lets its channel go on with
// another codec than Press when that was enough.
func (m *mischief) count(msg []byte, l *victim) {
	parsed, _, err := record.Parse(msg)
	if err != nil {
		m.t.Fatal(err)
	}
	size := map[record.Codec]int{}
	for _, p := range parsed.Parts {
		size[p.Codec] += p.Size
	}
	if size[record.Fold] > 0 {
		m.folded++
	}
	if size[record.Press] > 0 {
		m.pressed++
	}
	if m.press -= size[record.Press]; m.press <= 0 && l.e.set.Codec == Press {
		l.e.SetCodec(Setting{Codec: Zstd})
	}
}

// deliver decodes the next message. It is false when the channel is lost.
func (m *mischief) deliver(l *victim) bool {
	msg, want := l.msgs[0], l.want[0]
	l.msgs, l.want = l.msgs[1:], l.want[1:]
	raw, err := decodeWith(l.d, msg)
	m.batches++
	switch {
	case err == nil && !bytes.Equal(raw, want):
		m.t.Fatalf("batch %d: wrong bytes came out", l.decoded+1)
	case err != nil && !m.damaged && !l.tampered:
		m.t.Fatalf("batch %d, to which nothing was done: %v", l.decoded+1, err)
	case err != nil: // as a gateway does that hears of it
		m.nacks++
		m.stores[l.from].Forget()
		m.drop(l)
		return false
	}
	l.decoded++
	return true
}

func decodeWith(d *Decoder, msg []byte) ([]byte, error) {
	x, err := Expand(msg)
	if err != nil {
		return nil, err
	}
	raw, _, err := d.Decode(nil, x)
	return raw, err
}

// end ends a channel as a move does.
func (m *mischief) end(l *victim) {
	m.cut(l)
	for len(l.msgs) > 0 {
		if !m.deliver(l) {
			return
		}
	}
	if l.e.Digest() != l.d.Digest() {
		m.t.Fatal("digests differ")
	}
	l.e.Acked(l.decoded)
	m.drop(l)
}

// drop closes a channel, whatever is in flight.
func (m *mischief) drop(l *victim) {
	c := l.d.Stats()
	m.refs, m.deltas, m.fetched = m.refs+c.Refs, m.deltas+c.Deltas, m.fetched+c.Fetched
	l.e.Close()
	l.d.Close()
	for i := range m.lines {
		if m.lines[i] == l {
			m.lines = append(m.lines[:i], m.lines[i+1:]...)
			return
		}
	}
}

// tamper damages a message in flight, or lets it be overtaken.
func (m *mischief) tamper(l *victim) {
	n := len(l.msgs)
	if n == 0 {
		return
	}
	m.tampered++
	l.tampered = true
	i := m.rng.IntN(n)
	if j := m.rng.IntN(n); j != i {
		l.msgs[i], l.msgs[j] = l.msgs[j], l.msgs[i]
		l.want[i], l.want[j] = l.want[j], l.want[i]
		return
	}
	msg := bytes.Clone(l.msgs[i])
	msg[m.rng.IntN(len(msg))] ^= 1 << m.rng.IntN(8)
	l.msgs[i] = msg
}

// restart ends both stores and begins with what is left of them. What was in
// flight comes late.
func (m *mischief) restart() {
	m.restarts++
	old := m.lines
	for len(m.lines) > 0 {
		m.drop(m.lines[0])
	}
	if m.twin == nil {
		m.fresh()
		return
	}
	m.twin.stop()
	if m.damager {
		m.damageFile()
	}
	m.twin.start()
	m.stores = m.twin.stores
	for _, l := range old {
		for i, msg := range l.msgs {
			m.late++
			d := m.stores[1-l.from].NewDecoder(DecoderConfig{})
			raw, err := decodeWith(d, msg)
			d.Close()
			if err == nil && !bytes.Equal(raw, l.want[i]) {
				m.t.Fatal("a message of the past gave wrong bytes")
			}
		}
	}
}

// damage plants an error in a page or a segment that one of the ends holds: a bit, with its
// fingerprint or without, or other content of the same fingerprint.
func (m *mischief) damage() {
	s := m.stores[m.rng.IntN(2)]
	s.Flush() // the disk's goroutine reads the same memory
	sh := s.sent
	if m.rng.IntN(2) == 0 {
		sh = s.received
	}
	if sh.next <= sh.free {
		return
	}
	g := sh.at(sh.free + m.rng.Uint64N(sh.next-sh.free))
	if g == nil || g.mem.Load() == nil || g.written.Load() == 0 {
		return
	}
	m.damages++
	m.damaged = true
	first, n := 0, int(g.written.Load())
	if m.rng.IntN(2) == 0 {
		first, n = m.rng.IntN(n), 1
	}
	how := m.rng.IntN(3)
	for i := first; i < first+n; i++ {
		p := g.slot(i)
		q := bytes.Clone(p)
		q[m.rng.IntN(len(q))] ^= 1 << m.rng.IntN(8)
		switch how {
		case 0:
			collide(q, p)
		case 1:
			g.sums[i] = fingerprint(q)
		}
		copy(p, q)
	}
}

// damageFile damages a file of one end: it is cut, gone, or a bit is wrong.
func (m *mischief) damageFile() {
	var files []string
	err := filepath.WalkDir(m.twin.dirs[m.rng.IntN(2)].Path(), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	if len(files) == 0 {
		return
	}
	name := files[m.rng.IntN(len(files))]
	b, err := os.ReadFile(name)
	if err != nil {
		m.t.Fatal(err)
	}
	if len(b) == 0 {
		return
	}
	m.damages++
	m.damagedFiles++
	m.damaged = true
	switch m.rng.IntN(3) {
	case 0:
		err = os.Remove(name)
	case 1:
		err = os.WriteFile(name, b[:m.rng.IntN(len(b))], 0o600)
	case 2:
		b[m.rng.IntN(len(b))] ^= 1 << m.rng.IntN(8)
		err = os.WriteFile(name, b, 0o600)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *mischief) finish() {
	for len(m.lines) > 0 {
		m.end(m.lines[0])
	}
}
