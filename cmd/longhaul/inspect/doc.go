// Package inspect looks into captured migration streams: of what pages they
// consist, and how many bytes each way to carry them would leave. It is the
// core of "longhaul inspect": it reads from an io.Reader and prints nothing.
//
//	Inspector.Know      what a gateway's store holds  inspect.go
//	Inspector.Inspect   a capture, in chunks
//	cutter.next         bytes to items, gzip, streams one after the other   cutter.go, plain.go
//	pages.write         of what pages it consists     pages.go, sample.go
//	whole, reducer      how many bytes are left       whole.go, reducer.go
//	File                what was found                report.go
//
// A chunk goes to all of these at once, each in a goroutine of its own, while
// the next one is read.
//
// # Pages
//
// Each page of a capture is one of these five, so they add up:
//
//	zero         all its bytes are zero
//	resent same  it was sent before in this migration, and has not changed
//	duplicate    its content came before in this capture, as another page or
//	             as an older version of this one
//	distinct     its content comes for the first time in this capture
//	differences  QEMU has sent how it has changed (XBZRLE)
//
// Besides, a page that was sent before in this migration may have changed, and
// changed only a little: in fewer than 64 of its 512 words.
//
// Contents are told apart by 64-bit fingerprints, so these numbers are
// estimates, if good ones: in a billion pages, the chance that any two contents
// are taken for one is 3 per cent. The bytes that Longhaul leaves are exact:
// there a match is compared byte by byte.
//
// Up to 8 Mi addresses of a guest are followed and as many contents of all
// captures, at about 30 bytes each; above that a sample is, by a hash of address
// or content, and the numbers are scaled up. Whether a change is little takes
// the page before it, so for that 64 Ki pages of a guest are kept whole; of
// larger guests that is a sample, too.
//
// # Bytes left
//
// The whole stream as LZ4, zstd 1 and zstd 3 make it, as "qemu | zstd" would.
// By zero pages and duplicates alone: opaque bytes, heads of pages and QEMU's
// differences as they are, distinct contents in full, and a fingerprint for each other page. By
// Longhaul: the messages of dedup.Encoder, with batches as full as they can be
// and without the headers of the tunnel. All of it is decoded again with a store
// of its own, as the peer has one, and compared with the capture.
//
// QEMU may have compressed a multifd channel by itself: what is looked at is what
// that expands to, as a gateway does.
//
// Captures that follow each other go to the same peer, as the moves of several
// VMs do. So duplicates and Longhaul are measured twice: on their own, and with
// what the captures before have left at the peer, which for Longhaul is as much
// as the budget of a store holds.
//
// The content store of a gateway is, with Inspector.Know, what the peer has before the
// first capture. It is read where it lies and not changed, and the gateway that uses it
// goes on: what is new stays in memory. If the gateway removes a segment meanwhile, its
// pages cross in full.
package inspect
