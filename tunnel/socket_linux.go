package tunnel

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// segmentSize is the length of the packets that the kernel will make of a
// write: oob says so if it has a UDP_SEGMENT message (udp(7)). 0: one packet.
func segmentSize(oob []byte) int {
	for len(oob) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_SEGMENT && len(body) >= 2 {
			return int(binary.NativeEndian.Uint16(body))
		}
		oob = rest
	}
	return 0
}
