// Package fast is what two gateways send each other of a segment in the mode
// secure-fast: frames as the kernel has them, with what is left to do of their
// checksums and their segmentation, many to a datagram or in pieces, each
// datagram sealed by itself.
//
// # Datagram
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	| 0x1c          | version (1)   | 0             | 0             |
//	+---------------+---------------+---------------+---------------+
//	| index: which of its keys the receiver needs                   |
//	+---------------+---------------+---------------+---------------+
//	| counter (8): counts what was sealed with the key, from 0      |
//	+                                                               +
//	|                                                               |
//	+---------------+---------------+---------------+---------------+
//	| records, AES-128-GCM; the 16 bytes before are authenticated   |
//	| too, and 16 bytes of tag end the datagram                     |
//	+---------------+---------------+---------------+---------------+
//
// The two highest bits of the first byte are clear, as in no packet of QUIC
// (RFC 9000, section 17: a long header has the highest, a short one the next),
// so that both can share one UDP port.
//
// # Records
//
//	0 padding  | anything |                     the rest of the datagram is nothing
//	1 whole    | VNI (3) | length (2) | message |
//	2 piece    | VNI (3) | length (2) | id (4) | total (3) | offset (3) | part of a message |
//	3 hello    | heard (8) |                    the highest counter that the sender has opened, plus 1
//
// Each begins with its kind in one byte; 0x80 in it, of whole and piece, says
// that the frame was sent on once already. Big endian. Other kinds are refused.
// A message is a virtio_net_hdr of 10 bytes (virtio 1.2, section 5.1.6, little
// endian: it is what the kernel reads and writes) and an Ethernet frame.
//
// All datagrams of one write to the socket but the last have the same length,
// because the kernel cuts the write (UDP_SEGMENT): what does not fit into one
// goes on in the next as a piece. A datagram that is lost takes along the
// messages of which it has pieces: 64 KiB of a TCP connection at most, which to
// that connection is one loss.
//
// # Keys
//
// Both ends of a link export the same secret from the TLS 1.3 session of its
// connection (RFC 8446, section 7.5). Each direction has a key of its own for
// each epoch (RFC 5869, HKDF-Expand with SHA-256). The receiver says when an epoch begins, of which secret, and with
// which index, by the link's own reliable messages (l2ext/announce, Express).
// It begins another long before a key is worn out; a sender whose key is worn
// out (MaxSealed) sends nothing.
//
// What is not sealed with the key, or was there before, or is older than Window
// datagrams, costs at most one failed opening and changes nothing.
package fast
