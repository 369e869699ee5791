package vmstream

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// liveKind is the grammar of a live section's body.
type liveKind uint8

const (
	isUnknown  liveKind = iota
	isPages             // ram
	isBitmap            // dirty-bitmap
	isVFIO              // <path>/vfio
	isHTAB              // spapr/htab
	isStAttrib          // s390-stattrib
)

// ramVersion is the only version of ram's body that QEMU still reads.
const ramVersion = 4

// kindOf tells the kind of a live section from its header.
func kindOf(h header) liveKind {
	name := string(h.name)
	switch {
	case name == "ram" && h.version == ramVersion:
		return isPages
	case name == "dirty-bitmap":
		return isBitmap
	case name == "spapr/htab":
		return isHTAB
	case name == "s390-stattrib":
		return isStAttrib
	case name == "vfio" || strings.HasSuffix(name, "/vfio"):
		return isVFIO
	}
	return isUnknown
}

// maxLive is how many live sections are remembered; a guest has one for ram
// and one per assigned device.
const maxLive = 1024

// live remembers what the numbers of sections stand for.
type live struct {
	kinds  map[uint32]liveKind
	ram    uint32 // ram's number
	hasRAM bool
}

func (l *live) add(id uint32, k liveKind) {
	if l.kinds == nil {
		l.kinds = make(map[uint32]liveKind)
	}
	if len(l.kinds) < maxLive {
		l.kinds[id] = k
	}
	if k == isPages {
		l.ram, l.hasRAM = id, true
	}
}

func (l *live) kind(id uint32) (k liveKind, known bool) {
	k, known = l.kinds[id]
	return k, known
}

// maxChunk bounds one chunk of a live section's body: vfio sends 1 MiB, dirty
// bitmaps 1 KiB, s390-stattrib 512 KiB. A larger one means that we are not
// where we think we are.
const maxChunk = 64 << 20

// liveState is where we are in a live section's body.
type liveState struct {
	begun bool // the first word is behind us
	last  bool // only the end marker may follow
}

// liveBody parses one token of the body of a live section other than ram.
func (p *parser) liveBody(b []byte) int {
	var n int
	var v verdict
	switch p.section.kind {
	case isBitmap:
		n, v = p.bitmap(b)
	case isVFIO:
		n, v = p.vfio(b)
	case isHTAB:
		n, v = p.htab(b)
	case isStAttrib:
		n, v = p.stattrib(b)
	}
	switch {
	case v == more:
		return 0
	case v == no || p.skip > maxChunk:
		p.skip = 0
		p.seekFooterOf(p.section.id, fmt.Sprintf("live section %d", p.section.id))
		return p.step(b)
	}
	p.part.begun = true
	if n == 0 {
		return p.step(b)
	}
	return n
}

// Flags of a chunk of dirty-bitmap (migration/block-dirty-bitmap.c).
const (
	bitmapEOS      = 0x01
	bitmapZeroes   = 0x02
	bitmapName     = 0x04
	bitmapNode     = 0x08
	bitmapStart    = 0x10
	bitmapComplete = 0x20
	bitmapBits     = 0x40
	bitmapExtra    = 0x80 // the flags are longer; no QEMU sends this
)

// bitmap parses a chunk of dirty-bitmap: flags, names, and what the flags say.
func (p *parser) bitmap(b []byte) (n int, v verdict) {
	f := b[0]
	n = 1
	if f&bitmapExtra != 0 {
		return 0, no
	}
	for _, flag := range [...]byte{bitmapNode, bitmapName} {
		if f&flag != 0 {
			name, v := cstr(b[n:])
			if v != yes {
				return 0, v
			}
			n += 1 + len(name)
		}
	}
	switch f &^ (bitmapNode | bitmapName) {
	case bitmapEOS:
		p.endBody()
	case bitmapStart:
		n += 5 // u32 granularity, u8 flags
	case bitmapComplete:
	case bitmapBits | bitmapZeroes:
		n += 12 // u64 sector, u32 count
	case bitmapBits:
		n += 20 // also u64 length
		if len(b) >= n {
			p.skip = binary.BigEndian.Uint64(b[n-8:])
		}
	default:
		return 0, no
	}
	if len(b) < n {
		return 0, more
	}
	return n, yes
}

// Tags of a vfio body (hw/vfio/migration.c VFIO_MIG_FLAG_*).
const (
	vfioTag      = 0xffffffffef100000
	vfioEnd      = vfioTag | 1
	vfioSetup    = vfioTag | 3
	vfioData     = vfioTag | 4
	vfioInitSent = vfioTag | 5
	vfioReady    = vfioTag | 6
)

// vfio parses a tag of a vfio body. A device's config (tag 2) is vmstate: it
// ends where the section ends.
func (p *parser) vfio(b []byte) (n int, v verdict) {
	if len(b) < 8 {
		return 0, more
	}
	switch binary.BigEndian.Uint64(b) {
	case vfioEnd, vfioInitSent, vfioReady:
		p.endBody()
	case vfioSetup:
	case vfioData:
		if len(b) < 16 {
			return 0, more
		}
		p.skip = binary.BigEndian.Uint64(b[8:])
		return 16, yes
	default:
		return 0, no
	}
	return 8, yes
}

// htab parses the hash page table of a pseries guest (hw/ppc/spapr.c): a word,
// which is 0 if chunks follow, and the chunks.
func (p *parser) htab(b []byte) (n int, v verdict) {
	const entry = 16 // bytes of a valid entry
	if !p.part.begun {
		if len(b) < 4 {
			return 0, more
		}
		if binary.BigEndian.Uint32(b) != 0 { // the table's size, or that there is none
			p.endBody()
		}
		return 4, yes
	}
	if len(b) < 8 {
		return 0, more
	}
	if binary.BigEndian.Uint64(b) == 0 {
		p.endBody()
	}
	p.skip = entry * uint64(binary.BigEndian.Uint16(b[4:]))
	return 8, yes
}

// Flags in the words of s390-stattrib (hw/s390x/s390-stattrib.c).
const (
	attrEOS  = 0x01
	attrMore = 0x02
	attrDone = 0x08
)

// stattrib parses a word of s390-stattrib. EOS ends the body; after DONE some
// versions leave it out.
func (p *parser) stattrib(b []byte) (n int, v verdict) {
	if p.part.last && b[0] == elemFooter {
		p.endBody()
		return 0, yes
	}
	if len(b) < 8 {
		return 0, more
	}
	switch binary.BigEndian.Uint64(b) & (defaultPageSize - 1) {
	case attrEOS:
		p.endBody()
	case attrDone:
		p.part.last = true
	case attrMore:
		if len(b) < 16 {
			return 0, more
		}
		p.skip = binary.BigEndian.Uint64(b[8:])
		return 16, yes
	default:
		return 0, no
	}
	return 8, yes
}
