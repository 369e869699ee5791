// Package mux carries streams and datagrams over one reliable connection, such
// as TLS over TCP, for places that let no QUIC through. It offers what the
// tunnel uses of a QUIC connection and no more.
//
// # Format
//
// Both ends send frames, in any order:
//
//	| Kind (1) | Len (3) | Stream (4) | Body (Len) |      big endian, Len <= MaxBody
//
//	1 Open      | Way (1) |           a new stream: 1 one-way, 2 both ways
//	2 Data      bytes of the stream
//	3 Fin       no more Data comes from this end
//	4 Reset     the stream is over; what is on its way is void
//	5 Credit    | N (4) |             N more bytes of Data may be sent
//	6 Datagram  bytes; Stream is 0
//	7 Close     | Code (8) | text, of at most MaxText |   the connection is over; Stream is 0
//	8 Ping      | Nonce (8) |         Stream is 0
//	9 Pong      | Nonce (8) |         Stream is 0
//
// Streams are numbered from 1 up by the end that opens them: odd by the one that
// dialed, even by the other. An unknown kind, a body that is not as drawn, a
// stream that is opened out of order and Data beyond the credit end the
// connection. What comes for a stream that is over is skipped.
//
// # Flow
//
// A one-way stream has no credit: its reader takes bytes off the connection
// directly, and while it does not, nothing else is read. It is for readers that
// never wait, as those of the tunnel's data are. A stream both ways has
// StreamWindow of credit at first, and gets more as its reader takes bytes; so
// one whose reader has gone holds up nobody.
//
// # Bounds
//
// A peer can make a Conn hold MaxStreams times StreamWindow, 16 MiB, and
// maxDatagrams datagrams; the oldest are dropped.
//
// # Life
//
// Each end pings the other every pingEvery. An end that hears nothing for
// IdleTimeout takes the connection for dead.
package mux
