package tunnel

import (
	"encoding/binary"
	"net"

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

// readNotes reads what the kernel says of a read.
func readNotes(oob []byte) (n notes) {
	for len(oob) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return n
		}
		switch {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(body) >= 4:
			n.segment = int(int32(binary.NativeEndian.Uint32(body)))
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(body) >= 4:
			n.dropped, n.overflows = binary.NativeEndian.Uint32(body), true
		}
		oob = rest
	}
	return n
}

// tune asks the kernel for a large buffer, for joined reads, and to be told of
// packets for which there was no room. What it refuses we do without: without
// CAP_NET_ADMIN the buffer is what net.core.rmem_max permits. joins: a read may
// bring more than one packet.
func tune(u *net.UDPConn) (joins bool) {
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		s := int(fd)
		if unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
		_ = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
		joins = unix.SetsockoptInt(s, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
	})
	return joins
}
