package vmstream

import (
	"encoding/binary"
	"fmt"

	"github.com/longhaul-project/longhaul/internal/page"
)

// Types of element (migration/savevm.h and qemu-file-types.h, unchanged from
// QEMU 6.2 to 11.1).
const (
	elemEOF        = 0x00
	elemStart      = 0x01
	elemPart       = 0x02
	elemEnd        = 0x03
	elemFull       = 0x04
	elemSubsection = 0x05
	elemVMDesc     = 0x06
	elemConfig     = 0x07
	elemCommand    = 0x08
	elemFooter     = 0x7e
)

// Commands (migration/savevm.c enum qemu_vm_cmd).
const (
	cmdOpenReturnPath = 1
	cmdAdvise         = 3
	cmdPackaged       = 7
	cmdRecvBitmap     = 10
	cmdLast           = 11 // SWITCHOVER_START, since 10.0
)

// Sizes in bytes of the fixed parts of elements.
const (
	sectionRef      = 5        // type and section number
	commandHeader   = 5        // type, u16 command, u16 length
	packagedSize    = 4        // PACKAGED's own payload: the length of the blob
	adviseSize      = 16       // POSTCOPY_ADVISE's payload, if it has any
	maxCommand      = 1024     // RAM_DISCARD, the longest payload, has up to 450
	maxMachine      = 1024     // machine type names have some 20
	maxHold         = 64 << 20 // bytes that a PACKAGED blob may make the far gateway hold back
	defaultPageSize = 4096     // of every target but sparc64, alpha and or1k
)

// section is an open section.
type section struct {
	id   uint32
	kind liveKind
	end  bool // it is a SECTION_END
}

// header parses magic and version.
func (p *parser) header(b []byte) int {
	if len(b) < mainInit {
		return 0
	}
	if m := binary.BigEndian.Uint32(b); m != mainMagic {
		p.lose(fmt.Sprintf("magic %08x", m))
	} else if v := binary.BigEndian.Uint32(b[4:]); v != mainVersion {
		p.lose(fmt.Sprintf("stream version %d", v))
	} else {
		p.state, p.configuring = atElement, true
	}
	return mainInit
}

// element parses the type byte of an element and what of it has a length.
func (p *parser) element(b []byte) int {
	if p.footer && b[0] == elemFooter {
		return p.closeSection(b)
	}
	if p.footer { // machine types of before 2015 have none
		p.footer = false
		if p.closed(); p.state != atElement {
			p.mark |= p.after
			p.after = 0
			return p.step(b)
		}
	}
	switch b[0] {
	case elemStart, elemFull:
		return p.openSection(b)
	case elemPart, elemEnd:
		return p.resumeSection(b)
	case elemCommand:
		return p.command(b)
	case elemConfig:
		if p.configuring {
			return p.machine(b)
		}
	case elemEOF:
		p.finish()
		return 1
	}
	return p.desync(b, fmt.Sprintf("element type %#02x", b[0]))
}

// closeSection parses the footer that is due.
func (p *parser) closeSection(b []byte) int {
	if len(b) < sectionRef {
		return 0
	}
	if id := binary.BigEndian.Uint32(b[1:]); id != p.section.id {
		return p.desync(b, fmt.Sprintf("footer of section %d in section %d", id, p.section.id))
	}
	p.footer = false
	p.closed()
	return sectionRef
}

// closed acts on the end of a section. In precopy all memory has been sent
// when ram has had its SECTION_END: what follows is device state, which must
// not be loaded before the memory has been proved.
func (p *parser) closed() {
	if p.section.end && p.section.kind == isPages && !p.facts.Postcopy {
		p.state = atEnd
		p.base |= page.Flush // the VM stands still from here on
		p.after |= page.Seal | page.Flush
		p.stop = true
	}
}

// finish acts on the EOF element.
func (p *parser) finish() {
	p.state = atEnd
	p.base |= page.Flush
	p.mark |= page.Flush
	if !p.facts.Postcopy {
		p.mark |= page.Seal // a stream without ram; its end is here
	}
}

// openSection parses the header of a SECTION_START or SECTION_FULL.
func (p *parser) openSection(b []byte) int {
	h, v := sectionHeader(b)
	switch {
	case v == more:
		return 0
	case v == no:
		return p.desync(b, "section without a name")
	}
	p.configuring = false
	p.section = section{id: h.id}
	if b[0] == elemFull {
		if p.ram.skipped { // ram's end was among what was skipped
			p.finish()
			return h.size
		}
		p.seekFooterOf(h.id, "section "+string(h.name))
		return h.size
	}
	p.section.kind = kindOf(h)
	p.live.add(h.id, p.section.kind)
	p.enterBody(string(h.name))
	return h.size
}

// enterBody goes to the state that parses the open section's body.
func (p *parser) enterBody(name string) {
	switch p.section.kind {
	case isUnknown:
		p.seekFooterOf(p.section.id, "live section "+name)
	case isPages:
		p.state = inRAM
		if p.facts.PageSize == 0 {
			p.facts.PageSize = pageSizeOf(p.facts.Machine)
		}
	default:
		p.state, p.part = inLive, liveState{}
	}
}

// resumeSection parses the header of a SECTION_PART or SECTION_END.
func (p *parser) resumeSection(b []byte) int {
	if len(b) < sectionRef {
		return 0
	}
	id := binary.BigEndian.Uint32(b[1:])
	kind, known := p.live.kind(id)
	if !known && p.role == recovery && !p.live.hasRAM {
		switch p.records(b[sectionRef:], 1) {
		case more:
			return 0
		case yes:
			kind = isPages
			p.live.add(id, kind)
		}
	}
	p.section = section{id: id, kind: kind, end: b[0] == elemEnd}
	p.enterBody("of unknown name")
	return sectionRef
}

// header of a SECTION_START or SECTION_FULL.
type header struct {
	id      uint32
	name    []byte // borrows
	version uint32
	size    int // bytes
}

// sectionHeader parses type, number, name, instance and version.
func sectionHeader(b []byte) (h header, v verdict) {
	name, v := cstr(b[min(sectionRef, len(b)):])
	if v != yes {
		return h, v
	}
	if len(name) == 0 || !printable(name) {
		return h, no
	}
	h.size = sectionRef + 1 + len(name) + 8
	if len(b) < h.size {
		return h, more
	}
	h.id = binary.BigEndian.Uint32(b[1:])
	h.name = name
	h.version = binary.BigEndian.Uint32(b[h.size-4:])
	return h, yes
}

// cstr parses one length byte and as many bytes of name.
func cstr(b []byte) (name []byte, v verdict) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil, more
	}
	return b[1 : 1+int(b[0])], yes
}

// command parses a COMMAND. All of them have a length; PACKAGED's does not
// count the blob that follows. A command is a step of a dialogue, so none may
// wait here.
func (p *parser) command(b []byte) int {
	if len(b) < commandHeader {
		return 0
	}
	cmd, size := binary.BigEndian.Uint16(b[1:]), int(binary.BigEndian.Uint16(b[3:]))
	read := size
	if size > maxCommand {
		read = 0 // it is none of those that are read here
	}
	if len(b) < commandHeader+read {
		return 0
	}
	payload := b[commandHeader : commandHeader+read]
	p.mark |= page.Flush
	p.stop = true
	p.configuring = false
	p.skip = uint64(size - read)
	switch cmd {
	case cmdOpenReturnPath:
		p.facts.ReturnPath = true
	case cmdAdvise:
		p.advise(payload)
	case cmdRecvBitmap:
		if name, v := cstr(payload); v == yes {
			p.ram.find(name, p.ram.learns)
		}
	case cmdPackaged:
		if len(payload) != packagedSize {
			return p.desync(b, fmt.Sprintf("PACKAGED of length %d", size))
		}
		p.openBlob(uint64(binary.BigEndian.Uint32(payload)))
	}
	return commandHeader + read
}

// isPackaged tells whether b begins a PACKAGED command.
func isPackaged(b []byte) bool {
	return len(b) > 2 && b[0] == elemCommand && b[1] == 0 && b[2] == cmdPackaged
}

// advise reads POSTCOPY_ADVISE: the OR of the blocks' page sizes, and the
// target's page size. It has no payload when postcopy is on for bitmaps only.
func (p *parser) advise(payload []byte) {
	p.advised = len(payload) == adviseSize
	if p.advised && p.facts.PageSize == 0 {
		p.setPageSize(binary.BigEndian.Uint64(payload[8:]))
	}
}

// openBlob begins the blob that switches to postcopy. The destination must get
// it whole: one that has seen half of it can neither run nor be recovered
// (hypervisor-wire.md, section 3.3).
func (p *parser) openBlob(size uint64) {
	p.facts.Postcopy = true
	p.mark |= page.Seal
	p.base |= page.Flush
	p.state, p.blob, p.hold, p.stop = inBlob, size, size <= maxHold, false
	p.holdBlob()
}

// blobBytes passes bytes of the blob.
func (p *parser) blobBytes(b []byte) int {
	n := min(p.blob, uint64(min(len(b), maxOpaque)))
	p.blob -= n
	p.holdBlob()
	return int(n)
}

// holdBlob marks the item that is being gathered: held, unless the blob ends
// with it.
func (p *parser) holdBlob() {
	p.mark &^= page.Hold
	if p.blob > 0 {
		if p.hold {
			p.mark |= page.Hold
		}
		return
	}
	p.state, p.stop = atElement, true
	p.mark |= page.Flush
}
