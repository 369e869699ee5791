package dedup

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/longhaul-project/longhaul/dedup/record"
)

// A Catalog lists the segments that a library holds, or a part of them. Two ends
// that exchange theirs know what both hold; they exchange outlines first, and then
// what differs.
//
//	| Version (1) = 1 | Store (8) | Budget (uv) |
//	| Sent (uv) | an entry for each |
//	| Received (uv) | an entry for each |
//
//	entry: | ID less the one before (uv) | Birth (8) | Pages (uv) |
//
// Numbers are big endian, uv as in package record.
type Catalog struct {
	Store    uint64  // name of the store that the library becomes
	Budget   int64   // bytes of pages it may hold
	Sent     []Entry // by ID, ascending
	Received []Entry
}

// Entry is one segment of a catalog.
type Entry struct {
	ID    uint64
	Birth uint64
	Pages int
}

const catalogVersion = 1

// MaxCatalog bounds a catalog in bytes: 16 bytes for each segment of 1 MiB, so
// about 4 TiB of content.
const MaxCatalog = 64 << 20

// errCatalog is the reason of all refusals.
var errCatalog = errors.New("malformed catalog")

// Append appends the encoding of c to b.
func (c *Catalog) Append(b []byte) []byte {
	b = append(b, catalogVersion)
	b = binary.BigEndian.AppendUint64(b, c.Store)
	b = binary.AppendUvarint(b, uint64(c.Budget))
	for _, list := range [][]Entry{c.Sent, c.Received} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		b = appendEntries(b, list)
	}
	return b
}

func appendEntries(b []byte, list []Entry) []byte {
	last := uint64(0)
	for _, e := range list {
		b = binary.AppendUvarint(b, e.ID-last)
		b = binary.BigEndian.AppendUint64(b, e.Birth)
		b = binary.AppendUvarint(b, uint64(e.Pages))
		last = e.ID
	}
	return b
}

// ParseCatalog reads a catalog, which is all of b. It allocates no more than in
// proportion to b.
func ParseCatalog(b []byte) (c Catalog, err error) {
	if len(b) > MaxCatalog {
		return c, fmt.Errorf("%w: %d bytes are over the limit of %d", errCatalog, len(b), MaxCatalog)
	}
	r := catalogReader{b: b}
	if v := r.byte(); r.err == nil && v != catalogVersion {
		return c, fmt.Errorf("%w: version %d, this gateway knows %d", errCatalog, v, catalogVersion)
	}
	c.Store = r.uint64()
	c.Budget = int64(r.uvarint(1 << 60))
	c.Sent = r.entries()
	c.Received = r.entries()
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes follow it")
	}
	if r.err != nil {
		return Catalog{}, r.err
	}
	return c, nil
}

// catalogReader takes a catalog apart; after an error it returns zeros.
type catalogReader struct {
	b   []byte
	n   int // bytes taken
	err error
}

func (r *catalogReader) fail(why string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: at byte %d: %s", errCatalog, r.n, why)
	}
	r.b = nil
}

func (r *catalogReader) take(n int) []byte {
	if len(r.b) < n {
		r.fail("cut short")
		return make([]byte, n)
	}
	b := r.b[:n]
	r.b, r.n = r.b[n:], r.n+n
	return b
}

func (r *catalogReader) byte() byte     { return r.take(1)[0] }
func (r *catalogReader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

func (r *catalogReader) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	switch {
	case n <= 0:
		r.fail("cut short")
		return 0
	case v > limit:
		r.fail(fmt.Sprintf("%d is over %d", v, limit))
		return 0
	case n > 1 && v>>(7*(n-1)) == 0:
		r.fail("not the shortest varint")
		return 0
	}
	r.take(n)
	return v
}

// entrySize is the least size of an entry in bytes.
const entrySize = 1 + 8 + 1

func (r *catalogReader) entries() []Entry {
	n := r.uvarint(uint64(len(r.b)) / entrySize)
	if n == 0 {
		return nil
	}
	list := make([]Entry, 0, n)
	last := uint64(0)
	for range n {
		id := last + r.uvarint(record.MaxSegment/2-last)
		e := Entry{ID: id, Birth: r.uint64(), Pages: int(r.uvarint(record.SegmentPages))}
		if r.err == nil && (e.ID == last || e.Pages == 0) {
			r.fail("segments out of order, or without a page")
		}
		if r.err != nil {
			return nil
		}
		list, last = append(list, e), id
	}
	return list
}
