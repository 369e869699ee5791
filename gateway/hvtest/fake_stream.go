package hvtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"

	"github.com/longhaul-project/longhaul/internal/page"
)

// The words of QEMU's stream that the fake writes and reads
// (hypervisor-wire.md, sections 1 and 2).
const (
	streamMagic   = 0x5145564d
	streamVersion = 3

	elemEOF     = 0x00
	elemStart   = 0x01
	elemPart    = 0x02
	elemEnd     = 0x03
	elemFull    = 0x04
	elemVMDesc  = 0x06
	elemConfig  = 0x07
	elemCommand = 0x08
	elemFooter  = 0x7e

	cmdOpenReturnPath = 1
	cmdPing           = 2

	ramZero     = 0x02
	ramMemSize  = 0x04
	ramPage     = 0x08
	ramEOS      = 0x10
	ramContinue = 0x20
	ramFlags    = page.Size - 1
	ramVersion  = 4

	rpShut = 1
	rpPong = 2

	multifdMagic   = 0x11223344
	multifdVersion = 1
	multifdInit    = 64                      // bytes that open a channel
	multifdPages   = (512 << 10) / page.Size // most pages of a packet
	multifdHeader  = 320 + 8*multifdPages    // bytes
	multifdSync    = 0x1
)

// Sections of the fake's stream, by id.
const (
	ramSection = 2
	vgaSection = 5
	cpuSection = 7
)

const fakeMachine = "pc-q35-7.2"

// vgaSize is the size in bytes of a device state that means nothing.
const vgaSize = 4096

const fakeVMDesc = `{"configuration": {"vmsd_name": "configuration", "version": 1}, "page_size": 4096, "devices": []}`

// cpuState is the device state that means something: from which state of the
// VM the destination goes on, and what its memory must be.
type cpuState struct {
	epoch  uint64
	digest [32]byte
}

// A streamWriter writes the main channel. Errors stay until flush.
type streamWriter struct {
	w    *bufio.Writer
	last string // block named last, which "continue" refers to
}

func (s *streamWriter) u8(v byte)    { s.w.WriteByte(v) }
func (s *streamWriter) u16(v uint16) { s.w.Write(binary.BigEndian.AppendUint16(nil, v)) }
func (s *streamWriter) u32(v uint32) { s.w.Write(binary.BigEndian.AppendUint32(nil, v)) }
func (s *streamWriter) u64(v uint64) { s.w.Write(binary.BigEndian.AppendUint64(nil, v)) }
func (s *streamWriter) cstr(v string) {
	s.u8(byte(len(v)))
	s.w.WriteString(v)
}

// header writes everything before the first section.
func (s *streamWriter) header() {
	s.u32(streamMagic)
	s.u32(streamVersion)
	s.u8(elemConfig)
	s.u32(uint32(len(fakeMachine)))
	s.w.WriteString(fakeMachine)
	s.command(cmdOpenReturnPath, nil)
	s.command(cmdPing, []byte{0, 0, 0, 1})
}

func (s *streamWriter) command(cmd uint16, payload []byte) {
	s.u8(elemCommand)
	s.u16(cmd)
	s.u16(uint16(len(payload)))
	s.w.Write(payload)
}

// begin opens a section; body and footer follow.
func (s *streamWriter) begin(elem byte, id uint32, name string, version uint32) {
	s.u8(elem)
	s.u32(id)
	if elem == elemStart || elem == elemFull {
		s.cstr(name)
		s.u32(0) // instance
		s.u32(version)
	}
}

func (s *streamWriter) footer(id uint32) {
	s.u8(elemFooter)
	s.u32(id)
}

// memSize is the list of the blocks.
func (s *streamWriter) memSize(blocks []block) {
	var total int64
	for _, b := range blocks {
		total += b.size
	}
	s.u64(uint64(total) | ramMemSize)
	for _, b := range blocks {
		s.cstr(b.name)
		s.u64(uint64(b.size))
	}
}

var zeroPage [page.Size]byte

func isZero(p []byte) bool { return bytes.Equal(p, zeroPage[:]) }

// page writes one page of a block.
func (s *streamWriter) page(b block, offset int64, data []byte) {
	flags := uint64(ramPage)
	if isZero(data) {
		flags = ramZero
	}
	if s.last == b.name {
		s.u64(uint64(offset) | flags | ramContinue)
	} else {
		s.u64(uint64(offset) | flags)
		s.cstr(b.name)
		s.last = b.name
	}
	if flags == ramZero {
		s.u8(0)
		return
	}
	s.w.Write(data)
}

// devices writes what follows the last page, to the end of the stream.
func (s *streamWriter) devices(cpu cpuState) {
	s.begin(elemFull, vgaSection, "fake-vga", 1)
	s.w.Write(bytes.Repeat([]byte{0x20, 0x07}, vgaSize/2))
	s.footer(vgaSection)
	s.begin(elemFull, cpuSection, "fake-cpu", 1)
	s.u64(cpu.epoch)
	s.w.Write(cpu.digest[:])
	s.footer(cpuSection)
	s.u8(elemEOF)
	s.u8(elemVMDesc)
	s.u32(uint32(len(fakeVMDesc)))
	s.w.WriteString(fakeVMDesc)
}

// channelInit is what a multifd connection says first.
func channelInit(uuid [16]byte, id byte) []byte {
	b := make([]byte, 0, multifdInit)
	b = binary.BigEndian.AppendUint32(b, multifdMagic)
	b = binary.BigEndian.AppendUint32(b, multifdVersion)
	b = append(b, uuid[:]...)
	b = append(b, id)
	return append(b, make([]byte, multifdInit-len(b))...)
}

// channelPacket is one multifd packet with pages of one block.
func channelPacket(num uint64, flags uint32, b block, offsets []int64, pages [][]byte) []byte {
	h := make([]byte, multifdHeader, multifdHeader+len(pages)*page.Size)
	binary.BigEndian.PutUint32(h, multifdMagic)
	binary.BigEndian.PutUint32(h[4:], multifdVersion)
	binary.BigEndian.PutUint32(h[8:], flags)
	binary.BigEndian.PutUint32(h[12:], multifdPages)
	binary.BigEndian.PutUint32(h[16:], uint32(len(pages)))
	binary.BigEndian.PutUint32(h[20:], uint32(len(pages)*page.Size))
	binary.BigEndian.PutUint64(h[24:], num)
	copy(h[64:320], b.name)
	for i, off := range offsets {
		binary.BigEndian.PutUint64(h[320+8*i:], uint64(off))
	}
	for _, p := range pages {
		h = append(h, p...)
	}
	return h
}

// A streamReader reads big-endian words and keeps the first error.
type streamReader struct {
	r   *bufio.Reader
	err error
}

func (s *streamReader) full(b []byte) {
	if s.err == nil {
		_, s.err = io.ReadFull(s.r, b)
	}
}

func (s *streamReader) u8() byte {
	var b [1]byte
	s.full(b[:])
	return b[0]
}

func (s *streamReader) u16() uint16 {
	var b [2]byte
	s.full(b[:])
	return binary.BigEndian.Uint16(b[:])
}

func (s *streamReader) u32() uint32 {
	var b [4]byte
	s.full(b[:])
	return binary.BigEndian.Uint32(b[:])
}

func (s *streamReader) u64() uint64 {
	var b [8]byte
	s.full(b[:])
	return binary.BigEndian.Uint64(b[:])
}

func (s *streamReader) cstr() string {
	b := make([]byte, s.u8())
	s.full(b)
	return string(b)
}

// skip reads n bytes of at most limit.
func (s *streamReader) skip(n, limit int) {
	if s.err == nil && n > limit {
		s.err = errTooLong
	}
	if s.err == nil {
		_, s.err = s.r.Discard(n)
	}
}
