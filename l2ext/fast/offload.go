package fast

import "encoding/binary"

// OffloadLen is the length of a virtio_net_hdr without its count of buffers.
const OffloadLen = 10

// Values of include/uapi/linux/virtio_net.h.
const (
	needsChecksum = 1
	dataValid     = 2

	gsoNone   = 0
	gsoTCP4   = 1
	gsoTCP6   = 4
	gsoUDP    = 5 // USO, since Linux 6.2
	gsoECN    = 0x80
	ethHeader = 14
)

// minSegment is the shortest payload of a TCP segment (TCP_MIN_SND_MSS,
// include/net/tcp.h): a peer must not make us cut 64 KiB into single bytes.
const minSegment = 48

// Offload is what the kernel has left undone of a frame.
type Offload struct {
	Checksum    bool // the transport's checksum is only that of the pseudo header
	Start       int  // where in the frame the transport's header begins
	At          int  // where in that header the checksum is
	SegmentSize int  // bytes of payload in each segment; 0: it is one packet
	UDP         bool // the segments are of UDP, and not of TCP
}

// SplitMessage takes a message apart. It fails when the kernel of this machine
// would, or ought to, refuse it.
func SplitMessage(msg []byte) (o Offload, frame []byte, err error) {
	if len(msg) < minMessage || len(msg) > MaxMessage {
		return o, nil, ErrShort
	}
	frame = msg[OffloadLen:]
	flags, gso := msg[0], msg[1]
	if flags&^needsChecksum != 0 {
		return o, nil, ErrFormat
	}
	o.Checksum = flags&needsChecksum != 0
	length := int(binary.LittleEndian.Uint16(msg[2:]))
	size := int(binary.LittleEndian.Uint16(msg[4:]))
	if o.Checksum {
		o.Start = int(binary.LittleEndian.Uint16(msg[6:]))
		o.At = int(binary.LittleEndian.Uint16(msg[8:]))
		if o.Start < ethHeader || o.Start+o.At+2 > len(frame) {
			return o, nil, ErrFormat
		}
	}
	switch gso &^ gsoECN {
	case gsoNone:
		if gso != gsoNone {
			return o, nil, ErrFormat
		}
		return o, frame, nil
	case gsoUDP:
		o.UDP = true
	case gsoTCP4, gsoTCP6:
	default:
		return o, nil, ErrFormat
	}
	if !o.Checksum || size < minSegment || length > len(frame) || o.payload(frame) > len(frame) {
		return o, nil, ErrFormat
	}
	o.SegmentSize = size
	return o, frame, nil
}

// payload is where the transport's payload begins, at the earliest.
func (o Offload) payload(frame []byte) int {
	switch {
	case o.UDP:
		return o.Start + 8
	case o.Start+13 > len(frame):
		return o.Start + 20
	}
	return o.Start + max(int(frame[o.Start+12]>>4)*4, 20)
}

// Segments is how many packets a frame is for the network, at least 1.
func (o Offload) Segments(frame []byte) int {
	if o.SegmentSize == 0 {
		return 1
	}
	return max(1, (len(frame)-o.payload(frame)+o.SegmentSize-1)/o.SegmentSize)
}

// Longest is the length of the longest of these packets, with its Ethernet header.
func (o Offload) Longest(frame []byte) int {
	if o.SegmentSize == 0 {
		return len(frame)
	}
	return min(len(frame), o.payload(frame)+o.SegmentSize)
}

// Plain makes room at the front of a message for a header that leaves nothing
// undone, which a frame can be appended to.
func Plain(b []byte) []byte { return append(b, make([]byte, OffloadLen)...) }

// Sent clears from a message what the kernel says of it that the other end does
// not need to know: that it has seen a right checksum.
func Sent(msg []byte) {
	if len(msg) > 0 {
		msg[0] &^= dataValid
	}
}
