// Package pcap writes captured frames as tcpdump and Wireshark read them: the
// classic format of libpcap (pcap-savefile(5)), version 2.4, with nanoseconds.
//
//	file:   | 0xa1b23c4d (4) | 2 (2) | 4 (2) | 0 (4) | 0 (4) | snap length (4) | 1, Ethernet (4) |
//	frame:  | seconds (4) | nanoseconds (4) | bytes here (4) | bytes of the frame (4) | the bytes |
//
// Everything is big endian; the magic number tells readers so.
package pcap

import (
	"encoding/binary"
	"time"
)

const (
	magic    = 0xa1b23c4d
	ethernet = 1 // LINKTYPE_ETHERNET
)

// HeaderLen is the length of a file's header, in bytes.
const HeaderLen = 24

// AppendHeader appends the header of a file, of whose frames at most snap bytes
// each are kept.
func AppendHeader(b []byte, snap uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = append(b, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, snap)
	return binary.BigEndian.AppendUint32(b, ethernet)
}

// AppendFrame appends a frame of which the first bytes were kept. The time must
// lie between 1970 and 2106.
func AppendFrame(b []byte, at time.Time, kept []byte, length int) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(at.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(at.Nanosecond()))
	b = binary.BigEndian.AppendUint32(b, uint32(len(kept)))
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	return append(b, kept...)
}
