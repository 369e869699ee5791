// Package probe is the frame by which a gateway finds out that the LANs of two
// sites are joined behind its back: it sends probes into its own LAN, and no
// gateway lets a probe cross, so that one which arrives from a LAN at another
// site has come by another way.
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	| 03 00 4c 48 00 01 (destination)                               |
//	|                               | 0a 4c 48 (source)             |
//	|                                               | + 3 bytes     |
//	+---------------+---------------+---------------+---------------+
//	| 0x88b5                        |
//	+---------------+---------------+---------------+---------------+
//	| 'L'           | 'P'           | version (1)   | length of site|
//	| VNI of the segment                                            |
//	| nonce (8)                                                     |
//	| site of the gateway that sent it (1 to 63) ...                |
//	| tag (16)                                                      |
//	+---------------+---------------+---------------+---------------+
//
// Everything is big endian. 0x88b5 is IEEE's number for local experiments. The
// tag is the first 16 bytes of HMAC-SHA256, under a key that only the fleet's
// gateways know, of all from 'L' to the site. The nonce grows, by steps that nobody can
// guess: who names one has seen the probe. A receiver takes none twice. What follows the tag is padding. A frame of another version is
// refused.
//
// An echo is a frame of the same type by which one gateway asks another, on the
// way that the segment's frames take, whether frames of a size arrive. It is not
// signed. Its destination is that of probes inside a tunnel, which is; one that
// comes from a LAN is not answered. Where the kernel carries the frames, it is
// the address of the other gateway (GatewayOf), to which no LAN has a way, and
// its number cannot be guessed.
//
//	+---------------+---------------+---------------+---------------+
//	| destination, source, 0x88b5, as above (14)                    |
//	+---------------+---------------+---------------+---------------+
//	| 'L'           | 'E'           | version (1)   | 1 ask, 2 reply|
//	| number (8)                                                    |
//	| zeros, up to the size of the frame                            |
package probe
