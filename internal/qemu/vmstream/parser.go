package vmstream

import (
	"github.com/longhaul-project/longhaul/internal/page"
)

// lookahead is the most bytes that any step looks at before it decides: three
// page records with the longest names, and a header before them. Next never
// asks for more.
const lookahead = 16 << 10

// state is what the parser expects at the start of the bytes it is given.
type state uint8

const (
	atHeader    state = iota // magic and version
	atElement                // a type byte
	inConfig                 // configuration's subsections, or an element
	inRAM                    // a ram word
	inBlockList              // an entry of the MEM_SIZE list
	inLive                   // the body of a live section with known grammar
	inBlob                   // inside a PACKAGED command's blob
	seekFooter               // opaque until a section's footer
	seekStart                // opaque until ram's SECTION_START
	atEnd                    // opaque until the connection ends
)

// role is the kind of channel that a parser walks.
type role uint8

const (
	mainChannel role = iota
	recovery         // no header; ram's section number may have to be guessed
	preempt          // no sections, only ram words
)

// parser walks the main, recovery or preempt channel. It is the page.Scanner
// of these three.
//
// What is parsed and what is handed out run in step but for one case: Cut
// hands out bytes that are not parsed yet. They wait in carry.
type parser struct {
	state state
	skip  uint64 // bytes of an opaque payload that come before anything of state

	carry []byte // handed out, not yet parsed; always shorter than lookahead

	mark  page.Mark // of the item that is being gathered
	base  page.Mark // of every item
	after page.Mark // of the next item, besides base
	stop  bool      // the step has asked to end the item here

	role        role
	section     section // the open section
	footer      bool    // section's footer is due
	live        live    // live sections by number
	configuring bool    // only right after the header: a configuration may come
	advised     bool    // POSTCOPY_ADVISE was seen
	ignoresRAM  bool    // x-ignore-shared was announced: block entries carry a GPA

	ram  ram
	part liveState
	blob uint64 // bytes of the PACKAGED blob still to come
	hold bool   // the blob is small enough to be held back
	seek seeker

	facts page.Facts
}

// New returns a scanner for the main channel of a migration.
func New() page.Scanner {
	return &parser{facts: page.Facts{Format: "qemu"}}
}

// NewPreempt returns a scanner for a postcopy preempt channel: ram records
// without sections (migration/ram.c, since QEMU 7.1). Each of them is a page
// that a vCPU waits for.
func NewPreempt() page.Scanner {
	p := &parser{role: preempt, state: inRAM, base: page.Flush, mark: page.Flush}
	p.ram.learns = true
	p.facts = page.Facts{Format: "qemu-preempt", PageSize: defaultPageSize, Postcopy: true}
	return p
}

// NewRecover returns a scanner for the main channel that a source opens to go
// on after a postcopy pause. It begins without a header and keeps the section
// numbers and blocks of the broken connection. old is that connection's
// scanner, which then must not be used any more; nil if it is not at hand.
func NewRecover(old page.Scanner) page.Scanner {
	p := &parser{role: recovery, state: atElement, base: page.Flush, mark: page.Flush}
	p.ram.learns = true
	p.facts = page.Facts{Format: "qemu-recover", PageSize: defaultPageSize, ReturnPath: true, Postcopy: true}
	if o, ok := old.(*parser); ok && o.live.hasRAM {
		p.live = o.live
		p.ram.blocks, p.ram.names = o.ram.blocks, o.ram.names
		p.facts.Machine, p.facts.PageSize = o.facts.Machine, o.facts.PageSize
	}
	return p
}

// Facts implements page.Scanner.
func (p *parser) Facts() page.Facts {
	f := p.facts
	f.Rounds = max(p.ram.wraps, p.ram.flushes)
	return f
}

// Next implements page.Scanner.
func (p *parser) Next(b []byte) (page.Item, int) {
	if len(p.carry) > 0 {
		n, ok := p.catchUp(b)
		if !ok {
			return page.Item{}, 0
		}
		if n > 0 {
			return p.emit(b[:n]), n
		}
	}
	if p.state == inRAM && p.skip == 0 {
		if it, n := p.page(b); n > 0 {
			return it, n
		}
	}
	if n := p.gather(b); n > 0 {
		return p.emit(b[:n]), n
	}
	return page.Item{}, 0
}

// Cut implements page.Scanner. The item carries Flush, for the source has
// fallen silent and may be waiting for an answer to these very bytes.
func (p *parser) Cut(b []byte) page.Item {
	rest := b
	for len(p.carry) > 0 {
		n, ok := p.catchUp(rest)
		if !ok {
			p.carry = append(p.carry, rest...)
			rest = nil
			break
		}
		rest = rest[n:]
	}
	for len(rest) > 0 {
		n := p.step(rest)
		if n == 0 {
			p.carry = append(p.carry, rest...)
			break
		}
		rest = rest[n:]
	}
	p.mark |= page.Flush
	return p.emit(b)
}

// gather walks over opaque tokens at the start of b until one of them asks to
// end the item, a page follows, or there is enough of them. It returns their
// length.
func (p *parser) gather(b []byte) int {
	p.stop = false
	off := 0
	for off < len(b) && off < maxOpaque && !p.stop {
		if p.startsItem(b[off:], off == 0) {
			break
		}
		n := p.step(b[off:])
		if n == 0 {
			break
		}
		off += n
	}
	return off
}

// startsItem tells whether what follows must be, or begin, an item of its own.
func (p *parser) startsItem(b []byte, first bool) bool {
	if p.skip > 0 {
		return false
	}
	switch p.state {
	case inRAM:
		r, v := p.record(b)
		return v != no && r.isPage() // even if first: then it is not whole yet
	case atElement:
		return !first && isPackaged(b)
	}
	return false
}

// catchUp parses bytes that have been handed out already, with the help of b,
// which follows them. n is the number of bytes of b that belong to the token
// that was cut; ok is false when b is too short to tell.
func (p *parser) catchUp(b []byte) (n int, ok bool) {
	old := len(p.carry)
	if cap(p.carry) < 2*lookahead {
		p.carry = append(make([]byte, 0, 2*lookahead), p.carry...)
	}
	w := append(p.carry, b[:min(len(b), lookahead)]...)
	off := 0
	for off < old {
		n := p.step(w[off:])
		if n == 0 {
			p.carry = append(p.carry[:0], w[off:old]...)
			return 0, false
		}
		off += n
	}
	p.carry = p.carry[:0]
	return off - old, true
}

// step parses one token at the start of b and returns how many bytes of it
// are done with; 0 asks for more. It treats pages as opaque.
func (p *parser) step(b []byte) int {
	if p.skip > 0 {
		n := min(p.skip, uint64(min(len(b), maxOpaque)))
		p.skip -= n
		return int(n)
	}
	switch p.state {
	case atHeader:
		return p.header(b)
	case atElement:
		return p.element(b)
	case inConfig:
		return p.configuration(b)
	case inRAM:
		return p.word(b)
	case inBlockList:
		return p.blockEntry(b)
	case inLive:
		return p.liveBody(b)
	case inBlob:
		return p.blobBytes(b)
	case seekFooter, seekStart:
		return p.seekOn(b)
	}
	return min(len(b), maxOpaque)
}

// emit makes the opaque item b with the marks that were gathered for it.
func (p *parser) emit(b []byte) page.Item {
	it := page.Item{Kind: page.Opaque, Mark: p.mark, Data: b}
	p.mark, p.after = p.base|p.after, 0
	return it
}

// lose gives up on structure: all that follows is opaque.
func (p *parser) lose(why string) {
	p.state, p.skip = atEnd, 0
	p.facts.Lost = why
}
