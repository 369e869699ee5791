package tunnel

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// segments is the number of packets that the kernel will make of a write of n
// bytes: oob says so if it has a UDP_SEGMENT message (udp(7)).
func segments(n int, oob []byte) int {
	for len(oob) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 1
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_SEGMENT && len(body) >= 2 {
			if size := int(binary.NativeEndian.Uint16(body)); size > 0 {
				return max((n+size-1)/size, 1)
			}
		}
		oob = rest
	}
	return 1
}
