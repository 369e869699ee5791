// Package frame is the wire format between two gateways, above QUIC. It knows
// bytes only: no sockets, no channels, no clocks. Numbers are big endian, but for
// varints.
//
// # Streams
//
// Every QUIC stream begins with a preface that says what it is for:
//
//	| 'L' | 'H' | Version (1) | Use (1) | Proto (1) | 0 |
//
// Use is Control (the first bidirectional stream of each connection, opened
// by the side that dialed), Data (unidirectional, chunks of messages, opened by
// either side), or Raw (bidirectional; Proto says for whom, and what follows
// is not ours).
//
// # Control streams
//
// After the preface, in both directions, frames:
//
//	| Type (1) | Len (3) | Body (Len) |       Len <= MaxBody
//
// A frame of unknown type is skipped by its length: a newer gateway may send
// one. A known type with a body that is not exactly as drawn is an error.
// A str is | Len (2) | bytes |; an id or a seq is 8 bytes, and never 0 unless said.
//
//	 1 Hello     | Role (1) | Epoch (16) | Set (16) | Held (16) | Site str | Gateway str | Version str | Path str |
//	 2 Commit    | Set (16) | Serial (8) |
//	 3 Refuse    | Code (1) | Reason str |
//	 4 Open      | Channel id | Kind (2) | Forward (1) | Back (1) | Header, to the end of the frame |
//	 5 Ack       | Channel id | Flags (1) | Received (8) | Done (8) | Window (8) |
//	 6 Fin       | Channel id | Last (8) |
//	 7 Reset     | Channel id | Reason str |
//	 8 ResetAck  | Channel id |
//	 9 Gone      | Channel id |
//	10 Resume    | Channel id | Flags (1) | Received (8) | Done (8) | Window (8) | N (2) | N times: First seq, Last seq |
//	11 ResumeEnd | Serial (8) |
//	12 Ping      | Nonce (8) | Padding, to the end of the frame, all 0 |
//	13 Pong      | Nonce (8) |
//	14 Grow      | Conns (1) |
//	15 Fallback  | Controller str | Carrier str |
//	16 Advance   | Bytes (8) |
//
// Received is the highest seq up to which all messages have arrived; Done is
// the highest seq up to which all have been consumed; both may be 0. Window is
// how many bytes beyond Done the receiver is ready to hold. Resume is an Ack
// that also lists what has arrived out of order, in ascending ranges that do
// not touch. Advance is how many bytes the channels that the receiver of it opens may
// send in all, beyond the 256 KiB of each, before it has an Ack of them.
//
// # Data streams
//
// After the preface, chunks of messages:
//
//	| Channel | Seq | Total | First | Len | Len bytes |
//
// The five numbers are varints of 7 bits a byte, low ones first (package
// encoding/binary), in as few bytes as they take: 12 or so, where fixed fields
// would be a sixth of a per cent of the chunks of a line of 100 Mbit/s.
//
// A message of Total bytes is cut at multiples of Cell. A chunk covers whole
// cells: First is the number of its first one, from 0 on, and Len is a multiple of
// Cell unless the chunk reaches the end of the message. The cells of a message
// may come in any order, on any stream of any connection, and more than once.
package frame
