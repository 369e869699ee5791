// Package fold is a compressor between zstd and dedup/press: of a move it leaves 8 to 12
// per cent less than zstd 7 does and 4 to 8 less than zstd 11, for 1.1 to 1.2 times the CPU
// time of zstd 7 or a quarter of that of zstd 11, and takes as much at the end that expands
// (bench/results/fold-2026-11-27.txt, fold-2026-11-27b.txt). Like zstd it writes what has
// been there as a distance and a length. What it writes, literals above all, it predicts
// by what stands around it, from what came in such places before: of memory full of
// tables, the byte that stands there in the row before says more than any frequency.
//
//	fold.go     Append, Expand; what a sequence consists of
//	match.go    what has been there: the sequences of a block
//	literal.go  bytes that have not
//	model.go    the chances of half a byte
//	coder.go    symbols by their chances
//
// # Form
//
// A folded block has no header: who expands it knows its size. It is one binary fraction
// of whole words of 32 bits, big endian; behind its end there is one more, of zeros. It
// codes sequences until the block is full:
//
//	| literals: number | plain, if 512 or more | bytes |
//	| kind | length: number | distance, if the kind is 3 or more |      not at the end of the block
//
//	number    one symbol of 0 to 14; with 15, how many binary digits what is over 14
//	          has, less one, and the digits below the first. 15 digits stand for 22
//	plain     1: the bytes are coded as they are, for they are noise. 0: two halves of
//	          four bits each, the upper one first
//	kind      0 to 2: the distance is that of the last match, of the one before, or the one
//	          before that. 3: it has 8 binary digits at most; 4: 9; and so on
//	length    of the match, less 4
//	distance  its lower four bits, the four above, then the highest four below the first, and
//	          those between
//
// Halves of bytes, and all else but digits in the middle, are symbols of 16. Each has a
// model by its place: of a literal, two, by the byte before it and by the byte at the
// distance of the last match, and for the lower half by the upper one and less of these,
// whose sum is weighted by which was better of late. A model
// learns from each symbol. All arithmetic is in integers, so all machines make the same
// of it.
//
// All tables together take 240 KB, so that they stay in the second cache of a processor
// while others are at work on it. With 1 MB of tables, models by all of both bytes and
// twice as many places of matches, a fold waited for memory half of its time.
//
// Whatever changes a constant or a table changes the form, and needs another codec in
// package record.
package fold
