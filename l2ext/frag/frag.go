package frag

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// HeaderLen is the length of the header of each part, in bytes.
const HeaderLen = 8

// MaxParts is the most parts that a frame is cut into: the 4 bits that there
// are for it. 16 parts of 1235 bytes are more than MaxFrame.
const MaxParts = 16

// MaxFrame is the longest frame carried, in bytes: an MTU of 9000, an Ethernet
// header and two VLAN tags, rounded up.
const MaxFrame = 9216

const (
	version    = 1
	redirected = 0x01
)

// ErrShort says that a datagram ends before its header does.
var ErrShort = errors.New("frag: datagram too short")

// ErrFormat says that a datagram is not of this format.
var ErrFormat = errors.New("frag: bad datagram")

// Header stands before each part of a frame.
type Header struct {
	VNI        uint32
	ID         uint16
	Part       uint8 // from 0
	Parts      uint8 // 1 to MaxParts
	Redirected bool  // sent on once already
}

// Parse reads the header at the start of a datagram; what follows the n bytes
// is the part.
func Parse(b []byte) (h Header, n int, err error) {
	if len(b) < HeaderLen {
		return h, 0, ErrShort
	}
	if b[0] != version || b[1]&^redirected != 0 {
		return h, 0, fmt.Errorf("version %d, flags %#02x: %w", b[0], b[1], ErrFormat)
	}
	h = Header{
		VNI:        binary.BigEndian.Uint32(b[4:]) >> 8,
		ID:         binary.BigEndian.Uint16(b[2:]),
		Part:       b[7] >> 4,
		Parts:      b[7]&0xf + 1,
		Redirected: b[1]&redirected != 0,
	}
	if h.Part >= h.Parts {
		return h, 0, fmt.Errorf("part %d of %d: %w", h.Part, h.Parts, ErrFormat)
	}
	return h, HeaderLen, nil
}

// Append appends the header to b. Parts must be 1 to MaxParts, and Part less.
func (h Header) Append(b []byte) []byte {
	var flags byte
	if h.Redirected {
		flags = redirected
	}
	b = append(b, version, flags)
	b = binary.BigEndian.AppendUint16(b, h.ID)
	return binary.BigEndian.AppendUint32(b, h.VNI<<8|uint32(h.Part&0xf)<<4|uint32((h.Parts-1)&0xf))
}

// Parts tells into how many parts a frame of n bytes must be cut so that each
// fits with its header into a datagram of max bytes. 0: it cannot be.
func Parts(n, max int) int {
	room := max - HeaderLen
	if n <= 0 || n > MaxFrame || room <= 0 {
		return 0
	}
	parts := (n + room - 1) / room
	if parts > MaxParts || (parts-1)*partSize(n, parts) >= n {
		return 0 // the second: so tiny that equal parts leave nothing for the last
	}
	return parts
}

// Piece is part i of a frame that is cut into the given number of parts. It
// borrows the frame.
func Piece(frame []byte, i, parts int) []byte {
	size := partSize(len(frame), parts)
	return frame[i*size : min((i+1)*size, len(frame))]
}

func partSize(n, parts int) int { return (n + parts - 1) / parts }
