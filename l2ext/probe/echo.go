package probe

import (
	"encoding/binary"
	"fmt"
)

// Echo asks a gateway whether a frame arrives, or answers.
type Echo struct {
	Src    MAC
	Dst    MAC // see GatewayOf; zero means the group of all probes
	Reply  bool
	Number uint64
	Size   int // bytes of the whole frame, at least MinEcho
}

// MinEcho is the least size of an Echo, in bytes.
const MinEcho = minFrame

const echoLen = etherLen + 12

// Append appends the frame to b.
func (e Echo) Append(b []byte) []byte {
	start := len(b)
	dst := e.Dst
	if dst == (MAC{}) {
		dst = Dst
	}
	b = append(append(b, dst[:]...), e.Src[:]...)
	b = binary.BigEndian.AppendUint16(b, Type)
	kind := byte(1)
	if e.Reply {
		kind = 2
	}
	b = append(b, 'L', 'E', version, kind)
	b = binary.BigEndian.AppendUint64(b, e.Number)
	return append(b, make([]byte, max(e.Size, MinEcho)+start-len(b))...)
}

// ParseEcho reads a frame.
func ParseEcho(frame []byte) (Echo, error) {
	if len(frame) < etherLen || binary.BigEndian.Uint16(frame[12:]) != Type {
		return Echo{}, ErrOther
	}
	dst := MAC(frame[:6])
	switch {
	case dst == Dst:
		dst = MAC{}
	case !IsGateway(dst):
		return Echo{}, ErrOther
	}
	b := frame[etherLen:]
	if len(frame) < MinEcho || b[0] != 'L' || b[1] != 'E' || b[2] != version || b[3] < 1 || b[3] > 2 {
		return Echo{}, fmt.Errorf("no echo in %d bytes: %w", len(frame), ErrFormat)
	}
	for _, c := range frame[echoLen:] {
		if c != 0 {
			return Echo{}, fmt.Errorf("an echo of %d bytes is not empty: %w", len(frame), ErrFormat)
		}
	}
	return Echo{Src: MAC(frame[6:12]), Dst: dst, Reply: b[3] == 2, Number: binary.BigEndian.Uint64(b[4:]), Size: len(frame)}, nil
}
