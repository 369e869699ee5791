package vmstream

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/longhaul-project/longhaul/internal/page"
)

// A multi is a multifd packet to write.
type multi struct {
	flags  uint32
	block  string
	normal []uint64 // offsets
	zero   []uint64
	data   string // payload of a compressed packet
	stale  bool   // fields without a use hold old values, as up to QEMU 8.1
	bare   bool   // pages_alloc is left out, as in a SYNC since 9.2
}

// init is what a multifd channel begins with.
func (w *builder) init(id byte) *builder {
	return w.u32(multifdMagic).u32(multifdVersion).text("0123456789abcdef").raw(id).raw(make([]byte, 39)...)
}

// multi writes packets.
func (w *builder) multi(packets ...multi) *builder {
	for _, p := range packets {
		w.multiHead(p)
		if p.flags&packetMethod != 0 {
			w.text(p.data)
			continue
		}
		for range len(p.normal) * w.ps {
			w.next = w.next*5 + 1
			w.b = append(w.b, w.next|1)
		}
		if w.ps == page.Size {
			w.full += len(p.normal)
		}
	}
	return w
}

func (w *builder) multiHead(p multi) {
	const old = "left by an earlier packet"
	slots := packetPages / w.ps
	h := make([]byte, packetOffsets+8*slots)
	if p.stale {
		copy(h[packetBlock+100:], strings.Repeat(old, len(h)/len(old)))
		copy(h[packetBlock:], old)
		binary.BigEndian.PutUint32(h[packetNext:], packetPages)
	}
	copy(h, build().u32(multifdMagic).u32(multifdVersion).u32(p.flags).u32(uint32(slots)).u32(uint32(len(p.normal))).b)
	if p.bare {
		binary.BigEndian.PutUint32(h[packetSlots:], 0)
	}
	if n := len(p.normal) * w.ps; p.flags&packetMethod != 0 {
		binary.BigEndian.PutUint32(h[packetNext:], uint32(len(p.data)))
	} else if n > 0 || !p.stale {
		binary.BigEndian.PutUint32(h[packetNext:], uint32(n))
	}
	binary.BigEndian.PutUint32(h[packetZero:], uint32(len(p.zero)))
	if p.block != "" {
		copy(h[packetBlock:], p.block+"\x00")
	}
	for i, o := range slices.Concat(p.normal, p.zero) {
		binary.BigEndian.PutUint64(h[packetOffsets+8*i:], o)
	}
	w.zero += len(p.zero)
	w.raw(h...)
}

// device writes a packet with device state.
func (w *builder) device(id, state string) *builder {
	w.u32(multifdMagic).u32(multifdVersion).u32(packetDevice).text(id).raw(make([]byte, 256-len(id))...)
	return w.u32(0).u32(uint32(len(state))).text(state)
}

func multifd() page.Scanner { return NewMultifd() }

// row is n offsets in a row, from page first on.
func row(first, n, size uint64) (offsets []uint64) {
	for i := range n {
		offsets = append(offsets, (first+i)*size)
	}
	return offsets
}

// oldMultifd is a channel as QEMU 7.2 writes it.
func oldMultifd(w *builder) *builder {
	size := uint64(w.ps)
	return w.init(1).multi(
		multi{flags: packetSync, stale: true},
		multi{block: "pc.ram", normal: row(0, 5, size), stale: true},
		multi{block: "vga.vram", normal: row(7, 1, size), flags: packetSync, stale: true},
		multi{stale: true},
		multi{block: "pc.ram", normal: row(2, 2, size), stale: true},
		multi{flags: packetSync, stale: true},
	)
}

// newMultifd is a channel as QEMU 10 writes it, with zero pages and device
// state.
func newMultifd(w *builder) *builder {
	size := uint64(w.ps)
	w.init(2).multi(
		multi{flags: packetSync, bare: true},
		multi{block: "pc.ram", normal: []uint64{3 * size, 0, size}, zero: []uint64{2 * size, 4 * size}},
		multi{block: "pc.ram", zero: row(5, 8, size)},
		multi{flags: packetSync, bare: true},
		multi{block: "pc.ram", normal: row(0, 1, size)},
	)
	w.device("0000:00:04.0/vfio", string(build().init(9).b)).device("0000:00:04.0/vfio", "")
	return w.multi(multi{block: "pc.bios", normal: row(1, 2, size)}, multi{flags: packetSync, bare: true})
}

// zipped is a channel whose payload QEMU compresses.
func zipped(method uint32) *builder {
	return build().init(0).multi(
		multi{flags: packetSync, stale: true},
		multi{flags: method, block: "pc.ram", normal: row(0, 128, 4096), data: strings.Repeat("compressed ", 9000)},
		multi{flags: method | packetSync, block: "pc.ram", normal: row(1, 3, 4096), data: "\x11\x22\x33\x44\x00\x00\x00\x01"},
		multi{flags: method, block: "pc.ram", zero: row(5, 9, 4096)},
		multi{flags: packetSync, bare: true},
	)
}
