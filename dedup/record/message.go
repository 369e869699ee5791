package record

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The first bytes of a message.
const (
	Magic   = 0x4c487262 // "LHrb"
	Version = 1
)

// Limits of one message. MaxRaw is what a receiver has to hold besides the
// message itself; 8192 items are 32 MiB of known pages, so a batch of pages
// is ended by its bytes, and a batch of zero pages by its items.
const (
	MaxRaw   = 4 << 20
	MaxItems = 16384
)

// MaxPress is how many bytes the columns of a message that are coded with Press may
// stand for, all together; each foldPer bytes of those with Fold count as one. A few KiB
// may stand for as much as is allowed, and whatever it is, a byte of Press takes 0.3 µs to
// expand and one of Fold up to 0.05 (press-2026-11-27.txt and fold-2026-11-27.txt in
// bench/results). The columns of a message may have 9.25 MiB: a hostile peer would have
// 3 s of a core for a few packets. So it has half a second, for both together.
//
// The encoder's batches have 1 MiB and an item of literals and opaque bytes. Of Fold it
// cannot make too much: 9 MiB may be folded. A batch of it has 3 MiB and an item of
// stream, and so at most as much of literals and opaque bytes, as much of deltas, and
// 1.25 MiB of ops.
const (
	MaxPress = 3 << 19
	foldPer  = 6
)

// SegmentPages is the number of pages in a segment of a store: 1 MiB, small
// enough that a channel that sends little wastes little.
const SegmentPages = 256

// MaxSegment bounds segment numbers so that a reference fits a varint.
const MaxSegment = 1 << 48

// DigestSize is the length of a batch's digest in bytes. 128 bits of SHA-256:
// nobody finds a second batch with the same digest (reliability.md, C.1).
const DigestSize = 16

// Bounds of columns that do not follow from Raw: no op is longer than
// maxOpSize, and a delta's instructions are shorter than the page they make.
const (
	maxOpSize    = 80
	maxDeltaSize = 4096
)

// ErrShort means that the bytes end before the value does.
var ErrShort = errors.New("record: message is cut short")

// errForm is the reason of all refusals but ErrShort.
var errForm = errors.New("record: malformed message")

// Flags of a message.
type Flags uint8

// The flags. The first three are the marks of package page.
const (
	Flush Flags = 1 << iota
	Seal
	Hold
	Uses // the channel may refer to the receiver's own pages

	allFlags = Flush | Seal | Hold | Uses
)

// Codec says how a column is compressed.
type Codec uint8

// The codecs. The zero Codec is that of an empty column.
const (
	Raw   Codec = iota + 1
	LZ4         // one LZ4 block
	Zstd        // one Zstandard frame, RFC 8878
	Press       // one block of dedup/press
	_           // the first form of dedup/fold, which no gateway has any more
	Fold        // one block of dedup/fold

	lastCodec = Fold
)

// String names the codec.
func (c Codec) String() string {
	switch c {
	case 0:
		return "empty"
	case Raw:
		return "raw"
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	case Press:
		return "press"
	case Fold:
		return "fold"
	}
	return fmt.Sprintf("codec %d", uint8(c))
}

// Column is the index of a column in a Message.
type Column int

// The columns.
const (
	Ops Column = iota
	Deltas
	Literals
	Opaque
	Columns // how many there are
)

// Part is one column as it travels.
type Part struct {
	Codec Codec
	Size  int    // bytes before compression
	Data  []byte // bytes as sent; borrowed from the message after Parse
}

// Message is a batch on the wire.
type Message struct {
	Flags     Flags
	Seq       uint64
	Store     uint64
	Floor     uint64 // segment number
	Peer      uint64
	PeerFloor uint64 // segment number
	Raw       int    // bytes
	Items     int
	Digest    [DigestSize]byte
	Parts     [Columns]Part
}

// AppendHeader appends what stands before the digest, which covers it.
func (m *Message) AppendHeader(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, Magic)
	b = append(b, Version, byte(m.Flags))
	b = binary.AppendUvarint(b, m.Seq)
	b = binary.BigEndian.AppendUint64(b, m.Store)
	b = binary.AppendUvarint(b, m.Floor)
	if m.Flags&Uses != 0 {
		b = binary.BigEndian.AppendUint64(b, m.Peer)
		b = binary.AppendUvarint(b, m.PeerFloor)
	}
	b = binary.AppendUvarint(b, uint64(m.Raw))
	return binary.AppendUvarint(b, uint64(m.Items))
}

// Append appends the encoding of m to b.
func (m *Message) Append(b []byte) []byte {
	b = append(m.AppendHeader(b), m.Digest[:]...)
	for _, p := range m.Parts {
		b = append(b, byte(p.Codec))
		if p.Codec != 0 {
			b = binary.AppendUvarint(b, uint64(p.Size))
			b = binary.AppendUvarint(b, uint64(len(p.Data)))
		}
	}
	for _, p := range m.Parts {
		b = append(b, p.Data...)
	}
	return b
}

// Len is an upper bound of the length of m's encoding in bytes, close enough
// to allocate by.
func (m *Message) Len() int {
	const header = 4 + 2 + 9 + 8 + 9 + 8 + 9 + 5 + 5 + DigestSize + int(Columns)*11
	n := header
	for _, p := range m.Parts {
		n += len(p.Data)
	}
	return n
}

// Parse reads the message at the start of b; n is the number of bytes it
// takes. The parts borrow from b. It refuses sizes over the limits, and
// allocates nothing.
func Parse(b []byte) (m Message, n int, err error) {
	r := reader{b: b}
	if r.uint32() != Magic && r.err == nil {
		return m, 0, fmt.Errorf("%w: first bytes are not those of a batch", errForm)
	}
	if v := r.byte(); v != Version && r.err == nil {
		return m, 0, fmt.Errorf("%w: version %d, this gateway knows %d", errForm, v, Version)
	}
	m.Flags = Flags(r.byte())
	if m.Flags&^allFlags != 0 && r.err == nil {
		return m, 0, fmt.Errorf("%w: unknown flags %#x", errForm, uint8(m.Flags))
	}
	m.Seq = r.uvarint("sequence number", 1<<63)
	m.Store = r.uint64()
	m.Floor = r.uvarint("floor", MaxSegment)
	if m.Flags&Uses != 0 {
		m.Peer = r.uint64()
		m.PeerFloor = r.uvarint("peer's floor", MaxSegment)
	}
	m.Raw = int(r.uvarint("raw size", MaxRaw))
	m.Items = int(r.uvarint("number of items", MaxItems))
	copy(m.Digest[:], r.bytes(DigestSize))
	m.parts(&r)
	if r.err != nil {
		return Message{}, 0, r.err
	}
	return m, r.n, nil
}

// parts reads the table of columns and then the columns.
func (m *Message) parts(r *reader) {
	var wire [Columns]int
	limits := [Columns]int{
		Ops:      m.Items*maxOpSize + maxOpSize,
		Deltas:   m.Items * maxDeltaSize,
		Literals: m.Raw,
		Opaque:   m.Raw,
	}
	limits[Deltas] = min(limits[Deltas], m.Raw)
	for i := range m.Parts {
		p := &m.Parts[i]
		p.Codec = Codec(r.byte())
		switch {
		case r.err != nil || p.Codec == 0:
			continue
		case p.Codec > lastCodec || p.Codec == Fold-1:
			r.fail(fmt.Errorf("%w: column %d: unknown codec %d", errForm, i, p.Codec))
			return
		}
		p.Size = int(r.uvarint("size of a column", uint64(limits[i])))
		wire[i] = int(r.uvarint("wire size of a column", uint64(p.Size)))
		if r.err == nil && (wire[i] == 0 || (p.Codec == Raw) != (wire[i] == p.Size)) {
			r.fail(fmt.Errorf("%w: column %d: %s of %d bytes in %d", errForm, i, p.Codec, p.Size, wire[i]))
			return
		}
	}
	if sum := m.Parts[Literals].Size + m.Parts[Opaque].Size; r.err == nil && sum > m.Raw {
		r.fail(fmt.Errorf("%w: %d literal and opaque bytes for %d bytes of stream", errForm, sum, m.Raw))
		return
	}
	if n := m.slow(); r.err == nil && n > MaxPress {
		r.fail(fmt.Errorf("%w: %d bytes in columns of %s, each %d of %s as one, over %d", errForm, n, Press, foldPer, Fold, MaxPress))
		return
	}
	for i := range m.Parts {
		if m.Parts[i].Codec != 0 {
			m.Parts[i].Data = r.bytes(wire[i])
		}
	}
}

// slow is how many bytes the columns stand for that are coded with Press, and those with
// Fold at their share.
func (m *Message) slow() int {
	var press, fold int
	for _, p := range m.Parts {
		switch p.Codec {
		case Press:
			press += p.Size
		case Fold:
			fold += p.Size
		}
	}
	return press + (fold+foldPer-1)/foldPer
}
