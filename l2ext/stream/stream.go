package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of the format, in bytes.
const (
	BeginLen  = 4    // of what a stream begins with
	HeaderLen = 6    // of the header of a frame
	MinFrame  = 14   // an Ethernet header
	MaxFrame  = 9216 // as in package frag: an MTU of 9000, an Ethernet header and two VLAN tags, rounded up
)

const (
	version    = 1
	redirected = 0x01
	maxVNI     = 1<<24 - 1
)

// ErrShort says that what there is ends too early.
var ErrShort = errors.New("stream: cut off")

// ErrFormat says that a stream is not of this format.
var ErrFormat = errors.New("stream: bad stream")

// AppendBegin appends what a stream begins with.
func AppendBegin(b []byte) []byte { return append(b, 'L', 'F', version, 0) }

// ParseBegin reads the beginning of a stream, and tells how many bytes it took.
func ParseBegin(b []byte) (n int, err error) {
	for i, want := range AppendBegin(nil) {
		if i >= len(b) {
			return 0, ErrShort
		}
		if b[i] != want {
			return 0, fmt.Errorf("begins with %x: %w", b[:i+1], ErrFormat)
		}
	}
	return BeginLen, nil
}

// Header stands before each frame.
type Header struct {
	VNI        uint32
	Len        int  // bytes of the frame, MinFrame to MaxFrame
	Redirected bool // sent on once already
}

// Append appends the header to b.
func (h Header) Append(b []byte) []byte {
	var flags uint32
	if h.Redirected {
		flags = redirected
	}
	b = binary.BigEndian.AppendUint32(b, flags<<24|h.VNI&maxVNI)
	return binary.BigEndian.AppendUint16(b, uint16(h.Len))
}

// Parse reads the header at the start of b, and tells how many bytes it took.
func Parse(b []byte) (h Header, n int, err error) {
	if len(b) < HeaderLen {
		return h, 0, ErrShort
	}
	h = Header{
		VNI:        binary.BigEndian.Uint32(b) & maxVNI,
		Len:        int(binary.BigEndian.Uint16(b[4:])),
		Redirected: b[0]&redirected != 0,
	}
	if b[0]&^redirected != 0 || h.VNI == 0 || h.Len < MinFrame || h.Len > MaxFrame {
		return Header{}, 0, fmt.Errorf("header %x: %w", b[:HeaderLen], ErrFormat)
	}
	return h, HeaderLen, nil
}
