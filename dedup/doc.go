// Package dedup turns the items of a channel into batches in which nothing
// crosses the WAN that the peer can rebuild from what it holds, and back. It
// knows no network and no hypervisor. It is steps 3, 4 and 7 of the path:
//
//	encode    Encoder.Add          zero? same as before? known? changed? else literal   encode.go
//	          Encoder.Cut          a batch of 512 KiB of literals or 2 MiB of stream    encoder.go
//	                               (1 MiB or 3 MiB with strong settings)
//	compress  Batch.Compress       each column on its own; any goroutine                batch.go, compress.go
//	expand    Expand               parse and decompress; any goroutine                  expand.go
//	          Decoder.Resolve      which pages is it made of, in order                  decoder.go, resolve.go
//	          Resolved.Rebuild     make the bytes and verify them; any goroutine        resolved.go, rebuild.go
//	          Resolved.Take        publish its pages, in order
//
// record draws the message; fold and press are the compressors for thin lines. Under
// both ends lies a Store:
//
//	store.go        what this gateway and one peer both hold
//	library.go      what is left of it on disk after a restart
//	view.go         the same, looked at while its gateway uses it
//	catalog.go      tells the peer what that is; outline.go says it in short first
//	elsewhere.go    pages that one end has from elsewhere, sent as hashes; key.go
//	summary.go      what a peer has from elsewhere, as it tells
//	pool.go         what a site has of its own: the pages of its images
//	scrub.go        reads all that is on disk
//	shelf.go        one direction of it: segments, their window, eviction in step
//	segment.go      1 MiB of pages, in memory or on disk, and who has it pinned
//	tier.go         the budget of memory
//	fetch.go        pages that one end has lost, from the other
//	disk.go         to disk and off it, behind the backs of the channels; store is the files
//	pins.go         the segments that a batch uses
//	fingerprint.go  xxhash64 and the index of hints
//	versions.go     which page last came for an address
//	bases.go        which known pages a new one is put together from
//	anchors.go      pages with a stretch in common, wherever it lies
//	table.go        headers that resemble the one before
//	xbzrle.go       pages that QEMU sends as differences
//	chunk.go        streams without known structure
//	delta.go        copy/insert deltas against up to four bases
//	predict.go      where the next page lives and what precedes it
//	digest.go       digests of batches and of channels
//
// # Near copies
//
// Pages that are not equal to a known one are often nearly equal: the same
// address before, the next page of a file, a shifted copy, parts of several.
// bases.go chooses up to four known pages, delta.go puts the new one together
// from them, and only what it inserts is compressed. That finds what a
// compressor with a window over all history finds (reduction.md, second half),
// at the cost of a page.
//
// # When a page may be referred to
//
// A reference is sent only after the page was compared byte by byte with our
// own copy of something that the peer is sure to hold when it decodes:
//
//   - what this channel sent before, for batches are decoded in order;
//   - what another channel or an earlier move sent and the peer acknowledged;
//   - what the peer itself sent to us (the trip home), once the peer keeps it
//     for us: from EncoderConfig.PeerReady (its decoder exists, or it called
//     Store.Keep) or the first acknowledgement on.
//
// What only the peer holds, of its own images or from other sites, cannot be
// compared. The peer tells in summaries what that is, and such a page goes as a
// claim: its fingerprint, and 128 bits of SHA-256 keyed by the fleet and by the
// random names of the two stores (key.go), so that a hash is of no use to anybody
// else. The receiver takes a page only if it has that hash, and asks the sender for
// it otherwise. Nobody waits for an answer before a page is sent; from then on both
// hold it in common.
//
// A fingerprint only finds candidates. The receiver checks the fingerprint of
// every page that it reads from a store, and the SHA-256 of every batch before
// it returns one byte of it. So a bit that rots in a store, in a delta's base,
// in a message or in the sender's memory ends the channel with an error that
// names the place; it never reaches a guest. A sender that hears of it calls
// Store.Forget. Before that, a decoder that has DecoderConfig.Fetch asks the peer
// for the page, which its store has as well (fetch.go): its channel waits for a
// round trip, and nothing refers to the segment from then on.
//
// # How two stores stay in step
//
// Each end numbers the pages that it sends, in segments that one channel
// fills and that its batches name, so several channels need no common order.
// The sender alone evicts, oldest first: it stops referring to the oldest
// quarter of its window and lets the oldest eighth go. It waits until all
// batches that refer to that, or that filled it, are acknowledged, and
// announces the new floor in every batch. The
// receiver then drops what lies below: it can never miss what a batch refers
// to. The sender keeps its own copy until an announcement was acknowledged and
// no decoder's lease (what the peer says it may still refer to on the way
// back) needs it. If that takes long the window fills, and pages are sent in
// full without being kept: slower, never wrong, never over the budget.
//
// A page met while its segment is on the way out is kept anew, as a delta of
// ten bytes, so what is used stays.
//
// # What a restart leaves
//
// A segment goes to disk when it is full or its channel ends, and stays in
// memory while the budget of memory lasts. When either gateway restarts, both
// open what they have on disk as a Library and exchange catalogs, which list
// segments by number and by the store that gave the number out; outlines with a
// digest for each 1024 segments go first, so that what is the same is not told.
// What both have is the new Store; the rest is removed. So a lost disk is noticed at once, and
// a crash, a full disk or a rotten file costs bandwidth.
//
// The budget of a store is split in two fixed halves, one for each direction,
// since both halves have a copy at the peer. The gateways tell each other
// their budgets (Config.PeerBudget) and the smaller one counts.
package dedup
