package vmstream

import (
	"encoding/binary"

	"github.com/longhaul-project/longhaul/internal/page"
)

// A builder writes streams as QEMU would. It is for layouts that no QEMU at
// hand produces, and it notes what a scanner should find.
type builder struct {
	b     []byte
	full  int
	zero  int
	seal  int // offset at which the item with Seal begins
	ramID uint32
	ps    int // target page size in bytes
	next  byte
}

func build() *builder { return &builder{ramID: 2, ps: page.Size, seal: -1} }

func (w *builder) raw(b ...byte) *builder    { w.b = append(w.b, b...); return w }
func (w *builder) text(s string) *builder    { w.b = append(w.b, s...); return w }
func (w *builder) u16(v uint16) *builder     { w.b = binary.BigEndian.AppendUint16(w.b, v); return w }
func (w *builder) u32(v uint32) *builder     { w.b = binary.BigEndian.AppendUint32(w.b, v); return w }
func (w *builder) u64(v uint64) *builder     { w.b = binary.BigEndian.AppendUint64(w.b, v); return w }
func (w *builder) cstr(s string) *builder    { return w.raw(byte(len(s))).text(s) }
func (w *builder) footer(id uint32) *builder { return w.raw(elemFooter).u32(id) }

func (w *builder) header(machine string) *builder {
	return w.u32(mainMagic).u32(mainVersion).raw(elemConfig).u32(uint32(len(machine))).text(machine)
}

func (w *builder) command(cmd uint16, payload ...byte) *builder {
	return w.raw(elemCommand).u16(cmd).u16(uint16(len(payload))).raw(payload...)
}

func (w *builder) advise() *builder {
	p := binary.BigEndian.AppendUint64(nil, 4096|2<<20)
	return w.command(cmdAdvise, binary.BigEndian.AppendUint64(p, uint64(w.ps))...)
}

func (w *builder) section(typ byte, id uint32, name string, version uint32) *builder {
	return w.raw(typ).u32(id).cstr(name).u32(0).u32(version)
}

// block is an entry of the MEM_SIZE list. 0 leaves an optional field out.
type block struct {
	name     string
	used     uint64
	pageSize uint64
	gpa      uint64
}

// start is ram's SECTION_START with its list of blocks.
func (w *builder) start(blocks ...block) *builder {
	w.section(elemStart, w.ramID, "ram", ramVersion)
	total := uint64(0)
	for _, b := range blocks {
		total += b.used
	}
	w.u64(total | ramMemSize)
	for _, b := range blocks {
		w.cstr(b.name).u64(b.used)
		if b.pageSize > 0 {
			w.u64(b.pageSize)
		}
		if b.gpa > 0 {
			w.u64(b.gpa)
		}
	}
	return w.eos()
}

func (w *builder) eos() *builder { return w.u64(ramEOS).footer(w.ramID) }

func (w *builder) part() *builder { return w.raw(elemPart).u32(w.ramID) }
func (w *builder) end() *builder  { return w.raw(elemEnd).u32(w.ramID) }

// page appends a page record; an empty name means CONTINUE.
func (w *builder) page(name string, off uint64) *builder {
	w.word(ramPage, name, off)
	for range w.ps {
		w.next = w.next*5 + 1
		w.b = append(w.b, w.next|1)
	}
	if w.ps == page.Size {
		w.full++
	}
	return w
}

func (w *builder) zeroPage(name string, off uint64) *builder {
	if w.ps == page.Size {
		w.zero++
	}
	return w.word(ramZero, name, off).raw(0)
}

func (w *builder) word(flag uint64, name string, off uint64) *builder {
	if name == "" {
		return w.u64(off | flag | ramContinue)
	}
	return w.u64(off | flag).cstr(name)
}

// sealed notes that the end of the stream begins here.
func (w *builder) sealed() *builder { w.seal = len(w.b); return w }

// tail is what a precopy stream ends with.
func (w *builder) tail() *builder {
	w.sealed().section(elemFull, 7, "cpu", 12).text("registers").footer(7)
	return w.raw(elemEOF, elemVMDesc).u32(2).text("{}")
}

// blob is the content of a PACKAGED command that switches to postcopy.
func blob() []byte {
	w := build()
	w.command(4).section(elemFull, 7, "cpu", 12).text("registers").footer(7)
	return w.command(2, 0, 0, 0, 3).command(2, 0, 0, 0, 0x42).command(5).b
}

func (w *builder) packaged(blob []byte) *builder {
	w.sealed().command(cmdPackaged, binary.BigEndian.AppendUint32(nil, uint32(len(blob)))...)
	return w.raw(blob...)
}
