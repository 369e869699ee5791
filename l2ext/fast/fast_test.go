package fast

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

var seed = flag.Uint64("fast.seed", uint64(time.Now().UnixNano()), "seed of the random tests")

func random(t testing.TB) *rand.Rand {
	t.Logf("-fast.seed %d", *seed)
	return rand.New(rand.NewPCG(*seed, 1))
}

var secret = Secret{1, 2, 3}

var way = Way{From: "a", To: "b", Epoch: 7}

func ends(t testing.TB) (*Sealer, *Opener) {
	s, err := NewSealer(secret, way, 0xabcdef01)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener(secret, way)
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

// message is a message of n bytes that says who it is.
func message(n int, fill byte) []byte {
	m := Plain(nil)
	for len(m) < n {
		m = append(m, fill)
	}
	return m
}

// scribbled is a message of n bytes of which no part is like another.
func scribbled(r *rand.Rand, n int) []byte {
	m := message(n, 0)
	for i := OffloadLen; i < n; i++ {
		m[i] = byte(r.Uint32())
	}
	return m
}

// packets takes batches apart as the kernel does.
func packets(out *[][]byte) func([]byte, int) {
	return func(batch []byte, size int) {
		for p := range slices.Chunk(slices.Clone(batch), size) {
			*out = append(*out, p)
		}
	}
}

// receive opens datagrams and joins what is in them. Of each, others have sent a
// spoilt one before, and send it again afterwards.
func receive(t testing.TB, o *Opener, j *Joiner, datagrams [][]byte) (msgs [][]byte) {
	t.Helper()
	for i, d := range datagrams {
		if x, err := Index(d); err != nil || x != 0xabcdef01 {
			t.Fatalf("datagram %d: index %#x, %v", i, x, err)
		}
		forged, again := slices.Clone(d), slices.Clone(d)
		forged[len(forged)-1-i%(len(forged)-HeaderLen)] ^= 1
		if _, _, _, err := j.Open(o, forged); !errors.Is(err, ErrForged) {
			t.Fatalf("datagram %d, forged: %v", i, err)
		}
		r, msg, b, err := j.Open(o, d)
		if err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
		if msg != nil {
			if r.Kind != Piece || r.Total != len(msg) {
				t.Errorf("datagram %d: a message of %d bytes ends with %+v", i, len(msg), r)
			}
			msgs = append(msgs, slices.Clone(msg))
		}
		for len(b) > 0 {
			r, n, err := Parse(b)
			if err != nil {
				t.Fatalf("datagram %d: %v", i, err)
			}
			b = b[n:]
			switch r.Kind {
			case Whole:
				msgs = append(msgs, slices.Clone(r.Body))
			case Piece:
				msg, err := j.Add(r)
				if err != nil {
					t.Fatalf("datagram %d: %v", i, err)
				}
				if msg != nil {
					msgs = append(msgs, slices.Clone(msg))
				}
			}
		}
		if _, _, _, err := j.Open(o, again); !errors.Is(err, ErrReplayed) {
			t.Fatalf("datagram %d, again: %v", i, err)
		}
	}
	return msgs
}

// TestVector holds the format still: both ends must agree on every bit of it. Its
// bytes are also what Python's cryptography makes of the drawing in doc.go.
func TestVector(t *testing.T) {
	s, _ := ends(t)
	var got [][]byte
	p := NewPacker(new(atomic.Uint32), packets(&got))
	p.Start(s, MinDatagram)
	p.Add(Record{VNI: 0x010203, Redirected: true}, message(minMessage, 0x55))
	p.Flush()
	const want = "1c010000abcdef010000000000000000" +
		"bc50dd354ccbf9de68179b0f26599bcd2ea4ac35fc71519eb7da7d25f3972711867d971f6fc1bed6ed88ce095a6a"
	if len(got) != 1 || hex.EncodeToString(got[0]) != want {
		t.Errorf("%x\nwant %s", got, want)
	}
}

func TestRecordBytes(t *testing.T) {
	for _, tt := range []struct {
		r    Record
		want string
	}{
		{Record{Kind: Padding}, "00"},
		{Record{Kind: Hello, Heard: 0x0102030405060708}, "030102030405060708"},
		{Record{Kind: Whole, VNI: 0x0a0b0c, Total: 24, Body: bytes.Repeat([]byte{9}, 24)}, "010a0b0c0018090909090909090909090909090909090909090909090909"},
		{Record{Kind: Piece, Redirected: true, VNI: 1, ID: 0x11223344, Total: 65000, Offset: 0x1234, Body: []byte{7, 8}}, "82000001000211223344" + "00fde8" + "001234" + "0708"},
	} {
		b := tt.r.Append(nil)
		if hex.EncodeToString(b) != tt.want {
			t.Errorf("%+v is written %x, want %s", tt.r, b, tt.want)
		}
		got, n, err := Parse(b)
		if err != nil || n != len(b) || got.Kind != tt.r.Kind || got.VNI != tt.r.VNI || got.ID != tt.r.ID || got.Total != tt.r.Total ||
			got.Offset != tt.r.Offset || got.Heard != tt.r.Heard || got.Redirected != tt.r.Redirected || !bytes.Equal(got.Body, tt.r.Body) {
			t.Errorf("%x is read %+v, %d, %v", b, got, n, err)
		}
		for i := range b {
			if _, _, err := Parse(b[:i]); !errors.Is(err, ErrShort) {
				t.Errorf("%x: %v", b[:i], err)
			}
		}
	}
	for _, bad := range []string{"04", "80", "83" + "0102030405060708", "01000001" + "0000", "01000001" + "0017", "02000001000200000001" + "ffffff" + "000000" + "0708", "02000001000200000001" + "000020" + "00001f" + "0708"} {
		b, _ := hex.DecodeString(bad)
		if _, _, err := Parse(append(b, make([]byte, 64)...)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestPackAndJoin sends messages of all lengths, in order, one lost now and then.
func TestPackAndJoin(t *testing.T) {
	r := random(t)
	s, o := ends(t)
	for _, size := range []int{MinDatagram, 1252, 1452, MaxDatagram} {
		var wire [][]byte
		p := NewPacker(new(atomic.Uint32), packets(&wire))
		p.Start(s, size)
		var sent [][]byte
		for i := range 300 {
			n := minMessage + r.IntN(200)
			switch r.IntN(6) {
			case 0:
				n = minMessage + r.IntN(MaxMessage-minMessage+1)
			case 1, 2:
				n = OffloadLen + 1514
			}
			sent = append(sent, scribbled(r, n))
			was := slices.Clone(sent[i])
			if !p.Add(Record{VNI: uint32(i)}, sent[i]) {
				t.Fatal("the key is worn out")
			}
			if !bytes.Equal(sent[i], was) {
				t.Fatalf("message %d is not what it was before it was packed", i)
			}
			if r.IntN(20) == 0 {
				p.Flush()
			}
		}
		p.Flush()
		for i, d := range wire {
			if len(d) > size {
				t.Fatalf("datagram %d has %d bytes, of %d", i, len(d), size)
			}
		}
		if got := receive(t, o, new(Joiner), wire); !slices.EqualFunc(got, sent, bytes.Equal) {
			t.Errorf("size %d: %d messages came, or not as they were; want %d", size, len(got), len(sent))
		}
	}
}

// TestLostAndReordered: what is lost takes along only the messages that it has a
// part of, and what is late by a few places is joined all the same. Two senders share
// the key, so that their messages mix.
func TestLostAndReordered(t *testing.T) {
	r := random(t)
	s, o := ends(t)
	var wire [][]byte
	ids := new(atomic.Uint32)
	senders := []*Packer{NewPacker(ids, packets(&wire)), NewPacker(ids, packets(&wire))}
	sent := make(map[string]bool)
	const messages = 40
	for i := range messages {
		p := senders[i%2]
		p.Start(s, 1452)
		m := scribbled(r, 30_000)
		sent[string(m)] = true
		p.Add(Record{VNI: 1}, m)
		if i%2 == 1 {
			senders[0].Flush()
			senders[1].Flush()
		}
	}
	for i := 0; i+1 < len(wire); i += 2 + i%3 {
		wire[i], wire[i+1] = wire[i+1], wire[i]
	}
	lost := 0
	kept := wire[:0]
	for i, d := range wire {
		if i%97 == 5 {
			lost++
			continue
		}
		kept = append(kept, d)
	}
	j := new(Joiner)
	got := receive(t, o, j, kept)
	if len(got) < messages-lost || len(got) == messages {
		t.Errorf("%d of %d messages came, with %d datagrams lost", len(got), messages, lost)
	}
	for _, m := range got {
		if !sent[string(m)] {
			t.Fatal("a message has parts of another")
		}
		delete(sent, string(m))
	}
	for range 2 * joining { // pieces that never become whole make no more room than there is
		j.Add(Record{Kind: Piece, ID: r.Uint32(), Total: MaxMessage, Offset: 1, Body: []byte{1}})
	}
	if j.Lost() < joining {
		t.Errorf("%d were given up", j.Lost())
	}
}

// TestHostileDatagrams: nothing but what was sealed opens, and only once.
func TestHostileDatagrams(t *testing.T) {
	s, o := ends(t)
	var wire [][]byte
	p := NewPacker(new(atomic.Uint32), packets(&wire))
	p.Start(s, 1452)
	p.Add(Record{VNI: 1}, message(100, 1))
	p.Flush()
	d := wire[0]
	for i := range d {
		bad := slices.Clone(d)
		bad[i] ^= 1
		if _, err := Index(bad); err != nil {
			continue
		}
		if i >= 4 && i < 8 {
			continue // another key
		}
		want := ErrForged
		if i >= 8 && i < 12 {
			want = ErrReplayed // a counter that no key gets to
		}
		if _, err := o.Open(bad); !errors.Is(err, want) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if o.Heard() != 0 {
		t.Errorf("forgeries moved the window to %d", o.Heard())
	}
	other, err := NewOpener(secret, Way{From: "b", To: "a", Epoch: 7})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(slices.Clone(d)); !errors.Is(err, ErrForged) {
		t.Errorf("sent back: %v", err)
	}
	if _, err := o.Open(slices.Clone(d)); err != nil {
		t.Error(err)
	}
	if _, err := o.Open(slices.Clone(d)); !errors.Is(err, ErrReplayed) {
		t.Errorf("again: %v", err)
	}
	for i := range Overhead {
		if _, err := Index(d[:i]); !errors.Is(err, ErrShort) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
}

// TestWornOut: a key seals so many datagrams and no more, whoever asks.
func TestWornOut(t *testing.T) {
	s, o := ends(t)
	var wire [][]byte
	p := NewPacker(new(atomic.Uint32), packets(&wire))
	p.Start(s, 1452)
	s.used.Store(MaxSealed - 2)
	for i := range 4 {
		p.Add(Record{VNI: 1}, message(100, 1))
		if ok := p.Flush(); ok != (i < 2) {
			t.Errorf("datagram %d from the end: %v", 2-i, ok)
		}
	}
	if len(wire) != 2 || s.used.Load() != MaxSealed {
		t.Errorf("%d datagrams, %d counted", len(wire), s.used.Load())
	}
	if got := receive(t, o, new(Joiner), wire); len(got) != 2 {
		t.Errorf("%d messages", len(got))
	}
}

// TestWindow compares the window with one that keeps all that came.
func TestWindow(t *testing.T) {
	r := random(t)
	for range 20 {
		var w window
		seen, next := make(map[uint64]bool), uint64(0)
		at := uint64(0)
		for range 3000 {
			switch r.IntN(10) {
			case 0:
				at += uint64(r.IntN(3 * windowBits))
			case 1:
				at += blockBits
			default:
				at += uint64(r.IntN(3))
			}
			c := at - min(at, uint64(r.IntN(2*windowBits)/(1+r.IntN(50))))
			want := !seen[c] && (c >= next || next-1-c < Window)
			if got := w.fresh(c); got != want {
				t.Fatalf("counter %d with %d the highest: %v, want %v", c, next-1, got, want)
			}
			if want {
				w.note(c)
				seen[c], next = true, max(next, c+1)
			}
		}
	}
}

func TestHelloFillsItsDatagram(t *testing.T) {
	s, o := ends(t)
	var wire [][]byte
	p := NewPacker(new(atomic.Uint32), packets(&wire))
	p.Start(s, 1452)
	p.Add(Record{VNI: 1}, message(100, 1))
	p.Hello(77)
	if len(wire) != 2 || len(wire[1]) != 1452 {
		t.Fatalf("%d datagrams", len(wire))
	}
	o.Open(wire[0])
	b, err := o.Open(wire[1])
	if err != nil {
		t.Fatal(err)
	}
	if r, _, err := Parse(b); err != nil || r.Kind != Hello || r.Heard != 77 || o.Heard() != 2 {
		t.Errorf("%+v, %v; heard %d", r, err, o.Heard())
	}
}

// TestNoGarbage: the way of a frame allocates nothing, and a forgery neither.
func TestNoGarbage(t *testing.T) {
	s, o := ends(t)
	j := new(Joiner)
	forged := make([]byte, 1452)
	p := NewPacker(new(atomic.Uint32), func(batch []byte, size int) {
		for len(batch) > 0 {
			d := batch[:min(size, len(batch))]
			batch = batch[len(d):]
			copy(forged, d)
			forged[len(forged)-1] ^= 1
			j.Open(o, forged)
			_, _, b, err := j.Open(o, d)
			for err == nil && len(b) > 0 {
				var r Record
				var n int
				r, n, err = Parse(b)
				b = b[n:]
				if r.Kind == Piece {
					_, err = j.Add(r)
				}
			}
		}
	})
	p.Start(s, 1452)
	long, short := message(64_000, 1), message(90, 2)
	one := func() {
		p.Add(Record{VNI: 1}, long)
		p.Add(Record{VNI: 1}, short)
		p.Flush()
	}
	one()
	if n := testing.AllocsPerRun(50, one); n > 0 {
		t.Errorf("%v allocations for each pair of frames", n)
	}
}

// TestName: each secret has a name of its own, and the same at both ends.
func TestName(t *testing.T) {
	names := make(map[uint64]bool)
	for i := range 1000 {
		s := Secret{byte(i), byte(i >> 8)}
		name, err := s.Name()
		if err != nil {
			t.Fatal(err)
		}
		names[name] = true
	}
	if got, err := secret.Name(); err != nil || len(names) != 1000 || names[got] {
		t.Errorf("%d names of 1000 secrets; %x, %v", len(names), got, err)
	}
}
