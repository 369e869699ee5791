package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Kind of a frame.
type Kind uint8

// The kinds of frames.
const (
	Open Kind = 1 + iota
	Data
	Fin
	Reset
	Credit
	Datagram
	Close
	Ping
	Pong
)

// Way of a stream.
type Way uint8

// The ways of streams.
const (
	OneWay   Way = 1 // only the end that opened it writes
	BothWays Way = 2
)

const (
	// HeadLen is the length of a frame's head in bytes.
	HeadLen = 8
	// MaxBody bounds a frame in bytes: so long does an urgent write wait for
	// another, 5 ms at 100 Mbit/s.
	MaxBody = 64 << 10
	// MaxText bounds the reason of a Close in bytes.
	MaxText = 1 << 10
	// MaxDatagram bounds a datagram in bytes: what a QUIC packet of 1452 bytes
	// carries, so that frames fit whatever carries the link.
	MaxDatagram = 1415
)

// ErrShort: the bytes end before the frame does.
var ErrShort = errors.New("mux: short frame")

// errFormat: the bytes are no frame.
var errFormat = errors.New("mux: malformed frame")

// Head begins a frame; Len bytes follow.
type Head struct {
	Kind   Kind
	Len    int
	Stream uint32
}

// Append appends the encoding of h to b.
func (h Head) Append(b []byte) []byte {
	b = append(b, byte(h.Kind), byte(h.Len>>16), byte(h.Len>>8), byte(h.Len))
	return binary.BigEndian.AppendUint32(b, h.Stream)
}

// ParseHead parses a head at the start of b and tells how many bytes it took. It
// refuses lengths that the kind does not permit.
func ParseHead(b []byte) (Head, int, error) {
	if len(b) < HeadLen {
		return Head{}, 0, ErrShort
	}
	h := Head{
		Kind: Kind(b[0]), Len: int(b[1])<<16 | int(b[2])<<8 | int(b[3]),
		Stream: binary.BigEndian.Uint32(b[4:]),
	}
	least, most, ok := h.Kind.lens()
	switch {
	case !ok:
		return Head{}, 0, fmt.Errorf("%w: kind %d", errFormat, b[0])
	case h.Len < least || h.Len > most:
		return Head{}, 0, fmt.Errorf("%w: kind %d with %d bytes", errFormat, b[0], h.Len)
	case (h.Stream != 0) != h.Kind.ofStream():
		return Head{}, 0, fmt.Errorf("%w: kind %d on stream %d", errFormat, b[0], h.Stream)
	}
	return h, HeadLen, nil
}

// lens are the least and the most bytes of a body.
func (k Kind) lens() (least, most int, ok bool) {
	switch k {
	case Open:
		return 1, 1, true
	case Data:
		return 1, MaxBody, true
	case Fin, Reset:
		return 0, 0, true
	case Credit:
		return 4, 4, true
	case Datagram:
		return 1, MaxDatagram, true
	case Close:
		return 8, 8 + MaxText, true
	case Ping, Pong:
		return 8, 8, true
	}
	return 0, 0, false
}

// ofStream tells whether frames of the kind belong to a stream.
func (k Kind) ofStream() bool { return k <= Credit }

// parseWay reads the body of an Open.
func parseWay(b []byte) (Way, error) {
	if w := Way(b[0]); w == OneWay || w == BothWays {
		return w, nil
	}
	return 0, fmt.Errorf("%w: a stream of way %d", errFormat, b[0])
}

// CloseError is why a connection is over when one end has said so.
type CloseError struct {
	Code   uint64
	Text   string
	Remote bool // the peer has said it
}

func (e *CloseError) Error() string {
	if e.Remote {
		return "closed by the peer: " + e.Text
	}
	return "closed: " + e.Text
}

func (e *CloseError) append(b []byte) []byte {
	text := e.Text[:min(len(e.Text), MaxText)]
	b = Head{Kind: Close, Len: 8 + len(text)}.Append(b)
	return append(binary.BigEndian.AppendUint64(b, e.Code), text...)
}
