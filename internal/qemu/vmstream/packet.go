package vmstream

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/longhaul-project/longhaul/internal/page"
)

// multifdVersion is the version in the init packet and in every header.
const multifdVersion = 1

// Offsets in bytes in the header of a multifd packet (migration/multifd.h
// MultiFDPacket_t; since 10.0 also MultiFDPacketDeviceState_t, which begins
// alike).
const (
	packetVersion  = 4
	packetFlags    = 8
	packetSlots    = 12  // pages_alloc
	packetNormal   = 16  // normal_pages
	packetNext     = 20  // next_packet_size
	packetZero     = 32  // zero_pages, since 9.0; before always 0
	packetBlock    = 64  // ramblock, NUL-terminated
	packetOffsets  = 320 // offset, one for each slot
	deviceID       = 12  // idstr, NUL-terminated
	deviceNext     = 272 // next_packet_size
	deviceHeadSize = 276
)

// Flags of a packet.
const (
	packetSync   = 1 << 0    // the channel waits for the main one after this packet
	packetMethod = 0x1f << 1 // how the payload is compressed; 0: it is pages
	packetDevice = 1 << 6    // device state, since 10.0
)

// Methods of compression, as in packetMethod. Before 9.1 there were only the
// first two, in three bits.
const (
	methodZlib   = 1 << 1
	methodZstd   = 2 << 1
	methodQPL    = 4 << 1
	methodUADK   = 8 << 1
	methodQATzip = 16 << 1
)

// Bounds of a packet.
const (
	packetPages   = 512 << 10                         // bytes of pages in a full packet, MULTIFD_PACKET_SIZE
	minSlots      = packetPages / (64 << 10)          // pages of 64 KiB, the largest there are
	maxSlots      = packetPages / (1 << minPageBits)  // … and the smallest
	packetPeek    = packetSlots + 4                   // bytes that tell the size of the header
	maxPacketHead = packetOffsets + maxSlots*wordSize // bytes
	maxCompressed = 2 * packetPages                   // bytes; QEMU's own buffers are smaller, but for qatzip's
	maxOffset     = 1 << 56                           // no block has as many bytes
)

// sealed names the methods that the hypervisor has an accelerator or a library for,
// and that we do not expand.
func (h packet) sealed() string {
	switch h.flags() & packetMethod {
	case methodQPL:
		return "qpl"
	case methodUADK:
		return "uadk"
	case methodQATzip:
		return "qatzip"
	}
	return ""
}

// packet is the header of a multifd packet, of which at least packetPeek bytes
// are there.
type packet []byte

func (h packet) u32(at int) uint32   { return binary.BigEndian.Uint32(h[at:]) }
func (h packet) flags() uint32       { return h.u32(packetFlags) }
func (h packet) offset(i int) uint64 { return binary.BigEndian.Uint64(h[packetOffsets+i*wordSize:]) }

// headSize is the size of the whole header in bytes. slots is how many offsets
// the headers before it had room for, 0 if none has told. why says what makes
// it no header.
func (h packet) headSize(slots int) (size int, why string) {
	f := h.flags()
	switch {
	case h.u32(0) != multifdMagic:
		return 0, fmt.Sprintf("packet with magic %08x", h.u32(0))
	case h.u32(packetVersion) != multifdVersion:
		return 0, fmt.Sprintf("packet of version %d", h.u32(packetVersion))
	case f == packetDevice:
		return deviceHeadSize, ""
	case f&^(packetSync|packetMethod) != 0:
		return 0, fmt.Sprintf("packet with flags %#x", f)
	}
	switch f & packetMethod {
	case 0, methodZlib, methodZstd, methodQPL, methodUADK, methodQATzip:
	default:
		return 0, fmt.Sprintf("packet compressed by method %d", f&packetMethod>>1)
	}
	told := h.u32(packetSlots)
	switch {
	case told == 0 && f&packetSync != 0: // since 9.2 such a packet tells nothing
		if slots == 0 {
			slots = packetPages / defaultPageSize
		}
	case told < minSlots || told > maxSlots || told&(told-1) != 0, slots != 0 && int(told) != slots:
		return 0, fmt.Sprintf("packet for %d pages", told)
	default:
		slots = int(told)
	}
	return packetOffsets + slots*wordSize, ""
}

// slots is how many offsets a whole header has room for.
func (h packet) slots() int { return (len(h) - packetOffsets) / wordSize }

// counts returns the number of pages in the payload, and that of the pages
// that the header calls zero.
func (h packet) counts() (normal, zero int, why string) {
	n, z, most := h.u32(packetNormal), h.u32(packetZero), uint32(h.slots())
	if n > most || z > most-n || n+z > 0 && h.u32(packetSlots) == 0 {
		return 0, 0, fmt.Sprintf("packet of %d and %d pages, for %d", n, z, h.u32(packetSlots))
	}
	return int(n), int(z), ""
}

// lowest checks the first n offsets and returns the lowest of them: zero pages
// are moved to the end, so they need not be in order.
func (h packet) lowest(n int) (offset uint64, why string) {
	mask := uint64(packetPages/h.slots() - 1)
	offset = maxOffset
	for i := range n {
		o := h.offset(i)
		if o&mask != 0 || o >= maxOffset {
			return 0, fmt.Sprintf("page at %#x", o)
		}
		offset = min(offset, o)
	}
	return offset, ""
}

// payload is the number of bytes that follow the header of a packet with
// normal pages. Without any the field is what an earlier packet left in it (up
// to 8.1).
func (h packet) payload(normal int) (n int, why string) {
	if normal == 0 {
		return 0, ""
	}
	next := h.u32(packetNext)
	if h.flags()&packetMethod == 0 {
		if want := normal * (packetPages / h.slots()); int64(next) != int64(want) {
			return 0, fmt.Sprintf("packet of %d bytes for %d pages", next, normal)
		}
	} else if next > maxCompressed {
		return 0, fmt.Sprintf("packet of %d bytes", next)
	}
	return int(next), ""
}

// isPages tells whether the payload is pages of the one size that we can name.
func (h packet) isPages() bool {
	return h.flags()&packetMethod == 0 && h.slots() == packetPages/page.Size
}

// cname returns the NUL-terminated name at the start of b; why says what makes
// it none.
func cname(b []byte) (name []byte, why string) {
	n := bytes.IndexByte(b, 0)
	if n <= 0 || !printable(b[:n]) {
		return nil, "packet without a name"
	}
	return b[:n], ""
}
