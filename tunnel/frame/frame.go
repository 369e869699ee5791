package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// Version of the format, in each preface.
const Version = 2

// Limits of the format.
const (
	// MaxHeader bounds the header of an Open: enough for a job's description.
	MaxHeader = 64 << 10
	// MaxBody bounds the body of a control frame: an Open with the largest header.
	MaxBody = MaxHeader + 64
	// MaxText bounds each str: names of sites are short, reasons are one line.
	MaxText = 1024
	// MaxMessage bounds a message. A batch of 4 MiB that does not compress fits.
	MaxMessage = 8 << 20
	// Cell is the unit in which messages are cut. At 1 Mbit/s, 2 KiB are 17 ms:
	// with a credit of 30 ms a flow stays within 5 % of such a cap over any second.
	Cell = 2 << 10
	// MaxChunk bounds one chunk: 64 KiB amortise a header and a wake-up.
	MaxChunk = 32 * Cell
	// MaxRanges bounds the ranges of a Resume: one more is resent needlessly.
	MaxRanges = 512
)

var (
	// ErrShort: the bytes are the beginning of something; read more.
	ErrShort = errors.New("frame: short")
	// ErrMalformed: no continuation of the bytes is valid.
	ErrMalformed = errors.New("frame: malformed")
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Use says what a stream is for.
type Use uint8

// The uses of a stream.
const (
	Control Use = iota + 1
	Data
	Raw
)

// PrefaceLen is the length of a Preface in bytes.
const PrefaceLen = 6

// Preface begins a stream.
type Preface struct {
	Use   Use
	Proto byte // of a Raw stream, 0 otherwise
}

// Append appends the encoding of p to b.
func (p Preface) Append(b []byte) []byte {
	return append(b, 'L', 'H', Version, byte(p.Use), p.Proto, 0)
}

// ParsePreface parses a preface at the start of b and tells how many bytes it took.
func ParsePreface(b []byte) (Preface, int, error) {
	for i, want := range []byte{'L', 'H', Version} {
		switch {
		case i >= len(b) || b[i] == want:
		case i == 2:
			return Preface{}, 0, malformed("the peer's streams are of version %d, ours of %d: both gateways have to be of one release", b[i], want)
		default:
			return Preface{}, 0, malformed("preface begins with %x", b[:i+1])
		}
	}
	if len(b) < PrefaceLen {
		return Preface{}, 0, ErrShort
	}
	p := Preface{Use: Use(b[3]), Proto: b[4]}
	switch {
	case p.Use < Control || p.Use > Raw:
		return Preface{}, 0, malformed("stream of unknown use %d", b[3])
	case p.Use != Raw && p.Proto != 0, b[5] != 0:
		return Preface{}, 0, malformed("preface %x", b[:PrefaceLen])
	}
	return p, PrefaceLen, nil
}

// MaxChunkHead bounds the header of a chunk in bytes: five varints.
const MaxChunkHead = 5 * binary.MaxVarintLen64

// Chunk is the header of a piece of a message on a data stream; Len bytes follow.
type Chunk struct {
	Channel, Seq       uint64
	Total, Offset, Len uint32
}

// Append appends the encoding of c to b.
func (c Chunk) Append(b []byte) []byte {
	for _, v := range c.fields() {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// fields are the varints of the header.
func (c Chunk) fields() [5]uint64 {
	return [...]uint64{c.Channel, c.Seq, uint64(c.Total), uint64(c.Offset / Cell), uint64(c.Len)}
}

// HeadLen is the length of the header in bytes, without the Len bytes that follow.
func (c Chunk) HeadLen() (n int) {
	for _, v := range c.fields() {
		n += max((bits.Len64(v)+6)/7, 1)
	}
	return n
}

// ParseChunk parses a header at the start of b and tells how many bytes it took. Of
// MaxChunkHead bytes it never says that they are too few.
func ParseChunk(b []byte) (Chunk, int, error) {
	var v [5]uint64
	var used int
	for i := range v {
		x, n := binary.Uvarint(b[used:])
		switch {
		case n < 0, n == 0 && len(b)-used >= binary.MaxVarintLen64: // Uvarint takes ten bytes without an end for too few
			return Chunk{}, 0, malformed("number %d in the header of a chunk has more than 64 bits", i+1)
		case n == 0:
			return Chunk{}, 0, ErrShort
		case n > 1 && b[used+n-1] == 0:
			return Chunk{}, 0, malformed("number %d in the header of a chunk takes %d bytes, where fewer do", i+1, n)
		}
		v[i] = x
		used += n
	}
	bytes := func(x uint64) uint32 { return uint32(min(x, math.MaxUint32)) } // which is more than may be
	c := Chunk{Channel: v[0], Seq: v[1], Total: bytes(v[2]), Offset: bytes(min(v[3], math.MaxUint32) * Cell), Len: bytes(v[4])}
	if err := c.check(); err != nil {
		return Chunk{}, 0, err
	}
	return c, used, nil
}

func (c Chunk) check() error {
	end := uint64(c.Offset) + uint64(c.Len)
	switch {
	case c.Channel == 0 || c.Seq == 0:
		return malformed("chunk of channel %d, seq %d", c.Channel, c.Seq)
	case c.Total > MaxMessage || c.Len > MaxChunk || end > uint64(c.Total):
		return malformed("chunk of %d bytes at %d of %d", c.Len, c.Offset, c.Total)
	case c.Len%Cell != 0 && end != uint64(c.Total):
		return malformed("chunk of %d bytes at %d of %d is not whole cells", c.Len, c.Offset, c.Total)
	case c.Len == 0 && c.Total != 0:
		return malformed("empty chunk of %d", c.Total)
	}
	return nil
}
