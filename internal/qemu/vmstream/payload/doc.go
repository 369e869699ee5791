// Package payload expands what QEMU's multifd has compressed, and writes what
// its decompressors read without compressing anything. It is the door of the
// decompressors.
//
// The payloads of one channel are one stream (migration/multifd-zlib.c and
// multifd-zstd.c): the compressor is flushed after each packet and never begun
// anew. What a payload expands to depends on those before.
//
//	zlib    78 xx | blocks of RFC 1951, ending at a byte (Z_SYNC_FLUSH)
//	zstd    one frame of RFC 8878 without an end, whole blocks in each payload
//
// Stored makes such a stream of pages that are at hand: a stored block (zlib) or
// a raw block (zstd) for each page. It is as long as the pages and a few bytes,
// for it crosses a leg and not the WAN, and depends on nothing but the pages.
//
// The two ends of a channel need not stay with one of the two for ever: a block
// of zlib refers to nothing but the last 32 KiB of pages, so a reader may be
// given stored blocks up to some packet, and the source's own bytes from there
// on. Blocks of zstd refer to tables and offsets of those before, so there is no
// way back.
package payload
