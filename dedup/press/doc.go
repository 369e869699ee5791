// Package press is a compressor for thin lines: of a move it leaves 14 to 16 per cent
// less than the strongest level of zstd does, for about five times as much CPU time,
// and as much again at the end that expands; where many pages were rewritten by a few
// words each (sparse) 9 per cent less (bench/results/press-2026-11-27.txt). zstd looks
// for what is equal, and writes where that stands. This predicts every bit from what
// came before it, as the programs of the PAQ family do (M. Mahoney, "Adaptive Weighing
// of Context Models for Lossless Data Compression", 2005), and writes only how wrong it
// was.
//
//	press.go    Append, Expand: the order of it all; runs of what has been there
//	context.go  what a bit is predicted from
//	mix.go      one chance out of many
//	coder.go    bits by their chances
//
// # Form
//
// A coded block has no header: who expands it knows its size. It is one binary
// fraction, of which the last four bytes are the lower bound of the interval that is
// left. The bits in it are, until the block is full,
//
//	| run (1) | length, if run is set |      only where a run may begin
//	| byte (8, highest first) |              unless a run has filled the block
//
// Both ends remember where the last six bytes stood before, and whether what
// followed there follows here. When it has done so for runLeast bytes, run tells
// whether it goes on for skipLeast bytes or more; length is how many more they are, plus
// one, as an Elias gamma code: a set bit for each digit below the first, a
// clear one, these digits. The bytes of a run cost nothing but their copy, and
// teach the model nothing.
//
// Every other byte is coded as two halves of four bits. The chance of a bit is
// mixed from five: what came after the same last byte, after the same two, after the
// same four, what stood in the same place of the two words before, since memory is
// full of tables, and what followed where the last bytes stood before.
// A chance learns from each bit; so does each weight in the mixture, from how far that
// was off. All arithmetic is in integers, so all machines make the same of it.
//
// Whatever changes a constant or a table changes the form, and needs another codec in
// package record.
package press
