package ether

import "encoding/binary"

// TagLen is the length of a VLAN tag, in bytes.
const TagLen = 4

// MaxVID is the greatest number of a VLAN (IEEE 802.1Q, table 9-2: 4095 is reserved).
const MaxVID = 4094

// The other types that begin a tag: that of providers (802.1ad), and what was used
// for it before.
const (
	typeProvider    = 0x88a8
	typeOldProvider = 0x9100
)

// MACsLen is where a frame's type begins, or its tag, in bytes.
const MACsLen = 12

// VID tells of which VLAN a frame says that it is. It is 0 when the frame has no tag,
// or one that has only a priority (IEEE 802.1Q, section 9.6). ok is false for a
// provider's tag, and for what is too short to tell.
func VID(frame []byte) (vid uint16, ok bool) {
	if len(frame) < HeaderLen {
		return 0, false
	}
	switch binary.BigEndian.Uint16(frame[MACsLen:]) {
	case TypeVLAN:
		if len(frame) < HeaderLen+TagLen {
			return 0, false
		}
		return binary.BigEndian.Uint16(frame[MACsLen+2:]) & 0xfff, true
	case typeProvider, typeOldProvider:
		return 0, false
	}
	return 0, true
}

// Tagged tells whether a frame has a tag, of whatever kind.
func Tagged(frame []byte) bool {
	if len(frame) < HeaderLen {
		return false
	}
	switch binary.BigEndian.Uint16(frame[MACsLen:]) {
	case TypeVLAN, typeProvider, typeOldProvider:
		return true
	}
	return false
}

// Untag takes the tag off a frame that has one of at least HeaderLen+TagLen bytes. It
// works in place: what it returns is the end of frame.
func Untag(frame []byte) []byte {
	copy(frame[TagLen:], frame[:MACsLen])
	return frame[TagLen:]
}

// Tag is the tag of a VLAN, with priority 0.
func Tag(vid uint16) [TagLen]byte {
	return [TagLen]byte{TypeVLAN >> 8, TypeVLAN & 0xff, byte(vid >> 8), byte(vid)}
}

// AppendTagged appends to b a frame, of at least HeaderLen bytes, with a Tag.
func AppendTagged(b, frame []byte, vid uint16) []byte {
	tag := Tag(vid)
	b = append(append(b, frame[:MACsLen]...), tag[:]...)
	return append(b, frame[MACsLen:]...)
}
