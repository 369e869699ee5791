package vmstream

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream/payload"
)

// A Packer writes a multifd channel that went through Multifd.Unpack to a
// destination that reads QEMU's compression: it puts pages into blocks that are
// not compressed, and corrects the length that their packet tells. What it
// writes depends on nothing but what it is given; all else passes as it is.
//
// It holds back a header that is not whole, nothing else.
type Packer struct {
	w   io.Writer
	out []byte // of one Write

	head   []byte // a header that is not whole
	opened bool   // the init packet is behind us
	slots  int    // offsets in a header, 0 until one has told
	pass   int    // bytes of a payload that pass as they are
	pages  int    // bytes of pages to come
	stored *payload.Stored
	raw    bool // everything passes as it is
}

// NewPacker returns a Packer that writes to w. It does not close w.
func NewPacker(w io.Writer) io.WriteCloser { return &Packer{w: w} }

// Write implements io.Writer.
func (p *Packer) Write(b []byte) (int, error) {
	n := len(b)
	p.out = p.out[:0]
	for len(b) > 0 {
		used, err := p.next(b)
		if err != nil {
			return 0, err
		}
		b = b[used:]
	}
	if len(p.out) > 0 {
		if _, err := p.w.Write(p.out); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// Close writes the header that has remained cut short, as its source has left
// it.
func (p *Packer) Close() error {
	if len(p.head) == 0 {
		return nil // even to write nothing fails when the destination has closed before
	}
	_, err := p.w.Write(p.head)
	p.head = nil
	return err
}

// next adds what stands at the start of b to out.
func (p *Packer) next(b []byte) (used int, err error) {
	switch {
	case p.raw:
		used = len(b)
	case p.pass > 0:
		used = min(p.pass, len(b))
		p.pass -= used
	case p.pages > 0:
		if p.pages%page.Size == 0 {
			p.out = p.stored.AppendBlock(p.out)
		}
		used = min((p.pages-1)%page.Size+1, len(b))
		p.pages -= used
	default:
		return p.header(b)
	}
	p.out = append(p.out, b[:used]...)
	return used, nil
}

// header gathers a header, and adds it to out once it is whole.
func (p *Packer) header(b []byte) (used int, err error) {
	for len(b) > 0 {
		need, err := p.need()
		if err != nil {
			return 0, err
		}
		if need == len(p.head) {
			break
		}
		n := min(need-len(p.head), len(b))
		p.head = append(p.head, b[:n]...)
		b = b[n:]
		used += n
	}
	need, err := p.need()
	if err != nil || need > len(p.head) {
		return used, err
	}
	err = p.begin(packet(p.head))
	p.head = p.head[:0]
	return used, err
}

// need is how many bytes of a header are needed, of which head is the start.
func (p *Packer) need() (int, error) {
	const word = 4
	h := packet(p.head)
	switch {
	case len(h) < word:
		return word, nil
	case h.u32(0) == rawMagic:
		return rawSize, nil
	case !p.opened:
		return multifdInit, nil
	case len(h) < packetPeek:
		return packetPeek, nil
	}
	size, why := h.headSize(p.slots)
	if why != "" {
		return 0, errUnpacked(why)
	}
	return size, nil
}

// errUnpacked says that what a Packer was given is not what an unpacker makes.
func errUnpacked(why string) error { return fmt.Errorf("unpacked multifd stream: %s", why) }

// begin adds a header to out and goes on to what follows it.
func (p *Packer) begin(h packet) error {
	switch {
	case h.u32(0) == rawMagic:
		p.raw = true
		return nil
	case !p.opened:
		p.opened = true
	case h.flags() == packetDevice:
		p.pass = int(h.u32(deviceNext))
	default:
		if err := p.packet(h); err != nil {
			return err
		}
	}
	p.out = append(p.out, h...)
	return nil
}

// packet reads the header of a packet, and corrects it if its pages are to be
// packed.
func (p *Packer) packet(h packet) error {
	normal, _, why := h.counts()
	next := 0
	if why == "" {
		next, why = h.payload(normal)
	}
	if why != "" {
		return errUnpacked(why)
	}
	if h.u32(packetSlots) != 0 {
		p.slots = h.slots()
	}
	if normal == 0 || !h.unpacks() {
		p.pass = next
		return nil
	}
	if next != normal*page.Size {
		return errUnpacked(fmt.Sprintf("packet of %d bytes for %d pages", next, normal))
	}
	if p.stored == nil {
		p.stored = payload.StoredZlib(page.Size)
		if h.flags()&packetMethod == methodZstd {
			p.stored = payload.StoredZstd(page.Size)
		}
	}
	p.pages = next
	binary.BigEndian.PutUint32(h[packetNext:], uint32(next+p.stored.Overhead(normal)))
	return nil
}
