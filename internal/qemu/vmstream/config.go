package vmstream

import (
	"encoding/binary"
	"fmt"
)

// machine parses the CONFIGURATION element: the machine type. Subsections may
// follow.
func (p *parser) machine(b []byte) int {
	const typeAndLength = 5
	if len(b) < typeAndLength {
		return 0
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n > maxMachine {
		return p.desync(b, fmt.Sprintf("machine type of %d bytes", n))
	}
	size := typeAndLength + int(n)
	if len(b) < size {
		return 0
	}
	if name := b[typeAndLength:size]; printable(name) {
		p.facts.Machine = string(name)
	}
	p.configuring, p.state = false, inConfig
	return size
}

// configuration parses one subsection of CONFIGURATION (migration/savevm.c
// vmstate_configuration), or goes on to the first element.
func (p *parser) configuration(b []byte) int {
	if b[0] != elemSubsection {
		p.state = atElement
		return p.element(b)
	}
	name, v := cstr(b[1:])
	if v == more {
		return 0
	}
	head := 2 + len(name) + 4 // type, name, u32 version
	if len(b) < head+4 {
		return 0
	}
	body := b[head:]
	switch string(name) {
	case "configuration/target-page-bits":
		if bits := binary.BigEndian.Uint32(body); bits < 64 {
			p.setPageSize(1 << bits)
		}
		return head + 4
	case "configuration/uuid":
		if len(body) < 16 {
			return 0
		}
		return head + 16
	case "configuration/capabilities":
		n, v := p.capabilities(body)
		switch v {
		case yes:
			return head + n
		case more:
			return 0
		}
	}
	return p.desync(b, "configuration subsection of unknown form")
}

// capabilities parses u32 n and n names, and returns their length in bytes.
// QEMU lists those that change the layout of the stream.
func (p *parser) capabilities(b []byte) (size int, v verdict) {
	const maxNames = 32 // QEMU has some 25 capabilities and lists two of them
	n := binary.BigEndian.Uint32(b)
	if n > maxNames {
		return 0, no
	}
	size = 4
	ignores, mapped := false, false
	for range n {
		name, v := cstr(b[size:])
		if v != yes {
			return 0, v
		}
		size += 1 + len(name)
		switch string(name) {
		case "x-ignore-shared":
			ignores = true
		case "mapped-ram":
			mapped = true
		}
	}
	p.ignoresRAM = p.ignoresRAM || ignores
	p.ram.mapped = p.ram.mapped || mapped
	return size, yes
}

// setPageSize takes the target's page size, if it can be one: QEMU has targets
// of 1 KiB (old ARM) to 64 KiB.
func (p *parser) setPageSize(size uint64) {
	if size >= 1<<10 && size <= 64<<10 && size&(size-1) == 0 {
		p.facts.PageSize = int(size)
	}
}

// pageSizeOf is the page size of a machine that does not tell it. The targets
// with another than 4 KiB are known by machines that no other target has
// (target/*/cpu-param.h of QEMU 7.2).
func pageSizeOf(machine string) int {
	switch machine {
	case "sun4u", "sun4v", "niagara", "clipper", "or1k-sim":
		return 8192
	}
	return defaultPageSize
}
