package payload

import "encoding/binary"

// Stored writes the framing of pages that a decompressor is to read as they are.
type Stored struct {
	begin []byte // what opens the stream
	block []byte // what stands before each page
}

// StoredZlib is for QEMU's method zlib, with pages of size bytes, below 64 KiB.
// Each is a stored block that is not the last one (RFC 1951, section 3.2.4).
func StoredZlib(size int) *Stored {
	block := binary.LittleEndian.AppendUint16([]byte{0}, uint16(size))
	block = binary.LittleEndian.AppendUint16(block, ^uint16(size))
	return &Stored{begin: []byte{0x78, 0x01}, block: block}
}

// StoredZstd is for QEMU's method zstd, with pages of size bytes, at most 128
// KiB. Each is a raw block that is not the last one (RFC 8878, section
// 3.1.1.2), in a frame with a window of 128 KiB and nothing else.
func StoredZstd(size int) *Stored {
	const window = 7 << 3 // 1 << (10 + 7) bytes (section 3.1.1.1.2)
	block := uint32(size) << 3
	return &Stored{
		begin: []byte{0x28, 0xb5, 0x2f, 0xfd, 0, window},
		block: []byte{byte(block), byte(block >> 8), byte(block >> 16)},
	}
}

// Overhead is how many bytes are added to n pages that come next.
func (s *Stored) Overhead(n int) int { return len(s.begin) + n*len(s.block) }

// AppendBlock appends what stands before the next page.
func (s *Stored) AppendBlock(b []byte) []byte {
	b = append(append(b, s.begin...), s.block...)
	s.begin = nil
	return b
}
