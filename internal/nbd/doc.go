// Package nbd reads exports of NBD servers: the spans of a disk that hold
// data, in order, over one connection with many requests under way. And it cuts what
// another client writes to a disk into blocks ([Writes]).
//
// The protocol is doc/proto.md and the addresses are doc/uri.md of the NBD
// project. Spoken are the fixed newstyle handshake, structured replies and the
// metadata context base:allocation where the server has them, and no TLS. All
// numbers are big endian:
//
//	handshake    S  "NBDMAGIC" | "IHAVEOPT" | flags 2
//	             C  flags 4
//	option       C  "IHAVEOPT" | option 4 | length 4 | data
//	             S  0x0003e889045565a9 8 | option 4 | type 4 | length 4 | data     once or more
//	request      C  0x25609513 4 | flags 2 | type 2 | cookie 8 | offset 8 | length 4
//	extended     C  0x21e41c71 4 | flags 2 | type 2 | cookie 8 | offset 8 | length 8       of others
//	simple       S  0x67446698 4 | error 4 | cookie 8 | data of a READ
//	structured   S  0x668e33ef 4 | flags 2 | type 2 | cookie 8 | length 4 | payload
//
// The order of options is STRUCTURED_REPLY, SET_META_CONTEXT, GO; a server that
// does not know GO gets EXPORT_NAME. The cookie of a request is its number.
//
// Servers are not trusted: what they send is checked against what was asked
// for before a byte of it is taken, memory is at most 16 reads of 1 MiB and
// 1 MiB of extents, and a connection with a fault is not used again. They
// may be slow, and claim any size; there the caller's ctx is the bound.
package nbd
