package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Sizes of a segment.
const (
	PageSize = 4096 // bytes
	MaxPages = 256  // in one segment

	fixedSize = 4 + 1 + 1 + 2 + 8 + 8
	sumSize   = 8
	checkSize = 8
)

// The first bytes of a segment.
const (
	magic   = 0x4c487367 // "LHsg"
	version = 1
)

// ErrDamaged means that a segment is not what was written.
var ErrDamaged = errors.New("segment is damaged")

// Header is what a segment says of itself.
type Header struct {
	ID    uint64   // on its shelf, from 1
	Birth uint64   // random
	Sums  []uint64 // xxhash64 of the pages, 1 to MaxPages
}

// Size is the length of the header in bytes.
func (h *Header) Size() int { return headerSize(len(h.Sums)) }

func headerSize(pages int) int { return fixedSize + pages*sumSize + checkSize }

// FileSize is the length of the whole segment in bytes.
func (h *Header) FileSize() int64 { return int64(h.Size()) + int64(len(h.Sums))*PageSize }

// Append appends the encoding of h to b.
func (h *Header) Append(b []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, magic)
	b = append(b, version, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.Sums)))
	b = binary.BigEndian.AppendUint64(b, h.ID)
	b = binary.BigEndian.AppendUint64(b, h.Birth)
	for _, s := range h.Sums {
		b = binary.BigEndian.AppendUint64(b, s)
	}
	return binary.BigEndian.AppendUint64(b, xxhash.Sum64(b[start:]))
}

// ParseHeader reads the header at the start of b, which is n bytes long. Bytes
// that are not a header, or are cut short, are ErrDamaged.
func ParseHeader(b []byte) (h Header, n int, err error) {
	if len(b) < fixedSize {
		return h, 0, fmt.Errorf("%w: %d bytes", ErrDamaged, len(b))
	}
	if binary.BigEndian.Uint32(b) != magic || b[4] != version || b[5] != 0 {
		return h, 0, fmt.Errorf("%w: first bytes %x", ErrDamaged, b[:6])
	}
	pages := int(binary.BigEndian.Uint16(b[6:]))
	n = headerSize(pages)
	if pages == 0 || pages > MaxPages || len(b) < n {
		return h, 0, fmt.Errorf("%w: %d pages, %d bytes", ErrDamaged, pages, len(b))
	}
	if binary.BigEndian.Uint64(b[n-checkSize:]) != xxhash.Sum64(b[:n-checkSize]) {
		return h, 0, fmt.Errorf("%w: checksum of the header", ErrDamaged)
	}
	h.ID, h.Birth = binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
	h.Sums = make([]uint64, pages)
	for i := range h.Sums {
		h.Sums[i] = binary.BigEndian.Uint64(b[fixedSize+i*sumSize:])
	}
	return h, n, nil
}
