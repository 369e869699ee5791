package fast

import "encoding/binary"

// Kind says what a record is.
type Kind uint8

// The kinds of record.
const (
	Padding Kind = iota
	Whole
	Piece
	Hello
)

// Bounds of a message, in bytes.
const (
	// MaxFrame is the longest that the kernel has before segmentation: an IP
	// packet of 64 KiB, an Ethernet header and a VLAN tag.
	MaxFrame   = 14 + 4 + 65535
	MaxMessage = OffloadLen + MaxFrame
	minMessage = OffloadLen + 14

	maxVNI = 1<<24 - 1
)

const (
	redirected = 0x80
	wholeLen   = 1 + 3 + 2
	pieceLen   = wholeLen + 4 + 3 + 3
	helloLen   = 1 + 8
)

// Record is one record. Which fields count depends on its Kind.
type Record struct {
	Kind       Kind
	Redirected bool   // Whole, Piece
	VNI        uint32 // Whole, Piece
	ID         uint32 // Piece: of the message
	Total      int    // Piece: length of the message
	Offset     int    // Piece: where in it the body begins
	Heard      uint64 // Hello

	Body []byte // Whole: the message; Piece: a part of it. It is in what was parsed.
}

// Parse reads the record at the start of b, and tells how long it is.
func Parse(b []byte) (r Record, n int, err error) {
	if len(b) == 0 {
		return r, 0, ErrShort
	}
	r.Kind, r.Redirected = Kind(b[0]&^redirected), b[0]&redirected != 0
	switch {
	case b[0] == byte(Padding):
		return r, len(b), nil
	case b[0] == byte(Hello):
		if len(b) < helloLen {
			return r, 0, ErrShort
		}
		r.Heard = binary.BigEndian.Uint64(b[1:])
		return r, helloLen, nil
	case r.Kind == Whole:
		n = wholeLen
	case r.Kind == Piece:
		n = pieceLen
	default:
		return r, 0, ErrFormat
	}
	if len(b) < n {
		return r, 0, ErrShort
	}
	r.VNI = binary.BigEndian.Uint32(b) & maxVNI
	length := int(binary.BigEndian.Uint16(b[4:]))
	if r.Kind == Piece {
		r.ID = binary.BigEndian.Uint32(b[6:])
		r.Total = int(binary.BigEndian.Uint32(b[9:]) & maxVNI)
		r.Offset = int(binary.BigEndian.Uint32(b[12:]) & maxVNI)
	} else {
		r.Total = length
	}
	if r.Total < minMessage || r.Total > MaxMessage || length == 0 || r.Offset+length > r.Total {
		return r, 0, ErrFormat
	}
	if len(b) < n+length {
		return r, 0, ErrShort
	}
	r.Body = b[n : n+length : n+length]
	return r, n + length, nil
}

// Append appends the record to b. Of a Whole, Total and Offset do not count.
func (r Record) Append(b []byte) []byte { return append(r.appendHead(b), r.Body...) }

// appendHead appends all of the record but its body.
func (r Record) appendHead(b []byte) []byte {
	kind := byte(r.Kind)
	if r.Redirected {
		kind |= redirected
	}
	switch r.Kind {
	case Padding:
		return append(b, kind)
	case Hello:
		return binary.BigEndian.AppendUint64(append(b, kind), r.Heard)
	}
	b = append(b, kind, byte(r.VNI>>16), byte(r.VNI>>8), byte(r.VNI), byte(len(r.Body)>>8), byte(len(r.Body)))
	if r.Kind == Piece {
		b = binary.BigEndian.AppendUint32(b, r.ID)
		b = append(b, byte(r.Total>>16), byte(r.Total>>8), byte(r.Total))
		b = append(b, byte(r.Offset>>16), byte(r.Offset>>8), byte(r.Offset))
	}
	return b
}
