// Package store keeps the segments of a content store on disk. It knows files
// and integrity; what a segment means, and who may refer to it, is the business
// of package dedup.
//
// # Layout
//
// A store is a directory. Each shelf of it is a folder, and each segment a file
// in a folder of 256, named by its number in hex:
//
//	lock                 held by the process that uses the store
//	sent/00000c/00000c1f.seg
//	received/000000/00000001.seg
//
// A segment is written once, under another name first, and never changed; it is
// removed whole. Nothing is synced to disk: after a power cut a file may be
// short, empty or wrong, its checksums say so, and then it is removed. Losing a
// segment costs bandwidth and nothing else. So none is written that would fill the
// disk: a thirty-second of it, at most 256 MiB, stays free for what is not to be lost.
//
// # A segment
//
// Numbers are big endian.
//
//	| Magic (4) "LHsg" | Version (1) = 1 | 0 (1) | Pages (2) |
//	| ID (8) | Birth (8) |
//	| Sum (8) of each page |
//	| Check (8) |
//	| the pages, 4096 bytes each |
//
//	Pages  1 to 256
//	ID     number of the segment on its shelf
//	Birth  random name of who gave the number out: a crash may make it forget
//	       that, and give it out again
//	Sum    xxhash64 of the page
//	Check  xxhash64 of all that stands before it
package store
