package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Version of the format, in each preface.
const Version = 1

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
		if i < len(b) && b[i] != want {
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

// ChunkLen is the length of a Chunk's header in bytes.
const ChunkLen = 28

// Chunk is the header of a piece of a message on a data stream; Len bytes follow.
type Chunk struct {
	Channel, Seq       uint64
	Total, Offset, Len uint32
}

// Append appends the encoding of c to b.
func (c Chunk) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, c.Channel)
	b = binary.BigEndian.AppendUint64(b, c.Seq)
	b = binary.BigEndian.AppendUint32(b, c.Total)
	b = binary.BigEndian.AppendUint32(b, c.Offset)
	return binary.BigEndian.AppendUint32(b, c.Len)
}

// ParseChunk parses a header at the start of b and tells how many bytes it took.
func ParseChunk(b []byte) (Chunk, int, error) {
	if len(b) < ChunkLen {
		return Chunk{}, 0, ErrShort
	}
	c := Chunk{
		Channel: binary.BigEndian.Uint64(b),
		Seq:     binary.BigEndian.Uint64(b[8:]),
		Total:   binary.BigEndian.Uint32(b[16:]),
		Offset:  binary.BigEndian.Uint32(b[20:]),
		Len:     binary.BigEndian.Uint32(b[24:]),
	}
	if err := c.check(); err != nil {
		return Chunk{}, 0, err
	}
	return c, ChunkLen, nil
}

func (c Chunk) check() error {
	end := uint64(c.Offset) + uint64(c.Len)
	switch {
	case c.Channel == 0 || c.Seq == 0:
		return malformed("chunk of channel %d, seq %d", c.Channel, c.Seq)
	case c.Total > MaxMessage || c.Len > MaxChunk || end > uint64(c.Total):
		return malformed("chunk of %d bytes at %d of %d", c.Len, c.Offset, c.Total)
	case c.Offset%Cell != 0 || (c.Len%Cell != 0 && end != uint64(c.Total)):
		return malformed("chunk of %d bytes at %d of %d is not whole cells", c.Len, c.Offset, c.Total)
	case c.Len == 0 && c.Total != 0:
		return malformed("empty chunk of %d", c.Total)
	}
	return nil
}
