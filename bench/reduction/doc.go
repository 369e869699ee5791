// Package reduction measures what reduction leaves of migration streams, and at
// what cost, beside general compressors in the same run.
//
//	stream.go    cut a captured stream into items; what it holds
//	case.go      what crosses, and what has crossed before it
//	ours.go      our path: scan, encode, compress, expand, decode, compare; the
//	             only file that knows package dedup
//	peers.go     zstd and lz4 as libraries, zstd --long as a program
//	scaling.go   the same path with parallel stages
//	report.go    all of it in order; print.go as text
//
// [Run] takes the streams of bench/streams. Every stream is rebuilt by a
// decoder that has a store of its own, and compared with what was sent: a
// figure of a method that cannot be decoded is worth nothing.
//
// Speeds are bytes of stream for each second of processor time with
// GOMAXPROCS=1, so that other load on the machine shows less; rows of one run may be
// compared, not machines. Parallel stages are measured by the clock, and
// suffer from other load.
//
// The case back is a VM whose disk both sites share. A VM that moved with its disk comes
// "back with its disk": that has crossed before its memory did, as libvirt has it, and
// is known like that, so what the guest has read from it since costs references. There the
// last stream crosses in the other direction, as it does when a VM comes home; in the other
// cases all streams cross in one direction, which makes no difference of note.
//
// An encoder is told at once that a batch was decoded; across a WAN it hears
// of it a round trip later, which changes nothing on one channel.
//
// make bench-reduction runs it, by bench/reduction/table.
package reduction
