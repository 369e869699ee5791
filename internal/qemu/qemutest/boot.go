package qemutest

import (
	"encoding/binary"
	"slices"
)

// diskSize is the size of the guest's disk in bytes. SeaBIOS does not boot from
// one that is as small as its boot sector.
const diskSize = 1 << 20

// bootDisk returns a disk with the guest's program in its boot sector: it enters protected mode, writes to
// every page from 1 MiB to 1 MiB + dirty bytes, tells so on the debug port,
// and goes on writing for ever. With dirty 0 it only tells, and halts.
func bootDisk(dirty uint32) []byte {
	const base = 0x7c00 // where a BIOS loads a boot sector
	code := slices.Concat(
		[]byte{
			0xfa,       // cli
			0x31, 0xc0, // xor ax, ax
			0x8e, 0xd8, // mov ds, ax
			0xe4, 0x92, // in al, 0x92
			0x0c, 0x02, // or al, 2        A20 on
			0x24, 0xfe, // and al, 0xfe    no reset
			0xe6, 0x92, // out 0x92, al
			0x0f, 0x01, 0x16, 0xf0, 0x7d, // lgdt [0x7df0]
			0x0f, 0x20, 0xc0, // mov eax, cr0
			0x0c, 0x01, // or al, 1
			0x0f, 0x22, 0xc0, // mov cr0, eax
			0xea, 0x1f, 0x7c, 0x08, 0x00, // jmp 8:0x7c1f
			0x66, 0xb8, 0x10, 0x00, // mov ax, 16
			0x8e, 0xd8, // mov ds, ax
		},
		sweep(dirty),
		[]byte{
			0xb0, '*', // mov al, '*'
			0xe6, debugPort, // out debugPort, al
		},
		sweep(dirty),
		again(dirty),
	)
	sector := make([]byte, diskSize)
	copy(sector, code)
	copy(sector[gdt:], []byte{
		0, 0, 0, 0, 0, 0, 0, 0, // null
		0xff, 0xff, 0, 0, 0, 0x9a, 0xcf, 0, // 8: code, flat, 32 bits
		0xff, 0xff, 0, 0, 0, 0x92, 0xcf, 0, // 16: data, flat
	})
	binary.LittleEndian.PutUint16(sector[gdtr:], 3*8-1)
	binary.LittleEndian.PutUint32(sector[gdtr+2:], base+gdt)
	sector[510], sector[511] = 0x55, 0xaa
	return sector
}

// Places in the boot sector, and the port of QEMU's isa-debugcon.
const (
	gdt       = 0x1d0
	gdtr      = 0x1f0
	debugPort = 0xe9
)

// sweep writes to each page once: it counts in the first byte and in the
// second word.
func sweep(dirty uint32) []byte {
	if dirty == 0 {
		return nil
	}
	return slices.Concat(
		[]byte{0xbf, 0, 0, 0x10, 0}, // mov edi, 1 MiB
		[]byte{
			0xfe, 0x07, // inc byte [edi]
			0xff, 0x47, 0x04, // inc dword [edi+4]
			0x81, 0xc7, 0, 0x10, 0, 0, // add edi, 4096
			0x81, 0xff, // cmp edi, …
		},
		binary.LittleEndian.AppendUint32(nil, 1<<20+dirty),
		[]byte{0x72, 0xed}, // jb to inc byte [edi]
	)
}

// again jumps to the start of the sweep before it; without one, the CPU halts.
func again(dirty uint32) []byte {
	if dirty == 0 {
		return []byte{0xf4, 0xeb, 0xfd} // hlt; jmp to hlt
	}
	const jump = 2
	return []byte{0xeb, byte(256 - len(sweep(dirty)) - jump)}
}
