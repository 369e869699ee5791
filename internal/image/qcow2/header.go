package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

const magic = "QFI\xfb"

// Limits of what an image may ask for. They are QEMU's (block/qcow2.h), but for
// maxHead.
const (
	minClusterBits = 9
	maxClusterBits = 21
	maxL1          = 32 << 20 // bytes of L1 table
	maxName        = 1023     // bytes of a backing file's name
	maxHead        = 64 << 10 // bytes of cluster 0 that are read; images of QEMU use some hundred
)

// Incompatible features, by bit.
const (
	featureDirty       = 0
	featureCorrupt     = 1
	featureDataFile    = 2
	featureCompression = 3
	featureExtendedL2  = 4
)

// Header is what cluster 0 says of the image.
type Header struct {
	// Size of the disk in bytes.
	Size int64
	// Backing names the file that the rest of the disk is in.
	Backing Backing

	version     uint32
	clusterBits uint
	l1Offset    int64
	l1Entries   int64 // as many as Size needs
	extended    bool  // L2 entries with subclusters
	zstd        bool  // compressed clusters are zstd, not deflate
}

// Backing is a reference to another image. It is only text: whether it may be
// followed is for the caller to decide.
type Backing struct {
	// Name of the file, relative to that of the image; "" is none.
	Name string
	// Format of the file, such as "raw"; "" is not told.
	Format string
	// Offset in the image at which Name stands.
	Offset int64
}

// Is tells whether a file that begins with b is a qcow2 image.
func Is(b []byte) bool { return bytes.HasPrefix(b, []byte(magic)) }

// ClusterSize is the unit of the image, in bytes.
func (h *Header) ClusterSize() int64 { return 1 << h.clusterBits }

// ReadHeader reads cluster 0 of a file of size bytes.
func ReadHeader(file io.ReaderAt, size int64) (*Header, error) {
	head := make([]byte, min(maxHead, max(size, 0)))
	if _, err := file.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading header: %w", err)
	}
	return parseHeader(head, size)
}

// parseHeader takes the first bytes of a file of size bytes.
func parseHeader(b []byte, size int64) (*Header, error) {
	if !Is(b) {
		return nil, at(0, "no qcow2 magic")
	}
	if len(b) < 72 {
		return nil, at(int64(len(b)), "file ends in the header")
	}
	h := &Header{version: binary.BigEndian.Uint32(b[4:])}
	if h.version != 2 && h.version != 3 {
		return nil, at(4, "version %d; want 2 or 3", h.version)
	}
	bits := binary.BigEndian.Uint32(b[20:])
	if bits < minClusterBits || bits > maxClusterBits {
		return nil, at(20, "clusters of 2^%d bytes; want 2^%d to 2^%d", bits, minClusterBits, maxClusterBits)
	}
	h.clusterBits = uint(bits)
	b = b[:min(int64(len(b)), h.ClusterSize())]
	switch crypt := binary.BigEndian.Uint32(b[32:]); crypt {
	case 0:
	case 1, 2:
		return nil, at(32, "the image is encrypted (%s)", [...]string{1: "AES", 2: "LUKS"}[crypt])
	default:
		return nil, at(32, "the image is encrypted (method %d)", crypt)
	}
	extensions, err := h.features(b)
	if err != nil {
		return nil, err
	}
	if err := h.tables(b, size); err != nil {
		return nil, err
	}
	return h, h.backing(b, extensions)
}

// features reads what version 3 adds, and the extensions.
func (h *Header) features(b []byte) (extensions, error) {
	area := b // of the header and its extensions
	if name := binary.BigEndian.Uint64(b[8:]); name != 0 && name < uint64(len(b)) {
		area = b[:name]
	}
	if h.version == 2 {
		return readExtensions(area, 72)
	}
	if len(b) < 104 {
		return extensions{}, at(int64(len(b)), "file ends in the header")
	}
	length := int64(binary.BigEndian.Uint32(b[100:]))
	if length < 104 || length%8 != 0 || length > int64(len(b)) {
		return extensions{}, at(100, "header of %d bytes; want a multiple of 8 from 104 to %d", length, len(b))
	}
	ext, err := readExtensions(area, int(length))
	if err != nil {
		return ext, err
	}
	bits := binary.BigEndian.Uint64(b[72:])
	if err := refuse(bits, ext.features); err != nil {
		return ext, err
	}
	h.extended = bits&(1<<featureExtendedL2) != 0
	if h.extended && h.clusterBits < 14 {
		return ext, at(20, "extended L2 entries with clusters of 2^%d bytes; want at least 2^14", h.clusterBits)
	}
	return ext, h.compression(b, length, bits&(1<<featureCompression) != 0)
}

// refuse gives an error for the first incompatible feature that cannot be read.
func refuse(bits uint64, names []byte) error {
	for bit := range 64 {
		if bits&(1<<bit) == 0 {
			continue
		}
		switch bit {
		case featureDirty, featureCorrupt, featureCompression, featureExtendedL2:
		case featureDataFile:
			return at(72, "incompatible feature %d (external data file) is not supported", bit)
		default:
			return at(72, "incompatible feature %d (%s) is not known", bit, featureName(names, bit))
		}
	}
	return nil
}

func (h *Header) compression(b []byte, length int64, other bool) error {
	var kind byte
	if length > 104 {
		kind = b[104]
	}
	switch {
	case kind > 1:
		return at(104, "compression type %d is not known", kind)
	case other != (kind != 0):
		return at(104, "compression type %d does not agree with incompatible feature %d", kind, featureCompression)
	}
	h.zstd = kind == 1
	return nil
}

// tables reads the size of the disk and where the L1 table is.
func (h *Header) tables(b []byte, size int64) error {
	disk := binary.BigEndian.Uint64(b[24:])
	if disk > math.MaxInt64 {
		return at(24, "disk of %d bytes", disk)
	}
	h.Size = int64(disk)
	entries := int64(binary.BigEndian.Uint32(b[36:]))
	offset := binary.BigEndian.Uint64(b[40:])
	span := h.l1Span()
	h.l1Entries = h.Size / span // rounded up below; Size + span could overflow
	if h.Size%span != 0 {
		h.l1Entries++
	}
	switch {
	case h.l1Entries*8 > maxL1:
		return at(24, "disk of %d bytes, more than the L1 table of %d bytes that QEMU allows can map", disk, maxL1)
	case entries < h.l1Entries:
		return at(36, "L1 table of %d entries; a disk of %d bytes needs %d", entries, disk, h.l1Entries)
	case h.l1Entries == 0:
		return nil
	case offset%uint64(h.ClusterSize()) != 0:
		return at(40, "L1 table at byte %d, which is no multiple of %d", offset, h.ClusterSize())
	case offset > uint64(size) || h.l1Entries*8 > size-int64(offset):
		return at(40, "L1 table of %d bytes at byte %d reaches behind the end of the file at %d", h.l1Entries*8, offset, size)
	}
	h.l1Offset = int64(offset)
	return nil
}

// l2Entries is the number of clusters that an L2 table maps.
func (h *Header) l2Entries() int64 { return h.ClusterSize() / h.l2Entry() }

// l2Entry is the size of an entry of an L2 table in bytes.
func (h *Header) l2Entry() int64 {
	if h.extended {
		return 16
	}
	return 8
}

// l1Span is the number of bytes of disk that an entry of the L1 table maps.
func (h *Header) l1Span() int64 { return h.l2Entries() << h.clusterBits }

// backing reads the reference to a backing file.
func (h *Header) backing(b []byte, ext extensions) error {
	offset, n := binary.BigEndian.Uint64(b[8:]), uint64(binary.BigEndian.Uint32(b[16:]))
	if offset == 0 || n == 0 {
		return nil
	}
	if n > maxName {
		return at(16, "name of a backing file of %d bytes; want at most %d", n, maxName)
	}
	if offset > uint64(len(b)) || n > uint64(len(b))-offset {
		return at(8, "name of a backing file at byte %d, outside of the first %d", offset, len(b))
	}
	h.Backing = Backing{string(b[offset : offset+n]), string(ext.format), int64(offset)}
	return nil
}

// at is an error at a byte of the file.
func at(offset int64, format string, args ...any) error {
	return fmt.Errorf("byte %d: %w", offset, fmt.Errorf(format, args...))
}
