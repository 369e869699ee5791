// Package page holds the words that the steps of the path share: an Item is a
// span of a hypervisor's stream, and a Scanner cuts a stream into items.
//
// The stream is the concatenation of Head and Data of all items, in order.
// Everything else in an Item only helps to encode the span in fewer bytes, so
// a scanner that guesses wrong costs bandwidth and never correctness.
package page

import "io"

// Size is the size of a guest page in bytes. A page of another size travels as
// opaque bytes.
const Size = 4096

// MaxItem is the most bytes of stream that one Item may span. Whoever feeds a
// Scanner needs a buffer of at least this size.
const MaxItem = 256 << 10

// Kind says what an Item spans.
type Kind uint8

// The kinds of item.
const (
	// Opaque is bytes without known structure, all in Data.
	Opaque Kind = iota + 1
	// Full is one whole page: Data is its Size bytes.
	Full
	// Zero is a page whose content is all zero; Data is what the stream
	// says of it (QEMU: the one fill byte 0).
	Zero
	// Table is bytes in whole big-endian 64-bit words that resemble the
	// previous Table of the channel (QEMU: a multifd packet's header), all
	// in Data. A Table is encoded as a difference to the one before; who
	// does not know the kind takes it for bytes.
	Table
	// XBZRLE is a page as its difference to what the stream last said of the
	// same address. Data is a byte 1, the length of the difference in two bytes,
	// big-endian, and the difference, as in package xbzrle.
	XBZRLE
	// Chunk is bytes without known structure that were cut where their content
	// says so, so that like content is cut alike; all in Data.
	Chunk
)

// Mark is a set of flags that ask for care with the delivery of an Item.
type Mark uint8

// The marks.
const (
	// Flush: this item and all before it must leave at once.
	Flush Mark = 1 << iota
	// Seal: here begins the end of the stream. The destination may not get
	// this item or any later one before the digests of all that came before,
	// on every channel of the session, agree at both ends.
	Seal
	// Hold: this item is part of a unit that the destination must get whole
	// or not at all. Deliver it when an item without Hold follows.
	Hold
)

// Addr is where a page lives in the guest: an offset in bytes, a multiple of
// Size, in a memory block. Blocks are numbered from 1 in the order in which
// the stream names them; Space 0 means that the address is unknown.
type Addr struct {
	Space  uint32
	Offset uint64
}

// Item is a span of the stream. Head and Data borrow from the buffer that was
// given to the Scanner and are invalid once that buffer is reused.
type Item struct {
	Kind Kind
	Mark Mark
	Addr Addr   // of a Full, Zero or XBZRLE item
	Head []byte // bytes of the stream that precede Data: a page's record header
	Data []byte
}

// Len is the number of bytes of stream that the item spans.
func (it Item) Len() int { return len(it.Head) + len(it.Data) }

// A Scanner cuts one channel's stream into items. It belongs to one goroutine.
// No input makes it fail: what it does not understand is opaque.
type Scanner interface {
	// Next returns the item at the start of b and the number of bytes it
	// spans. n is 0 when b holds no whole item yet: append to b and ask
	// again, or call Cut. It never asks for more than MaxItem bytes.
	Next(b []byte) (it Item, n int)

	// Cut is called when the source has gone silent in the middle of an
	// item, or when b is full: it takes all of b, which Next left, as one
	// opaque item. The rest of the cut item will come out opaque.
	Cut(b []byte) Item

	// Facts tells what the stream has said of itself so far.
	Facts() Facts
}

// An Unpacker is a Scanner that sees more of a stream once the hypervisor's own
// compression is taken out of it.
type Unpacker interface {
	Scanner

	// Unpack returns a reader of the stream that r is, unpacked. The scanner
	// must be given that in place of r, from its first byte on. The far end has
	// to pack it again, so that the hypervisor there reads the same pages.
	Unpack(r io.Reader) io.Reader
}

// Facts is what a stream says of itself.
type Facts struct {
	Format     string // "qemu", "qemu-multifd", "qemu-preempt", "qemu-recover", "nbd", "tls", "opaque"
	Machine    string // machine type, such as "pc-q35-7.2"
	PageSize   int    // target page size in bytes; 0 while unknown
	ReturnPath bool   // the source has opened a return path
	Postcopy   bool   // the source has switched to postcopy
	Rounds     int    // times that the scan of memory began again at a lower address, about the number of passes
	Pages      uint64 // Full items so far
	ZeroPages  uint64 // Zero items so far, and pages that Tables say are zero
	Sealed     string // how the hypervisor has compressed pages that nobody here expands: "compress", "qpl", "uadk", "qatzip"; "" if there are none
	Lost       string // why the parser has given up on structure; "" while it has not
}
