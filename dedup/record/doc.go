// Package record is the format of a batch: the message in which one gateway
// tells its peer how to rebuild a span of a hypervisor's stream.
//
// It knows bytes only. What the kinds mean for a store, and how a delta is
// applied, is the business of package dedup. Numbers are big endian; uv is a
// base-128 varint in its shortest form, as in encoding/binary.
//
// # Message
//
//	| Magic (4) "LHrb" | Version (1) = 1 | Flags (1) |
//	| Seq (uv) | Store (8) | Floor (uv) |
//	| Peer (8) | PeerFloor (uv) |                      only with flag Uses
//	| Raw (uv) | Items (uv) | Digest (16) |
//	| Codec (1) | Size (uv) | Wire (uv) |              of each of the four columns;
//	                                                   Codec 0: empty, nothing follows
//	| the columns, Wire bytes each, in order |
//
//	Flags      bit 0 Flush, 1 Seal, 2 Hold: the marks of package page
//	           bit 3 Uses: the batches of this channel may refer to pages
//	           that the receiver of this message once sent to its sender
//	Seq        1, 2, 3... on each channel
//	Store      random name of the sender's store, which numbers its pages
//	Floor      the sender refers to no own segment below it, ever again
//	Peer       name of the receiver's store, PeerFloor as Floor in that store
//	Raw        bytes of stream that the message stands for, at most MaxRaw
//	Items      items in the message, at most MaxItems
//	Digest     first 16 bytes of SHA-256 over the Raw bytes, then the header
//	           from Magic to Items
//	Codec      1 raw, 2 LZ4, 3 Zstandard, 4 dedup/press, 6 dedup/fold (5 was its first form)
//	Size       bytes of the column before compression
//
// The four columns are
//
//	Ops        the ops drawn below, in the order of the stream
//	Deltas     copy/insert instructions of changed pages (dedup/delta.go)
//	Literals   bytes of pages: whole pages, short ones, what deltas insert, and QEMU's own differences
//	Opaque     bytes without structure, heads that were not predicted, residues of tables, claims
//
// Each is compressed on its own: like stands beside like, and a receiver can
// expand them on any core. All sizes are bounded by Raw and Items, which are
// bounded by constants, so a receiver knows what it will need before it
// allocates; Parse refuses a message whose sizes do not fit each other. Columns
// that take long to expand, which is those of the codecs Press and, at a sixth of
// their size, Fold, are together no more than MaxPress.
//
// # Ops
//
// An op says how to rebuild a run of Count items.
//
//	| Kind (4 bits) Head (2) Addr (2) |
//	| Jump (uv, zigzag) |              only with AddrJump
//	| Space (uv) | Page (uv) |         only with AddrFar
//	| Count (uv) |                     only with HeadNone and HeadPredicted, not with DeltaMany and Short
//	| HeadLen (uv) |                   only with HeadExplicit
//	| Many (1) |                       only with the kind DeltaMany
//	| Len (uv) |                       only with the kind XBZRLE
//	| Len<<1 | known (uv) |            only with the kind Short
//	| Ref (uv) |                       only with the kinds Ref, DeltaRef and DeltaMany, XBZRLE with Len 0 and Short with known
//	| Ref (uv) | ...                   Many of them
//	| Segment (uv) |                   only with the kind Segment
//
// Addr places the first page of the run, all others follow each other:
// AddrNone, address unknown; AddrNext, the page after the last item's;
// AddrJump, Jump pages away from that; AddrFar, page number Page of block
// Space.
//
// Head says what precedes the page in the stream: nothing; eight bytes that
// are the page's offset plus a template, as a big endian number; or HeadLen
// bytes of the column Opaque. The template is offset and head subtracted, as
// of the last explicit head of eight bytes; pages, zero pages and differences
// have one each. HeadOne is HeadPredicted with a Count of one and without the byte for
// it, since pages in random order are many. So a run of pages in a row costs
// three bytes, and a page at random two and its distance.
//
// Ref is zigzag(number - predicted)<<1 | other. A page number is
// segment*SegmentPages + slot in the sender's store or, with other, in the
// receiver's. Predicted is the page after the last one referred to.
//
// Many is the number of bases after the first, 1 to 3. With bit 2 set the first
// is the page that last came for this address, and its Ref is left out. A page
// of several bases is a delta against all of them, one behind the other.
//
// Elsewhere has a claim in the column Opaque for each page, behind its head:
//
//	| Fingerprint (8) | Hash (16) |
//
//	Fingerprint  xxhash64 of the page: the receiver looks for it among what it
//	             has from elsewhere
//	Hash         keyed hash of the page (dedup/key.go): what is found is the
//	             page only if it has the same
//
// Kinds are appended, never renumbered; an unknown kind, codec, flag or
// version is refused, for nothing in a batch can be left out. Nothing here agrees on
// what both ends know: whoever appends to it raises the version by which gateways
// refuse each other before a move begins (gateway/wire.go).
package record
