package fast

import (
	"encoding/binary"
	"math"
)

// Where the fields of a virtio_net_hdr are.
const (
	atLength = 2 // hdr_len: how much of the frame is headers, a hint
	atStart  = 6 // csum_start
)

// Cut takes n bytes at one place out of the frame of a message, which SplitMessage has
// passed: a header, before that of the transport. It works in place: what it returns
// is the end of msg. The frame must have these bytes.
func Cut(msg []byte, at, n int) []byte {
	copy(msg[n:], msg[:OffloadLen+at])
	msg = msg[n:]
	shiftStart(msg, -n)
	if limit := len(msg) - OffloadLen; int(binary.LittleEndian.Uint16(msg[atLength:])) > limit {
		binary.LittleEndian.PutUint16(msg[atLength:], uint16(limit))
	}
	return msg
}

// AppendWith appends to b a message with one header more in its frame, at that place.
func AppendWith(b, msg []byte, at int, header ...byte) []byte {
	start := len(b)
	b = append(b, msg[:OffloadLen+at]...)
	b = append(b, header...)
	b = append(b, msg[OffloadLen+at:]...)
	msg = b[start:]
	shiftStart(msg, len(header))
	if length := int(binary.LittleEndian.Uint16(msg[atLength:])); length > 0 {
		binary.LittleEndian.PutUint16(msg[atLength:], uint16(min(length+len(header), math.MaxUint16)))
	}
	return b
}

// shiftStart has the place of a message's checksum follow its frame. One that there
// cannot be then is where SplitMessage refuses it.
func shiftStart(msg []byte, by int) {
	if msg[0]&needsChecksum == 0 {
		return
	}
	start := int(binary.LittleEndian.Uint16(msg[atStart:])) + by
	binary.LittleEndian.PutUint16(msg[atStart:], uint16(min(max(start, 0), math.MaxUint16)))
}
