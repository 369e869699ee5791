package vmstream

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/longhaul-project/longhaul/internal/page"
)

// Flags of a ram word (migration/ram.c RAM_SAVE_FLAG_*).
const (
	ramZero     = 0x02
	ramMemSize  = 0x04
	ramPage     = 0x08
	ramEOS      = 0x10
	ramContinue = 0x20
	ramXBZRLE   = 0x40
	ramCompress = 0x100
	ramFlush    = 0x200
)

// Bounds of what a stream may make us remember or believe.
const (
	maxBlocks      = 4096 // QEMU refuses more memory slots than KVM has, 32764; real guests have some ten
	minPageBits    = 10   // page sizes in block entries begin at 1 KiB
	maxPageBits    = 40   // … and no huge page is larger
	wordSize       = 8    // bytes
	xbzrleHead     = 3    // u8 encoding, u16 length
	xbzrleEncoding = 1    // the only one there is, ram.c ENCODING_FLAG_XBZRLE
	unbounded      = math.MaxUint64
)

// ram is what outlives the sections of ram: its blocks, and the block that a
// record with CONTINUE refers to.
type ram struct {
	blocks  []uint64          // used length in bytes; the first has Space 1
	names   map[string]uint32 // name of a block to its Space
	full    bool              // there were more than maxBlocks
	learns  bool              // no list will come: blocks are learned from records
	skipped bool              // records may have been skipped: the block of CONTINUE is unknown
	mapped  bool              // mapped-ram: the block list has an unknown form

	block uint32 // Space of the last record; 0 for none or unknown
	named bool   // there was a last record
	left  uint64 // bytes of blocks still to come in the MEM_SIZE list

	last    page.Addr // of the last page, for counting wraps
	slack   uint64    // bytes by which addresses may go back without a wrap
	wraps   int       // times that addresses began again lower
	flushes int       // MULTIFD_FLUSH words
}

// record is a ram word and what it says of the bytes that follow.
type record struct {
	flags uint64 // without CONTINUE
	head  int    // bytes of word and name
	addr  page.Addr
	aware bool // the page is of the one size that we can name
}

// isPage tells whether the record becomes a Full, Zero or XBZRLE item.
func (r record) isPage() bool {
	return r.aware && (r.flags == ramPage || r.flags == ramZero || r.flags == ramXBZRLE)
}

// record reads the ram word at the start of b and, if it has one, the name.
func (p *parser) record(b []byte) (r record, v verdict) {
	if len(b) < wordSize {
		return r, more
	}
	w := binary.BigEndian.Uint64(b)
	mask := uint64(p.facts.PageSize - 1)
	r.flags, r.head = w&mask&^ramContinue, wordSize
	r.aware = p.facts.PageSize == page.Size
	switch r.flags {
	case ramXBZRLE:
		if r, v = p.locate(b, r, w&mask&ramContinue != 0); v == yes {
			_, _, ok := p.encodedSize(b, r)
			r.aware = r.aware && (ok == more || ok == yes && b[r.head] == xbzrleEncoding)
		}
		return r, v
	case ramPage, ramZero, ramCompress:
		return p.locate(b, r, w&mask&ramContinue != 0)
	case ramMemSize, ramEOS, ramFlush:
		if w&ramContinue != 0 {
			return r, no
		}
		return r, yes
	}
	return r, no
}

// locate finds out which page a record is about.
func (p *parser) locate(b []byte, r record, same bool) (record, verdict) {
	r.addr.Offset = binary.BigEndian.Uint64(b) &^ uint64(p.facts.PageSize-1)
	if same {
		r.addr.Space = p.ram.block
		if !p.ram.named && !p.ram.skipped {
			return r, no
		}
	} else {
		name, v := cstr(b[wordSize:])
		if v != yes {
			return r, v
		}
		r.head += 1 + len(name)
		if r.addr.Space, v = p.ram.find(name, p.ram.learns); v != yes {
			return r, v
		}
	}
	if s := r.addr.Space; s > 0 && r.addr.Offset >= p.ram.blocks[s-1] {
		return r, no
	}
	return r, yes
}

// find returns the Space of the block called name: 0 if it is one of those for
// which there was no room. With add set an unknown name is learned.
func (m *ram) find(name []byte, add bool) (space uint32, v verdict) {
	if s, ok := m.names[string(name)]; ok {
		return s, yes
	}
	if len(name) == 0 || !printable(name) {
		return 0, no
	}
	if m.full {
		return 0, yes
	}
	if !add {
		return 0, no
	}
	return m.add(name, unbounded), yes
}

// add remembers a block and returns its Space.
func (m *ram) add(name []byte, size uint64) uint32 {
	if s, ok := m.names[string(name)]; ok {
		m.blocks[s-1] = size
		return s
	}
	if len(m.blocks) == maxBlocks {
		m.full = true
		return 0
	}
	if m.names == nil {
		m.names = make(map[string]uint32)
	}
	m.blocks = append(m.blocks, size)
	s := uint32(len(m.blocks))
	m.names[string(name)] = s
	return s
}

// page returns the whole page record at the start of b, if there is one.
func (p *parser) page(b []byte) (it page.Item, n int) {
	r, v := p.record(b)
	if v != yes || !r.isPage() {
		return it, 0
	}
	size := page.Size
	switch r.flags {
	case ramZero:
		size = 1
	case ramXBZRLE:
		_, diff, v := p.encodedSize(b, r)
		if v != yes {
			return it, 0
		}
		size = xbzrleHead + diff
	}
	n = r.head + size
	if len(b) < n {
		return it, 0
	}
	it = page.Item{Kind: page.Full, Mark: p.mark, Addr: r.addr, Head: b[:r.head], Data: b[r.head:n]}
	switch {
	case r.flags == ramXBZRLE:
		it.Kind = page.XBZRLE
	case r.flags == ramPage:
		p.facts.Pages++
	case b[n-1] == 0:
		it.Kind = page.Zero
		p.facts.ZeroPages++
	default: // QEMU fills the page with this byte; nothing sends it
		it = page.Item{Kind: page.Opaque, Mark: p.mark, Data: b[:n]}
	}
	p.visit(r)
	p.mark, p.after = p.base|p.after, 0
	return it, n
}

// compressSlack is how far pages may be out of order when QEMU's threads
// compress them: some pages per thread, of which there are up to 255.
const compressSlack = 1 << 20

// visit moves on to the page that r is about.
func (p *parser) visit(r record) {
	m := &p.ram
	m.block, m.named = r.addr.Space, true
	if r.flags == ramCompress {
		m.slack, p.facts.Sealed = compressSlack, "compress"
	}
	a, last := r.addr, m.last
	if a.Space == last.Space && a.Offset < last.Offset && last.Offset-a.Offset <= m.slack {
		return
	}
	if p.facts.Postcopy { // pages come as they are asked for
		m.last = a
		return
	}
	m.reach(a)
}

// reach moves the scan of memory on to a, and counts if it began again.
func (m *ram) reach(a page.Addr) {
	if last := m.last; a.Space < last.Space || a.Space == last.Space && a.Offset < last.Offset {
		m.wraps++
	}
	m.last = a
}

// word parses one ram word, and the page that may follow it as opaque bytes.
func (p *parser) word(b []byte) int {
	r, v := p.record(b)
	switch v {
	case more:
		return 0
	case no:
		return p.desync(b, fmt.Sprintf("ram word %#016x", binary.BigEndian.Uint64(b)))
	}
	switch r.flags {
	case ramPage:
		p.skip = uint64(p.facts.PageSize)
	case ramZero:
		p.skip = 1
	case ramXBZRLE, ramCompress:
		return p.encoded(b, r)
	case ramMemSize:
		return p.memSize(b)
	case ramFlush:
		p.ram.flushes++
		return r.head
	case ramEOS:
		p.endBody()
		return r.head
	}
	p.visit(r)
	return r.head
}

// endBody leaves the body of a section. A preempt channel has no sections: its
// one EOS is its end.
func (p *parser) endBody() {
	if p.role == preempt {
		p.state = atEnd
		return
	}
	p.state, p.footer = atElement, true
}

// encoded parses, as opaque bytes, a record whose page was encoded by QEMU.
func (p *parser) encoded(b []byte, r record) int {
	head, size, v := p.encodedSize(b, r)
	switch v {
	case more:
		return 0
	case no:
		return p.desync(b, fmt.Sprintf("encoded page of %d bytes", size))
	}
	p.skip = uint64(size)
	p.visit(r)
	return head
}

// encodedSize is the length of the head and of the data of an XBZRLE or
// COMPRESS record.
func (p *parser) encodedSize(b []byte, r record) (head, size int, v verdict) {
	const lengthSize = 4 // bytes, of COMPRESS
	head = r.head + xbzrleHead
	if r.flags == ramCompress {
		head = r.head + lengthSize
	}
	if len(b) < head {
		return head, 0, more
	}
	limit := p.facts.PageSize
	if r.flags == ramCompress {
		size = int(binary.BigEndian.Uint32(b[r.head:]))
		limit += limit/2 + 64 // more than zlib's compressBound
	} else {
		size = int(binary.BigEndian.Uint16(b[r.head+1:]))
	}
	if size > limit {
		return head, size, no
	}
	return head, size, yes
}

// memSize parses the word that begins the list of blocks.
func (p *parser) memSize(b []byte) int {
	if p.ram.mapped {
		p.lose("mapped-ram") // files only: pages stand at fixed places (migration.json, since 9.0)
		return wordSize
	}
	p.ram.left = binary.BigEndian.Uint64(b) &^ uint64(p.facts.PageSize-1)
	if p.ram.left > 0 {
		p.state = inBlockList
	}
	return wordSize
}

// blockEntry parses one entry of the list of blocks. Two of its fields are
// there only sometimes; section 1.2 of hypervisor-wire.md has the rule.
func (p *parser) blockEntry(b []byte) int {
	name, v := cstr(b)
	if v == more {
		return 0
	}
	n := 1 + len(name) + wordSize
	if len(name) == 0 || !printable(name) {
		return p.desync(b, "block without a name")
	}
	need := n
	if p.advised || p.ignoresRAM {
		need += wordSize
	}
	if len(b) < need {
		return 0
	}
	used := binary.BigEndian.Uint64(b[n-wordSize:])
	if used > p.ram.left {
		return p.desync(b, fmt.Sprintf("block of %d bytes where %d are left", used, p.ram.left))
	}
	if p.ignoresRAM || p.advised && isPageSize(binary.BigEndian.Uint64(b[n:])) {
		n += wordSize
	}
	p.ram.add(name, used)
	if p.ram.left -= used; p.ram.left == 0 {
		p.state = inRAM
	}
	return n
}

// isPageSize tells a page size from what else may stand in its place: the next
// entry, which begins with a length that is not 0, or a word of flags only.
func isPageSize(v uint64) bool {
	return v&(v-1) == 0 && v >= 1<<minPageBits && v <= 1<<maxPageBits
}
