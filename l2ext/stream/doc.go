// Package stream is how frames cross the WAN one behind the other, on a reliable
// stream of bytes: those of TCP connections, on lines that lose packets (package
// frag is the other way). A stream begins with
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	| 'L'           | 'F'           | version (1)   | 0             |
//	+---------------+---------------+---------------+---------------+
//
// and goes on with frames, each behind a header:
//
//	+---------------+---------------+---------------+---------------+
//	| flags         | VNI                                           |
//	+---------------+---------------+---------------+---------------+
//	| length of the frame           | bytes of the frame            |
//	+---------------+---------------+
//
// Everything is big endian. The flags are a set: 0x01, the frame has been sent on
// once by a site that its MAC has left, and must not be sent on again. All others
// are zero. A length is that of an Ethernet header at least, and at most MaxFrame;
// the VNI is not zero. A stream that breaks a rule is given up: nobody knows where
// its next frame begins. A stream may end between two frames, or be cut off
// anywhere; frames that are not whole are forgotten.
package stream
