package vmstream

import (
	"bytes"
	"encoding/binary"
)

// maxSeek is how many bytes are searched for a place to go on, before the rest
// of the stream is taken as opaque. The largest body that we cannot parse and
// that comes before ram's end is the config of a vfio device.
const maxSeek = 64 << 20

// ramStart is what follows the number in ram's SECTION_START: name, instance
// 0, version 4.
const ramStart = "\x03ram\x00\x00\x00\x00\x00\x00\x00\x04"

// seeker is the state of a search.
type seeker struct {
	id   uint32 // of the section whose footer is sought
	done uint64 // bytes searched
	why  string // what made it necessary
}

// seekFooterOf makes the parser pass bytes until section id ends.
func (p *parser) seekFooterOf(id uint32, why string) {
	p.state, p.footer = seekFooter, false
	p.seek = seeker{id: id, why: why}
}

// desync is called where the stream is not what the parser takes it for. It
// chooses what to search for and goes on with b.
func (p *parser) desync(b []byte, why string) int {
	p.skip = 0
	switch {
	case p.footer && p.section.kind != isPages:
		p.seekFooterOf(p.section.id, why)
	case p.live.hasRAM && p.role == mainChannel:
		p.ram.skipped, p.ram.named, p.ram.block = true, false, 0
		p.seekFooterOf(p.live.ram, why)
	case p.role == mainChannel:
		p.state, p.footer = seekStart, false
		p.seek = seeker{why: why}
	default:
		p.lose(why)
	}
	return p.step(b)
}

// seekOn searches b and returns how many bytes of it are done with.
func (p *parser) seekOn(b []byte) int {
	var pattern [len(ramStart)]byte
	find, before := append(pattern[:0], ramStart...), sectionRef
	if p.state == seekFooter {
		find = binary.BigEndian.AppendUint32(append(pattern[:0], elemFooter), p.seek.id)
		before = 0
	}
	n, v := p.searched(b[:min(len(b), maxOpaque)], find, before)
	p.seek.done += uint64(n)
	switch {
	case v == yes:
		p.state = atElement
	case p.seek.done > maxSeek:
		p.lose(p.seek.why)
	}
	return n
}

// searched returns how many bytes of b are done with. v is yes if what follows
// them is the place to go on: after the pattern, or at as many bytes before it
// as before says.
func (p *parser) searched(b, pattern []byte, before int) (n int, v verdict) {
	for from := 0; ; {
		i := bytes.Index(b[from:], pattern)
		if i < 0 {
			keep := overlap(b[from:], pattern)
			return max(0, len(b)-keep-before), more
		}
		i += from
		if at := i - before; at >= 0 {
			next := at
			if before == 0 {
				next = i + len(pattern)
			}
			switch p.plausible(b[next:]) {
			case yes:
				return next, yes
			case more:
				return at, more
			}
		}
		from = i + 1
	}
}

// overlap is the length of the longest end of b that is a beginning of
// pattern.
func overlap(b, pattern []byte) int {
	for n := min(len(b), len(pattern)-1); n > 0; n-- {
		if bytes.HasSuffix(b, pattern[:n]) {
			return n
		}
	}
	return 0
}

// plausible tells whether b can be what follows a section.
func (p *parser) plausible(b []byte) verdict {
	if len(b) == 0 {
		return more
	}
	switch b[0] {
	case elemStart, elemFull:
		h, v := sectionHeader(b)
		if v == yes && h.version > 1<<16 { // QEMU's versions are small numbers
			v = no
		}
		return v
	case elemPart, elemEnd:
		return p.plausiblePart(b)
	case elemCommand:
		return plausibleCommand(b)
	case elemEOF:
		return plausibleEOF(b)
	}
	return no
}

// plausiblePart asks for a section that is known and, if it is ram's, for
// records that can be read.
func (p *parser) plausiblePart(b []byte) verdict {
	if len(b) < sectionRef {
		return more
	}
	kind, known := p.live.kind(binary.BigEndian.Uint32(b[1:]))
	switch {
	case !known:
		return no
	case kind == isPages:
		return p.records(b[sectionRef:], 3)
	}
	return yes
}

func plausibleCommand(b []byte) verdict {
	if len(b) < commandHeader {
		return more
	}
	cmd, size := binary.BigEndian.Uint16(b[1:]), binary.BigEndian.Uint16(b[3:])
	if cmd == 0 || cmd > cmdLast || size > 1<<10 {
		return no
	}
	return yes
}

// plausibleEOF asks for the VMDESCRIPTION that follows EOF in precopy: a type
// byte, a length and a JSON object.
func plausibleEOF(b []byte) verdict {
	const size = 7
	switch {
	case len(b) < size:
		return more
	case b[1] == elemVMDesc && b[6] == '{':
		return yes
	}
	return no
}

// records tells whether b begins with n ram records, or fewer and the end of
// the section.
func (p *parser) records(b []byte, n int) verdict {
	const most = lookahead - 2*sectionRef // a footer and the section's header come before
	b = b[:min(len(b), most)]
	whole := len(b) == most
	defer func(block uint32, named bool) { p.ram.block, p.ram.named = block, named }(p.ram.block, p.ram.named)
	for range n {
		r, v := p.record(b)
		if v == yes && (r.flags == ramEOS || r.flags == ramFlush || r.flags == ramMemSize) {
			return yes
		}
		if v == yes && n == 1 {
			return yes // its page need not have arrived
		}
		size := 0
		if v == yes {
			size, v = p.recordSize(b, r)
		}
		if v == yes && len(b) < size {
			v = more
		}
		if v == more && whole {
			return yes // what could be looked at makes sense
		}
		if v != yes {
			return v
		}
		b = b[size:]
		p.ram.block, p.ram.named = r.addr.Space, true
	}
	return yes
}

// recordSize is how many bytes a page's record has.
func (p *parser) recordSize(b []byte, r record) (size int, v verdict) {
	switch r.flags {
	case ramPage:
		return r.head + p.facts.PageSize, yes
	case ramZero:
		return r.head + 1, yes
	}
	head, size, v := p.encodedSize(b, r)
	return head + size, v
}
