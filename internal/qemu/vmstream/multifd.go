package vmstream

import (
	"fmt"

	"github.com/longhaul-project/longhaul/internal/page"
)

// Multifd scans one of the extra connections that carry pages when QEMU's
// capability multifd is on. It has no section and no end of its own, only
// packets. One that makes no sense ends what is understood of the connection:
// nothing in it marks a place to go on.
type Multifd struct {
	id     int
	named  bool // id has been seen
	opened bool // the init packet is behind us

	head [maxPacketHead]byte // the last header, or the one that is being taken
	got  int                 // bytes of it that were handed out before it was whole

	left  int    // bytes of the payload still to come
	pages int    // pages of the payload that become items, in all; 0 if it is opaque
	space uint32 // block of the pages
	sync  bool   // the packet has SYNC

	slots int // offsets in a header, 0 until one has told

	unpack *unpacker // what the stream comes through; nil: as QEMU wrote it
	ram    ram       // blocks by name, and how far the scan of memory is
	facts  page.Facts
}

// NewMultifd returns a scanner for a multifd channel.
func NewMultifd() *Multifd { return &Multifd{facts: page.Facts{Format: "qemu-multifd"}} }

// multifdID is where the init packet holds the channel's number
// (migration/multifd.h MultiFDInit_t: magic, version, uuid, id).
const multifdID = 24

// ID is the channel's number, from 0. ok is false until it has been seen.
func (m *Multifd) ID() (id int, ok bool) { return m.id, m.named }

// learn reads the init packet.
func (m *Multifd) learn(init []byte) { m.id, m.named = int(init[multifdID]), true }

// Facts implements page.Scanner.
func (m *Multifd) Facts() page.Facts {
	f := m.facts
	f.Rounds = m.ram.wraps
	return f
}

// Next implements page.Scanner. The init packet is an item of its own: the
// destination's QEMU reads it with its main loop blocked.
func (m *Multifd) Next(b []byte) (page.Item, int) {
	switch {
	case m.lost():
		return m.bytes(b[:min(len(b), maxOpaque)])
	case m.left > 0:
		return m.payload(b)
	case m.got > 0: // Cut has handed out a part of this header
		return m.bytes(b[:m.take(b)])
	}
	return m.header(b)
}

// Cut implements page.Scanner. The item carries Flush, as all that Cut returns
// does.
func (m *Multifd) Cut(b []byte) page.Item {
	for rest := b; len(rest) > 0; {
		n := len(rest)
		switch {
		case m.lost():
		case m.left > 0:
			n = min(n, m.left)
			m.left -= n
		default:
			n = m.take(rest)
		}
		rest = rest[n:]
	}
	return page.Item{Kind: page.Opaque, Mark: page.Flush, Data: b}
}

// header returns the whole header at the start of b, if there is one.
func (m *Multifd) header(b []byte) (page.Item, int) {
	size := m.need(b)
	if m.lost() {
		return m.Next(b)
	}
	if len(b) < size {
		return page.Item{}, 0
	}
	it := page.Item{Kind: page.Table, Data: b[:size]}
	if size%wordSize != 0 { // that of device state
		it.Kind = page.Opaque
	}
	if !m.opened {
		it.Mark = page.Flush
	}
	copy(m.head[:], b[:size])
	m.begin(size)
	if m.lost() {
		return m.Next(b)
	}
	it.Mark |= m.mark()
	return it, size
}

// need is how many bytes of a header are needed to go on, of which b is the
// start: all, or as many as tell how many these are.
func (m *Multifd) need(b []byte) int {
	switch {
	case !m.opened:
		return multifdInit
	case len(b) < packetPeek:
		return packetPeek
	}
	size, why := packet(b).headSize(m.slots)
	if m.unpack != nil && packet(b).u32(0) == rawMagic {
		why = m.unpack.why
	}
	if why != "" {
		m.lose(why)
	}
	return size
}

// take moves on over bytes of a header that are handed out piecemeal, and
// returns how many of b belong to it.
func (m *Multifd) take(b []byte) (n int) {
	m.sync = false // of the packet before
	for n < len(b) && !m.lost() {
		c := copy(m.head[m.got:m.need(m.head[:m.got])], b[n:])
		n += c
		m.got += c
		if m.need(m.head[:m.got]) == m.got {
			size := m.got
			m.got = 0
			m.begin(size)
			break
		}
	}
	return n
}

// begin reads the header in head and goes on to what follows it.
func (m *Multifd) begin(size int) {
	h := packet(m.head[:size])
	m.pages, m.sync = 0, false
	switch {
	case !m.opened:
		m.open(h)
	case h.flags() == packetDevice:
		m.device(h)
	default:
		m.packet(h)
	}
}

// open reads the init packet.
func (m *Multifd) open(h packet) {
	m.opened = true
	m.learn(h)
	if magic, v := h.u32(0), h.u32(packetVersion); magic != multifdMagic || v != multifdVersion {
		m.lose(fmt.Sprintf("init packet with magic %08x, version %d", magic, v))
	}
}

// device reads the header of device state. What follows it is bytes.
func (m *Multifd) device(h packet) {
	next := h.u32(deviceNext)
	if _, why := cname(h[deviceID : deviceID+256]); why != "" {
		m.lose(why)
	} else if next > maxChunk {
		m.lose(fmt.Sprintf("device state of %d bytes", next))
	} else {
		m.left = int(next)
	}
}

// packet reads the header of a packet with pages, or of one that is a SYNC
// only. Fields that a packet has no use for are not looked at: they hold what
// an earlier one left there.
func (m *Multifd) packet(h packet) {
	normal, zero, why := h.counts()
	if why == "" && normal+zero > 0 {
		why = m.locate(h, normal+zero)
	}
	left := 0
	if why == "" {
		left, why = h.payload(normal)
	}
	if why != "" {
		m.lose(why)
		return
	}
	if h.u32(packetSlots) != 0 {
		m.slots = h.slots()
		m.facts.PageSize = packetPages / m.slots
	}
	if normal > 0 && m.facts.Sealed == "" {
		m.facts.Sealed = h.sealed()
	}
	m.facts.ZeroPages += uint64(zero)
	m.left, m.sync = left, h.flags()&packetSync != 0
	if h.isPages() || m.unpack != nil && h.unpacks() {
		m.pages = normal
	}
}

// locate finds out which block the n pages of a packet are of.
func (m *Multifd) locate(h packet, n int) (why string) {
	name, why := cname(h[packetBlock:packetOffsets])
	if why != "" {
		return why
	}
	first, why := h.lowest(n)
	if why != "" {
		return why
	}
	m.space, _ = m.ram.find(name, true)
	m.ram.reach(page.Addr{Space: m.space, Offset: first})
	return ""
}

// payload returns the page at the start of b, or bytes: of a payload that is
// no pages, or the rest of a page that was cut.
func (m *Multifd) payload(b []byte) (page.Item, int) {
	n := min(m.left, maxOpaque)
	if m.pages > 0 {
		if rest := m.left % page.Size; rest > 0 {
			n = rest
		} else {
			return m.page(b)
		}
	}
	n = min(n, len(b))
	m.left -= n
	return m.bytes(b[:n])
}

// page returns the whole page at the start of b, if there is one.
func (m *Multifd) page(b []byte) (page.Item, int) {
	if len(b) < page.Size {
		return page.Item{}, 0
	}
	i := m.pages - m.left/page.Size
	m.left -= page.Size
	m.facts.Pages++
	return page.Item{
		Kind: page.Full,
		Mark: m.mark(),
		Addr: page.Addr{Space: m.space, Offset: packet(m.head[:]).offset(i)},
		Data: b[:page.Size],
	}, page.Size
}

// mark is that of the item with which we have come as far as we are. The
// destination waits on all channels for the last byte before a SYNC.
func (m *Multifd) mark() page.Mark {
	if m.sync && m.left == 0 {
		return page.Flush
	}
	return 0
}

// bytes makes an opaque item of b.
func (m *Multifd) bytes(b []byte) (page.Item, int) {
	return page.Item{Kind: page.Opaque, Mark: m.mark(), Data: b}, len(b)
}

// lose gives up on structure: all that follows is opaque.
func (m *Multifd) lose(why string) {
	m.left, m.sync = 0, false
	m.facts.Lost = why
}

func (m *Multifd) lost() bool { return m.facts.Lost != "" }
