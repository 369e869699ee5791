package vmstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream/payload"
)

// An unpacker reads a multifd channel and takes QEMU's compression out of it,
// packet by packet, so that a packet's pages follow its header as they are. The
// Packer of the far end puts a stream back in which QEMU reads the same pages.
// It never holds more than one packet; of one without compressed pages, the
// header only.
//
// What is no packet, or no payload that can be expanded, ends that: a word
// that begins no packet says so, and from there on bytes pass as they are.
// After a payload of zlib QEMU reads on in its source's own bytes. After one of
// zstd it cannot (package payload), so there it is an error, before one more byte
// passes: the move fails and the VM stays where it is. No QEMU would have read
// such a stream either.
type unpacker struct {
	r   io.Reader
	err error // of r, once it has ended

	in     []byte // read, and not passed on
	out    []byte // to be passed on; a part of in, or of packet
	used   int    // bytes of in that out stands for, or is
	packet []byte // header and pages of an unpacked packet

	opened bool // the init packet is behind us
	slots  int  // offsets in a header, 0 until one has told
	pass   int  // bytes of a payload that pass as they are

	method   uint32           // of the payloads
	expand   payload.Expander // of method; nil before the first payload
	unpacked int              // packets

	raw bool   // everything passes as it is
	why string // … because
}

// Words of a stream that was unpacked.
const (
	// rawMagic begins what follows as it is. No packet begins with it.
	rawMagic = 0x4c487261 // "LHra"
	rawSize  = 8          // bytes: rawMagic and four that are 0
)

// unpackChunk is how much is read at once at least, in bytes.
const unpackChunk = 64 << 10

// Unpack implements page.Unpacker.
func (m *Multifd) Unpack(r io.Reader) io.Reader {
	m.unpack = &unpacker{r: r}
	return m.unpack
}

var _ page.Unpacker = (*Multifd)(nil)

// Read implements io.Reader. An error that r gives it passes on, and then reads
// on, but for io.EOF.
func (u *unpacker) Read(p []byte) (int, error) {
	for len(u.out) == 0 {
		u.in = u.in[:copy(u.in, u.in[u.used:])]
		u.used = 0
		if err := u.next(); err != nil {
			return 0, err
		}
		if len(u.out) > 0 {
			break
		}
		if len(u.in) == 0 && u.err == nil && (u.raw || u.pass > 0) {
			return u.through(p)
		}
		if err := u.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, u.out)
	u.out = u.out[n:]
	return n, nil
}

// through reads bytes that pass as they are.
func (u *unpacker) through(p []byte) (int, error) {
	if !u.raw {
		p = p[:min(len(p), u.pass)]
	}
	n, err := u.r.Read(p)
	if !u.raw {
		u.pass -= n
	}
	return n, err
}

// fill reads more of the stream. It fails when there is nothing more.
func (u *unpacker) fill() error {
	if u.err != nil {
		if len(u.in) == 0 {
			return u.err
		}
		// It has ended inside a packet, which QEMU does not look into before
		// it has all of it.
		u.giveUp(u.err.Error())
		return nil
	}
	if cap(u.in)-len(u.in) < unpackChunk/2 {
		u.in = append(make([]byte, 0, 2*cap(u.in)+unpackChunk), u.in...)
	}
	n, err := u.r.Read(u.in[len(u.in):cap(u.in)])
	u.in = u.in[:len(u.in)+n]
	if errors.Is(err, io.EOF) {
		u.err = err
		return nil
	}
	if n > 0 {
		return nil // the error will come again
	}
	return err
}

// next passes on what stands at the start of in, if there is enough of it.
func (u *unpacker) next() error {
	switch b := u.in; {
	case len(b) == 0:
	case u.raw:
		u.pass = len(b)
		u.passOn()
	case u.pass > 0:
		u.passOn()
	case !u.opened:
		if len(b) < multifdInit {
			return nil
		}
		if h := packet(b); h.u32(0) != multifdMagic || h.u32(packetVersion) != multifdVersion {
			u.giveUp("no init packet")
			return nil
		}
		u.opened, u.pass = true, multifdInit
		u.passOn()
	default:
		return u.header(b)
	}
	return nil
}

// passOn passes on what there is of the next pass bytes.
func (u *unpacker) passOn() {
	n := min(u.pass, len(u.in))
	u.out, u.used = u.in[:n], n
	u.pass -= n
}

// giveUp lets everything pass as it is, from what is in hand on.
func (u *unpacker) giveUp(why string) {
	u.raw, u.why = true, why
	u.packet = binary.BigEndian.AppendUint32(u.packet[:0], rawMagic)
	u.packet = append(u.packet, 0, 0, 0, 0)
	u.out = u.packet
}

// header passes on the packet at the start of b: with its pages, if they are
// compressed, else its header, which the payload follows as it is.
func (u *unpacker) header(b []byte) error {
	if len(b) < packetPeek {
		return nil
	}
	size, why := packet(b).headSize(u.slots)
	if why != "" {
		return u.lost(why)
	}
	if len(b) < size {
		return nil
	}
	h, next, packed := packet(b[:size]), 0, false
	if h.flags() == packetDevice {
		if next = int(h.u32(deviceNext)); next > maxChunk {
			return u.lost(fmt.Sprintf("device state of %d bytes", next))
		}
	} else {
		var normal int
		if normal, _, why = h.counts(); why == "" {
			next, why = h.payload(normal)
		}
		if why != "" {
			return u.lost(why)
		}
		if h.u32(packetSlots) != 0 {
			u.slots = h.slots()
		}
		packed = normal > 0 && h.unpacks()
	}
	if !packed {
		u.pass = size + next
		u.passOn()
		return nil
	}
	if len(b) < size+next {
		return nil
	}
	return u.pages(h, b[size:size+next])
}

// unpacks tells whether the payload is pages of the one size that we can name,
// compressed by a method that we can expand.
func (h packet) unpacks() bool {
	m := h.flags() & packetMethod
	return (m == methodZlib || m == methodZstd) && h.slots() == packetPages/page.Size
}

// pages passes on the packet of header h with what its payload expands to.
func (u *unpacker) pages(h packet, body []byte) error {
	method := h.flags() & packetMethod
	if u.expand == nil {
		u.method = method
		u.expand = &payload.Zlib{}
		if method == methodZstd {
			u.expand = &payload.Zstd{}
		}
	}
	if method != u.method {
		return u.lost("packets of two methods of compression")
	}
	n := int(h.u32(packetNormal)) * page.Size
	u.packet = append(u.packet[:0], h...)
	binary.BigEndian.PutUint32(u.packet[packetNext:], uint32(n))
	u.packet = append(u.packet, make([]byte, n)...)
	if err := u.expand.Expand(u.packet[len(h):], body); err != nil {
		return u.lost(err.Error())
	}
	u.unpacked++
	u.out, u.used = u.packet, len(h)+len(body)
	return nil
}

// lost ends the unpacking because of what stands at the start of in.
func (u *unpacker) lost(why string) error {
	if u.unpacked > 0 && u.method == methodZstd {
		return fmt.Errorf("multifd channel that QEMU compresses by zstd, after %d packets: %s", u.unpacked, why)
	}
	u.giveUp(why)
	return nil
}
