package wanem

import (
	"bytes"
	"encoding/binary"
)

// What a TAP with UDP segmentation gives and takes: a message is a virtio_net_hdr
// (virtio 1.2, section 5.1.6; little endian, as all machines are that this runs on)
// and an Ethernet frame, which may stand for many packets of one UDP flow:
// all of the same payload but the last, which may be shorter.
const (
	needsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	gsoUDP        = 5 // VIRTIO_NET_HDR_GSO_UDP_L4, since Linux 6.2

	atGSO   = 1 // gso_type
	atHead  = 2 // hdr_len
	atSize  = 4 // gso_size: payload of a packet
	atStart = 6 // csum_start: where in the frame the UDP header is
	atCheck = 8 // csum_offset: where in that its checksum is

	// virtioHeader is the length of the header in bytes.
	virtioHeader = 10

	ipAt        = virtioHeader + etherLen
	udpHeader   = 8
	maxMessage  = ipAt + 65535
	maxSegments = 64 // UDP_MAX_SEGMENTS of kernels before 6.9
)

// udpAt is where in a message the header of UDP begins. 0: it is not of a whole
// UDP packet whose checksum is left to do, without options or extension headers.
func udpAt(msg []byte) int {
	if len(msg) < ipAt || msg[0] != needsChecksum || binary.LittleEndian.Uint16(msg[atCheck:]) != 6 {
		return 0
	}
	at := virtioHeader + int(binary.LittleEndian.Uint16(msg[atStart:]))
	if len(msg) < at+udpHeader {
		return 0
	}
	ip := msg[ipAt:]
	switch binary.BigEndian.Uint16(msg[virtioHeader+12:]) {
	case etherIPv4:
		if at != ipAt+20 || ip[0] != 0x45 || ip[9] != UDP || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 || // a fragment
			int(binary.BigEndian.Uint16(ip[2:])) != len(ip) {
			return 0
		}
	case etherIPv6:
		if at != ipAt+40 || ip[6] != UDP || int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 {
			return 0
		}
	default:
		return 0
	}
	return at
}

// split tells whether msg stands for many packets, and if so hands each, as a
// message of its own, to give. Their buffers are from lend; where it has none, or one
// that is too small, give is told of the packet's length in bytes only.
func split(msg []byte, lend func() []byte, give func(packet []byte, n int)) bool {
	if len(msg) < virtioHeader || msg[atGSO] != gsoUDP {
		return false
	}
	at, size := udpAt(msg), int(binary.LittleEndian.Uint16(msg[atSize:]))
	if at == 0 || size == 0 {
		return false
	}
	head, payload := msg[:at+udpHeader], msg[at+udpHeader:]
	for i := 0; len(payload) > 0; i++ {
		piece := payload[:min(size, len(payload))]
		payload = payload[len(piece):]
		n := len(head) + len(piece)
		buf := lend()
		if len(buf) < n {
			give(buf[:0], n)
			continue
		}
		copy(buf, head)
		copy(buf[len(head):], piece)
		one := buf[:n]
		clear(one[atGSO:atStart])
		if at == ipAt+20 {
			id := one[ipAt+4 : ipAt+6]
			binary.BigEndian.PutUint16(id, binary.BigEndian.Uint16(id)+uint16(i))
		}
		finish(one, at)
		give(one, n)
	}
	return true
}

// joinable is how many of the first of packets, at least 1, can be one message.
func joinable(packets [][]byte) int {
	first := packets[0]
	at := udpAt(first)
	if at == 0 || first[atGSO] != 0 {
		return 1
	}
	total := len(first)
	for n := 1; n < min(len(packets), maxSegments); n++ {
		p := packets[n]
		if len(p) > len(first) || len(packets[n-1]) < len(first) || len(p) <= at+udpHeader ||
			total+len(p)-at-udpHeader > maxMessage || udpAt(p) != at || p[atGSO] != 0 || !sameFlow(first, p, at) {
			return n
		}
		total += len(p) - at - udpHeader
	}
	return min(len(packets), maxSegments)
}

// sameFlow tells whether the headers of two UDP packets differ in nothing but
// lengths, checksums and IPv4's identification.
func sameFlow(a, b []byte, at int) bool {
	same := func(from, to int) bool { return bytes.Equal(a[from:to], b[from:to]) }
	if !same(virtioHeader, ipAt) || !same(at, at+4) {
		return false
	}
	if at == ipAt+20 {
		return same(ipAt, ipAt+2) && same(ipAt+6, ipAt+10) && same(ipAt+12, ipAt+20)
	}
	return same(ipAt, ipAt+4) && same(ipAt+6, ipAt+40)
}

// join makes one message of packets, of which joinable has said so, in dst.
func join(dst []byte, packets [][]byte) []byte {
	at := udpAt(packets[0])
	dst = append(dst[:0], packets[0]...)
	for _, p := range packets[1:] {
		dst = append(dst, p[at+udpHeader:]...)
	}
	dst[atGSO] = gsoUDP
	binary.LittleEndian.PutUint16(dst[atHead:], uint16(at+udpHeader-virtioHeader))
	binary.LittleEndian.PutUint16(dst[atSize:], uint16(len(packets[0])-at-udpHeader))
	finish(dst, at)
	return dst
}

// finish sets lengths and checksums of a message for what it now contains. Of UDP's
// that is the sum of the pseudo header: the kernel adds the rest (RFC 768; RFC 8200,
// section 8.1).
func finish(msg []byte, at int) {
	ip, udp := msg[ipAt:], msg[at:]
	var addresses []byte
	if at == ipAt+20 {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], ^fold(ip[:20], 0))
		addresses = ip[12:20]
	} else {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
		addresses = ip[8:40]
	}
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], fold(addresses, uint32(len(udp))+UDP))
}

// fold is the sum of b, of an even number of bytes, and of more in ones'
// complement (RFC 1071).
func fold(b []byte, more uint32) uint16 {
	for i := 0; i < len(b); i += 2 {
		more += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for more > 0xffff {
		more = more>>16 + more&0xffff
	}
	return uint16(more)
}
