// Package ether reads Ethernet frames as far as stretching a segment needs it:
// who sends to whom, frames that no bridge may carry, what ARP, RARP and
// neighbour discovery tell of a host, and the segment size that a TCP SYN
// offers. It also builds the frames by which a host is announced.
//
//	| destination (6) | source (6) | [0x8100 (2) | VLAN (2)] | type (2) | payload |
//
// Big endian. One VLAN tag is understood; under a second one a frame is only
// source, destination and bytes. Nothing here fails on a frame that is too
// short or wrong inside: it is then carried as it is and tells nothing.
package ether
