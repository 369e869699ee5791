package dedup

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/longhaul-project/longhaul/dedup/fold"
	"github.com/longhaul-project/longhaul/dedup/press"
	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// forge makes a batch of uncompressed columns, with the right digest for raw.
func forge(m record.Message, raw []byte, ops ...record.Op) []byte {
	var col []byte
	for _, o := range ops {
		col = o.Append(col)
	}
	if len(col) > 0 {
		m.Parts[record.Ops] = record.Part{Codec: record.Raw, Size: len(col), Data: col}
	}
	m.Digest = digestOf(raw, &m)
	return m.Append(nil)
}

func literals(b []byte) [record.Columns]record.Part {
	return [record.Columns]record.Part{record.Literals: {Codec: record.Raw, Size: len(b), Data: b}}
}

// TestHostile: what a peer could send to hurt us is refused, with a reason.
func TestHostile(t *testing.T) {
	pg := make([]byte, page.Size)
	fillRandom(pg, 1)
	head := func(m record.Message) record.Message {
		m.Seq, m.Store = max(m.Seq, 1), 7
		return m
	}
	one := record.Message{Raw: page.Size, Items: 1}
	full := record.Message{Raw: page.Size, Items: 1, Parts: literals(pg)}
	for _, tt := range []struct {
		name string
		msg  []byte
		want string
	}{
		{"out of order", forge(record.Message{Seq: 2, Store: 7}, nil), "out of order"},
		{"nameless store", forge(record.Message{Seq: 1}, nil), "another store"},
		{"for another store", forge(record.Message{Seq: 1, Store: 7, Flags: record.Uses, Peer: 99}, nil), "made for store"},
		{"page not held", forge(head(one), pg, record.Op{Kind: record.Ref, Count: 1, Ref: 300}), "page 300 of the peer's is not held"},
		{"page of ours not held", forge(head(one), pg, record.Op{Kind: record.Ref, Count: 1, Ref: 300, Other: true}), "page 300 of ours is not held"},
		{"page number over all", forge(head(one), pg, record.Op{Kind: record.Ref, Count: 1, Ref: -5}), "is not held"},
		{"unwritten slot", forge(head(one), pg, record.Op{Kind: record.Segment, Segment: 1}, record.Op{Kind: record.Ref, Count: 1, Ref: 256}), "page 256 of the peer's is not held"},
		{"nothing at the address", forge(head(one), pg, record.Op{Kind: record.Same, Addr: record.AddrFar, Space: 1, Count: 1}), "nothing has come"},
		{"segment far away", forge(head(one), pg, record.Op{Kind: record.Segment, Segment: 1 << 40}), "budget is above ours"},
		{"segment below the floor", forge(head(record.Message{Floor: 10}), nil, record.Op{Kind: record.Segment, Segment: 9}), "below the floor"},
		{"segment twice", forge(head(one), pg, record.Op{Kind: record.Segment, Segment: 2}, record.Op{Kind: record.Segment, Segment: 2}), "open already"},
		{"no segment", forge(head(full), pg, record.Op{Kind: record.Literal, Count: 1}), "no segment is open"},
		{"more items", forge(head(one), pg, record.Op{Kind: record.Blank, Count: 16384}), "more items"},
		{"more bytes", forge(head(record.Message{Raw: 100, Items: 9}), pg, record.Op{Kind: record.Blank, Count: 1}), "more items or bytes"},
		{"fewer bytes", forge(head(record.Message{Raw: 8192, Items: 1}), pg, record.Op{Kind: record.Blank, Count: 1}), "1 items of 4096 bytes rebuilt"},
		{"bytes left over", forge(head(full), pg, record.Op{Kind: record.Blank, Count: 1}), "left over"},
		{"missing literals", forge(head(one), pg, record.Op{Kind: record.Passing, Count: 1}), "too short"},
		{"missing opaque", forge(head(one), pg, record.Op{Kind: record.Bytes, Count: 4096}), "too short"},
		{"jump before the start", forge(head(one), pg, record.Op{Kind: record.Blank, Addr: record.AddrJump, Jump: -1, Count: 1}), "address out of range"},
		{"run over the end", forge(head(record.Message{Raw: 8192, Items: 2}), pg, record.Op{Kind: record.Blank, Addr: record.AddrFar, Space: 1, Page: record.MaxPage, Count: 2}), "address out of range"},
		{"other content", forge(head(full), nil, record.Op{Kind: record.Passing, Count: 1}), "digest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, err := Expand(tt.msg)
			if err != nil {
				t.Fatal(err)
			}
			raw, _, err := NewStore(Config{ID: 1}).NewDecoder(DecoderConfig{}).Decode(nil, x)
			if err == nil || !strings.Contains(err.Error(), tt.want) || len(raw) > 0 {
				t.Errorf("%d bytes, error %v; want one with %q", len(raw), err, tt.want)
			}
		})
	}
	// And the same page, honestly.
	x, err := Expand(forge(head(full), pg, record.Op{Kind: record.Segment, Segment: 1}, record.Op{Kind: record.Literal, Count: 1}))
	if err != nil {
		t.Fatal(err)
	}
	if raw, _, err := NewStore(Config{}).NewDecoder(DecoderConfig{}).Decode(nil, x); err != nil || !bytes.Equal(raw, pg) {
		t.Errorf("an honest page is refused: %v", err)
	}
}

// TestBombs: a column that expands to more than it states, or needs more
// memory than a message may, is refused.
func TestBombs(t *testing.T) {
	long(t)
	pack := func(n int, o ...zstd.EOption) []byte {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, o...)
		if err != nil {
			t.Fatal(err)
		}
		for range n >> 20 {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	lz := append([]byte{0x1f, 0, 1, 0}, bytes.Repeat([]byte{255}, 2000)...)
	for _, tt := range []struct {
		name  string
		codec record.Codec
		data  []byte
	}{
		{"64 MiB of zeros", record.Zstd, pack(64 << 20)},
		{"window of 512 MiB", record.Zstd, pack(1<<20, zstd.WithWindowSize(1<<29))},
		{"lz4 run", record.LZ4, append(lz, 0)},
		{"not zstd", record.Zstd, []byte("nothing of the kind")},
		{"not press", record.Press, []byte("nothing of the kind")},
		{"press of another size", record.Press, press.New().Append(nil, make([]byte, 1<<20-1))},
		{"not fold", record.Fold, []byte("nothing of the kind")},
		{"fold of another size", record.Fold, fold.New().Append(nil, make([]byte, 1<<20-1))},
		{"two frames", record.Zstd, bytes.Repeat(pack(1<<20), 2)},
	} {
		m := record.Message{Seq: 1, Store: 7, Raw: 1 << 20, Items: 1,
			Parts: [record.Columns]record.Part{record.Literals: {Codec: tt.codec, Size: 1 << 20, Data: tt.data}}}
		if _, err := Expand(m.Append(nil)); err == nil || !strings.Contains(err.Error(), "batch 1: column 2: expanding") {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
	if _, err := Expand(append(forge(record.Message{Seq: 1, Store: 7}, nil), 0)); !errors.Is(err, errTrailing) {
		t.Errorf("a byte behind the message: error %v", err)
	}
}

// TestSlowColumns: what takes long to expand is bounded for a message, in one column or
// in several, and no encoder makes more of it.
func TestSlowColumns(t *testing.T) {
	zeros := make([]byte, record.MaxRaw)
	pressed := func(n int) record.Part {
		return record.Part{Codec: record.Press, Size: n, Data: press.New().Append(nil, zeros[:n])}
	}
	folded := func(n int) record.Part {
		return record.Part{Codec: record.Fold, Size: n, Data: fold.New().Append(nil, zeros[:n])}
	}
	const half = record.MaxPress / 2
	const beside = record.MaxPress - (record.MaxRaw+5)/6 // of press, with as much folded as a column may have
	const over = "1572865 bytes in columns of press, each 6 of fold as one, over 1572864"
	for _, tt := range []struct {
		name  string
		parts [record.Columns]record.Part
		want  string
	}{
		{"one", [record.Columns]record.Part{record.Literals: pressed(record.MaxPress + 1)}, over},
		{"two", [record.Columns]record.Part{record.Deltas: pressed(half + 1), record.Opaque: pressed(half)}, over},
		{"a little of fold beside press", [record.Columns]record.Part{record.Deltas: folded(6), record.Opaque: pressed(record.MaxPress)}, over},
		{"much of fold beside press", [record.Columns]record.Part{record.Deltas: folded(record.MaxRaw), record.Opaque: pressed(beside + 1)}, over},
		{"as much of both as may be", [record.Columns]record.Part{record.Deltas: folded(record.MaxRaw), record.Opaque: pressed(beside)}, ""},
		{"as much as may be", [record.Columns]record.Part{record.Deltas: pressed(half), record.Opaque: pressed(half)}, ""},
	} {
		m := record.Message{Seq: 1, Store: 7, Raw: record.MaxRaw, Items: 8192, Parts: tt.parts}
		_, err := Expand(m.Append(nil))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}

	e := NewStore(Config{}).NewEncoder(EncoderConfig{Setting: Setting{Codec: Press}})
	defer e.Close()
	e.Add(fullPage(1, 1, zeros[:page.Size]))
	b := e.Cut()
	b.msg.Raw, b.msg.Items = record.MaxRaw, 8192 // a batch of little but long deltas
	b.bufs.literals, b.bufs.deltas = make([]byte, 1<<20), make([]byte, 1<<20)
	msg, err := b.Compress()
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := record.Parse(msg)
	if err != nil {
		t.Fatal(err)
	}
	if l, d := m.Parts[record.Literals].Codec, m.Parts[record.Deltas].Codec; l != record.Press || d != record.Zstd {
		t.Errorf("literals are %s, deltas that do not fit beside them %s", l, d)
	}
}

// TestNewStores: when one end has started anew, the other is told so instead
// of getting pages that it does not hold.
func TestNewStores(t *testing.T) {
	items := guest(1, 300)
	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{})
	w.add(items...)
	w.close()
	home := newWire(t, b, a, EncoderConfig{})
	home.add(items...)
	home.close()

	if err := try(t, newWire(t, NewStore(Config{}), b, EncoderConfig{}), items); !errors.Is(err, ErrStore) {
		t.Errorf("sender has a new store: error %v", err)
	}
	if err := try(t, newWire(t, a, NewStore(Config{}), EncoderConfig{PeerReady: true}), items); !errors.Is(err, ErrStore) {
		t.Errorf("receiver has a new store: error %v", err)
	}
}

// TestAddresses: pages at addresses without end do not make the tables grow
// without end, and both ends forget the same.
func TestAddresses(t *testing.T) {
	long(t)
	var v versions
	rng := rand.New(rand.NewPCG(1, 1))
	for range 3 * maxChunks {
		if at := v.at(page.Addr{Space: rng.Uint32() | 1, Offset: rng.Uint64()}); at != nil {
			*at = 1
		}
	}
	if len(v.chunks) > maxChunks {
		t.Errorf("%d chunks", len(v.chunks))
	}
	if v.at(page.Addr{Space: 0}) != nil {
		t.Error("an unknown address is remembered")
	}

	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{Setting: Setting{Codec: Raw}})
	pg := make([]byte, page.Size)
	fillRandom(pg, 1)
	for i := range uint64(2) {
		for n := range uint64(maxChunks + 100) {
			w.add(fullPage(1+uint32(n%3), (n*7+i)*chunkPages, pg))
		}
	}
	w.close()
}

// TestStructureIsCheap: runs cost nearly nothing, random order little.
func TestStructureIsCheap(t *testing.T) {
	long(t)
	items := guest(1, 1500)
	for _, tt := range []struct {
		name string
		mix  func()
		max  float64 // bytes per item of a known guest
	}{
		{"in order", func() {}, 0.5},
		{"at random", func() {
			rand.New(rand.NewPCG(1, 1)).Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		}, 5.5},
	} {
		a, b := NewStore(Config{}), NewStore(Config{})
		w := newWire(t, a, b, EncoderConfig{})
		w.add(items...)
		w.flush()
		tt.mix()
		w.sent = 0
		w.add(items...)
		w.close()
		got := float64(w.sent) / float64(len(items))
		if got > tt.max {
			t.Errorf("%s: %.2f bytes per item, want at most %.2f", tt.name, got, tt.max)
		}
		t.Logf("%s: %.2f bytes per item", tt.name, got)
	}
}

// FuzzDecode: no message makes a decoder panic, use memory over its budget, or
// return bytes that are not proved.
func FuzzDecode(f *testing.F) {
	msg, _ := variety(f)
	f.Add(msg)
	pg := make([]byte, page.Size)
	fillRandom(pg, 1)
	f.Add(forge(record.Message{Seq: 1, Store: 7, Raw: page.Size, Items: 1, Parts: literals(pg)}, pg,
		record.Op{Kind: record.Segment, Segment: 1}, record.Op{Kind: record.Literal, Count: 1}))
	f.Add(tables(f, Press, record.Press, 3))
	f.Add(tables(f, Fold, record.Fold, foldLeast/page.Size+1))
	f.Fuzz(func(t *testing.T, msg []byte) {
		x, err := Expand(msg)
		if err != nil {
			return
		}
		s := NewStore(Config{Budget: 1})
		m := x.msg
		raw, _, err := s.NewDecoder(DecoderConfig{}).Decode(nil, x)
		if err == nil && digestOf(raw, &m) != m.Digest {
			t.Error("bytes that are not proved")
		}
		if st := s.Stats(); st.Bytes > st.Budget {
			t.Errorf("%+v", st)
		}
	})
}

// tables is a message of n pages of tables, coded with c, by which one of its columns
// has to be coded as want.
func tables(f *testing.F, c Codec, want record.Codec, n int) []byte {
	rng := rand.New(rand.NewPCG(9, 9))
	e := NewStore(Config{ID: 1}).NewEncoder(EncoderConfig{Setting: Setting{Codec: c}})
	defer e.Close()
	for i := range n {
		var pg []byte
		for len(pg) < page.Size {
			pg = append(pg, byte(rng.Uint32()), byte(rng.Uint32()&3), 0, 0, 0x81, 0x88, 0xff, 0xff)
		}
		e.Add(fullPage(1, uint64(i), pg))
	}
	msg, err := e.Cut().Compress()
	if err != nil {
		f.Fatal(err)
	}
	m, _, err := record.Parse(msg)
	if err != nil {
		f.Fatal(err)
	}
	if !slices.ContainsFunc(m.Parts[:], func(p record.Part) bool { return p.Codec == want }) {
		f.Fatalf("no column of %d pages is coded with %s", n, want)
	}
	return msg
}

// FuzzRebuild gives a decoder columns that need not be compressed or proved,
// so that the fuzzer gets at the ops.
func FuzzRebuild(f *testing.F) {
	msg, raw := variety(f)
	x, err := Expand(msg)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(x.bufs.ops, x.bufs.deltas, x.bufs.literals, x.bufs.opaque, len(raw), x.msg.Items)
	f.Fuzz(func(t *testing.T, ops, deltas, literals, opaque []byte, raw, items int) {
		if raw < 0 || raw > record.MaxRaw || items < 0 || items > record.MaxItems {
			return
		}
		s := NewStore(Config{Budget: 1})
		d := s.NewDecoder(DecoderConfig{})
		m := record.Message{Seq: 1, Store: 7, Floor: 1, Raw: raw, Items: items}
		r, err := d.Resolve(&Expanded{Raw: raw, msg: m, bufs: &buffers{ops: ops, deltas: deltas, literals: literals, opaque: bytes.Clone(opaque)}})
		if err == nil {
			w := r.begin(nil)
			if err := w.run(); len(w.out) > raw {
				t.Errorf("%d bytes for %d: %v", len(w.out), raw, err)
			}
		}
		if st := s.Stats(); st.Bytes > st.Budget {
			t.Errorf("%+v", st)
		}
	})
}
