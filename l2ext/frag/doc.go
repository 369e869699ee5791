// Package frag is how an Ethernet frame crosses the WAN: in one datagram, or,
// when it is longer than a datagram may be, in up to MaxParts parts of equal
// size. QUIC's datagrams carry 1243 to 1415 bytes, a full frame has 1514 and
// more, so the usual cut is into two halves.
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	| version (1)   | flags         | frame ID                      |
//	+---------------+---------------+---------------+---------------+
//	| VNI                                           | part  |parts-1|
//	+---------------+---------------+---------------+---------------+
//	| bytes of the frame                                            |
//
// Everything is big endian. The flags are a set: 0x01, the frame has been sent
// on once by a site that its MAC has left, and must not be sent on again. All
// others are zero; a datagram that sets them, or that has another version, is
// refused. The ID tells the frames of one sender apart and wraps. Every part
// but the last has the same size, and the last is not longer.
//
// Datagrams are lost and overtake each other. A frame of which a part is
// missing is forgotten after a while; nothing is asked for again.
package frag
