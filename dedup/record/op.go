package record

import (
	"encoding/binary"
	"fmt"
)

// Kind says how the items of an op are rebuilt.
type Kind uint8

// The kinds.
const (
	// Bytes is Count bytes of the column Opaque, without head or address.
	Bytes Kind = iota + 1
	// Zero is a record that says that a page is zero: its head and a zero byte.
	Zero
	// Blank is a page whose bytes are all zero.
	Blank
	// Same is a page that has not changed since it last came on this channel.
	Same
	// Ref is a page that both stores hold.
	Ref
	// Literal is a page in the column Literals. It gets the next number of
	// the sender's segment.
	Literal
	// Passing is a Literal that neither end keeps.
	Passing
	// DeltaSame is a changed version of the page that last came for this
	// address; it is kept like a Literal.
	DeltaSame
	// DeltaRef is a changed version of a page that both stores hold; it is
	// kept like a Literal.
	DeltaRef
	// Segment opens a segment of the sender's store: the pages kept from
	// here on get its numbers.
	Segment
	// DeltaMany is a page put together from up to MaxBases pages that both
	// stores hold; it is kept like a Literal. Such an op is of one item.
	DeltaMany
	// Table is Count bytes, whole words, that are coded as residues against
	// the last Table of the channel (dedup/table.go), in the column Opaque.
	Table
	// XBZRLE is a page whose difference to the one that last came for its
	// address is what the stream has of it (internal/page/xbzrle). Of Len bytes,
	// that is in the column Literals, and the page is kept like a Literal; or,
	// with Len 0, the page is one that both stores hold, and the difference
	// follows from that. Such an op is of one item.
	XBZRLE
	// Short is the first Len bytes of a page: in the column Literals, and then
	// the page, whose other bytes are zero, is kept like a Literal; or of a
	// page that both stores hold. Such an op is of one item.
	Short
	// Elsewhere is a page that the receiver has from elsewhere, named by the
	// ClaimSize bytes of a Claim in the column Opaque; it is kept like a
	// Literal.
	Elsewhere

	lastKind = Elsewhere // the last that four bits hold
)

// kindNames are indexed by Kind.
var kindNames = [...]string{"none", "bytes", "zero", "blank", "same", "ref", "literal", "passing", "delta", "delta-ref", "segment", "delta-many", "table", "xbzrle", "short", "elsewhere"}

// String names the kind.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// IsPage reports whether the kind's items are whole pages of the stream.
func (k Kind) IsPage() bool { return k >= Blank && k <= DeltaRef || k == DeltaMany || k == Elsewhere }

// HeadMode says what stands before the page in the stream.
type HeadMode uint8

// The head modes.
const (
	HeadNone      HeadMode = iota // nothing
	HeadPredicted                 // offset plus template, on every item of the run
	HeadExplicit                  // HeadLen bytes of the column Opaque; one item
	HeadOne                       // predicted; one item
)

// AddrMode says where the first page of the run lives.
type AddrMode uint8

// The address modes.
const (
	AddrNone AddrMode = iota // unknown
	AddrNext                 // the page after the last one
	AddrJump                 // Jump pages from there, not 0
	AddrFar                  // page Page of block Space
)

// MaxPage bounds page numbers inside a block: offsets are 64 bits of bytes.
const MaxPage = 1<<52 - 1

// MaxHead bounds an explicit head, in bytes. QEMU's are at most 265.
const MaxHead = 4096

// maxNumber bounds page numbers in a store.
const maxNumber = MaxSegment * SegmentPages

// Op is one op.
type Op struct {
	Kind    Kind
	Head    HeadMode
	Addr    AddrMode
	Count   int    // items, or bytes of the kinds Bytes and Table
	Jump    int64  // pages
	Space   uint32 // of AddrFar, from 1
	Page    uint64 // of AddrFar
	HeadLen int    // bytes of an explicit head
	Ref     int64  // number of the first page referred to, less the predicted one
	Other   bool   // Ref counts in the receiver's store
	Segment uint64 // number of the segment that opens

	Len   int  // of XBZRLE and Short, in bytes
	Known bool // of Short: Ref names the page

	Same bool               // of DeltaMany: the first base is the page that last came for this address; Ref and Other are unused
	More [MaxBases - 1]Base // of DeltaMany: the bases after the first
	Many int                // how many of More there are
}

// MaxBases bounds the bases of one page: a fifth gains nothing (reduction.md, 1-3).
const MaxBases = 4

// maxPart bounds Len in bytes: a difference is no longer than its page
// (migration/ram.c save_xbzrle_page sends the page instead), a short page is
// shorter.
const maxPart = 4096

// Base refers to one further base of a page.
type Base struct {
	Ref   int64 // number of the page, less the predicted one
	Other bool  // it counts in the receiver's store
}

// single reports whether the op's form says that it is of one item.
func (o *Op) single() bool {
	return o.Head == HeadExplicit || o.Head == HeadOne || o.Kind == DeltaMany || o.Kind == XBZRLE || o.Kind == Short
}

// refers reports whether the op's form has a Ref.
func (o *Op) refers() bool {
	switch o.Kind {
	case Ref, DeltaRef:
		return true
	case DeltaMany:
		return !o.Same
	case XBZRLE:
		return o.Len == 0
	case Short:
		return o.Known
	}
	return false
}

// Append appends the encoding of o to b. It writes HeadPredicted of one item
// as HeadOne.
func (o Op) Append(b []byte) []byte {
	if o.Head == HeadPredicted && (o.Count == 1 || o.single()) {
		o.Head = HeadOne
	}
	b = append(b, byte(o.Kind)<<4|byte(o.Head)<<2|byte(o.Addr))
	switch o.Addr {
	case AddrJump:
		b = binary.AppendUvarint(b, zigzag(o.Jump))
	case AddrFar:
		b = binary.AppendUvarint(b, uint64(o.Space))
		b = binary.AppendUvarint(b, o.Page)
	}
	if o.Kind == Segment {
		return binary.AppendUvarint(b, o.Segment)
	}
	if !o.single() {
		b = binary.AppendUvarint(b, uint64(o.Count))
	}
	if o.Head == HeadExplicit {
		b = binary.AppendUvarint(b, uint64(o.HeadLen))
	}
	if o.Kind == DeltaMany {
		many := byte(o.Many)
		if o.Same {
			many |= firstSame
		}
		b = append(b, many)
	}
	switch o.Kind {
	case XBZRLE:
		b = binary.AppendUvarint(b, uint64(o.Len))
	case Short:
		n := uint64(o.Len) << 1
		if o.Known {
			n |= 1
		}
		b = binary.AppendUvarint(b, n)
	}
	if o.refers() {
		b = appendRef(b, o.Ref, o.Other)
	}
	for _, m := range o.More[:o.Many] {
		b = appendRef(b, m.Ref, m.Other)
	}
	return b
}

// firstSame is the bit of DeltaMany's number of bases that says Same.
const firstSame = 4

func appendRef(b []byte, ref int64, other bool) []byte {
	v := zigzag(ref) << 1
	if other {
		v |= 1
	}
	return binary.AppendUvarint(b, v)
}

// ParseOp reads the op at the start of b; n is the number of bytes it takes.
func ParseOp(b []byte) (o Op, n int, err error) {
	r := reader{b: b}
	code := r.byte()
	o = Op{Kind: Kind(code >> 4), Head: HeadMode(code >> 2 & 3), Addr: AddrMode(code & 3), Count: 1}
	if r.err == nil {
		r.err = o.check()
	}
	switch o.Addr {
	case AddrJump:
		o.Jump = unzigzag(r.uvarint("jump", 2*MaxPage+2))
		if o.Jump == 0 {
			r.fail(fmt.Errorf("%w: jump to the next page", errForm))
		}
	case AddrFar:
		o.Space = uint32(r.uvarint("block", 1<<32-1))
		o.Page = r.uvarint("page", MaxPage)
		if o.Space == 0 {
			r.fail(fmt.Errorf("%w: jump to no block", errForm))
		}
	}
	o.rest(&r)
	if r.err != nil {
		return Op{}, 0, r.err
	}
	return o, r.n, nil
}

// rest reads what follows the address.
func (o *Op) rest(r *reader) {
	if o.Kind == Segment {
		o.Count = 0
		o.Segment = r.uvarint("segment", MaxSegment)
		return
	}
	if !o.single() {
		limit := uint64(MaxItems)
		if o.Kind == Bytes || o.Kind == Table {
			limit = MaxRaw
		}
		o.Count = int(r.uvarint("count", limit))
		if o.Count == 0 || o.Head == HeadPredicted && o.Count == 1 {
			r.fail(fmt.Errorf("%w: run of %d items", errForm, o.Count))
		}
	}
	if o.Head == HeadExplicit {
		o.HeadLen = int(r.uvarint("length of a head", MaxHead))
		if o.HeadLen == 0 {
			r.fail(fmt.Errorf("%w: empty head", errForm))
		}
	}
	switch o.Kind {
	case DeltaMany:
		o.many(r)
	case XBZRLE:
		o.Len = int(r.uvarint("length of a difference", maxPart))
	case Short:
		n := r.uvarint("length of a short page", 2*maxPart-1)
		o.Len, o.Known = int(n>>1), n&1 == 1
		if o.Len == 0 {
			r.fail(fmt.Errorf("%w: short page of no bytes", errForm))
		}
	}
	if o.refers() {
		o.Ref, o.Other = r.ref()
	}
	if o.Same && o.Addr == AddrNone {
		r.fail(fmt.Errorf("%w: %s of the same address without an address", errForm, o.Kind))
	}
	for i := range o.Many {
		o.More[i].Ref, o.More[i].Other = r.ref()
	}
}

// many reads how many bases a page has: two or more, of which the first may
// be implied. One alone has a kind of its own.
func (o *Op) many(r *reader) {
	n := r.byte()
	o.Many, o.Same = int(n&^firstSame), n&firstSame != 0
	if r.err == nil && (o.Many < 1 || o.Many >= MaxBases) {
		o.Many = 0
		r.fail(fmt.Errorf("%w: %d further bases", errForm, n))
	}
}

func (r *reader) ref() (ref int64, other bool) {
	v := r.uvarint("reference", 4*maxNumber)
	return unzigzag(v >> 1), v&1 == 1
}

// check refuses combinations that mean nothing.
func (o *Op) check() error {
	bare := o.Head == HeadNone && o.Addr == AddrNone
	switch {
	case o.Kind == 0 || o.Kind > lastKind:
		return fmt.Errorf("%w: unknown kind %d", errForm, o.Kind)
	case (o.Kind == Bytes || o.Kind == Segment || o.Kind == Table || o.Kind == Short) && !bare:
		return fmt.Errorf("%w: %s with a head or an address", errForm, o.Kind)
	case (o.Kind == Same || o.Kind == DeltaSame || o.Kind == XBZRLE) && o.Addr == AddrNone:
		return fmt.Errorf("%w: %s without an address", errForm, o.Kind)
	case (o.Kind == DeltaMany || o.Kind == XBZRLE) && o.Head == HeadPredicted:
		return fmt.Errorf("%w: run of %s", errForm, o.Kind)
	case o.Kind == XBZRLE && o.Head == HeadNone:
		return fmt.Errorf("%w: %s without a head", errForm, o.Kind)
	}
	return nil
}
