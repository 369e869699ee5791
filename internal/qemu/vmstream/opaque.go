package vmstream

import "github.com/longhaul-project/longhaul/internal/page"

// maxOpaque is the most bytes that an opaque item spans: large enough to cost
// nothing per byte, small enough not to fill a batch.
const maxOpaque = 64 << 10

// Opaque passes a stream that has no structure for us. It holds nothing back.
type Opaque struct {
	format string
}

// NewOpaque returns a scanner for a stream of unknown kind.
func NewOpaque() *Opaque { return newOpaque("opaque") }

func newOpaque(format string) *Opaque { return &Opaque{format: format} }

// Next implements page.Scanner.
func (o *Opaque) Next(b []byte) (page.Item, int) {
	n := min(len(b), maxOpaque)
	return page.Item{Kind: page.Opaque, Data: b[:n]}, n
}

// Cut implements page.Scanner.
func (o *Opaque) Cut(b []byte) page.Item {
	return page.Item{Kind: page.Opaque, Mark: page.Flush, Data: b}
}

// Facts implements page.Scanner.
func (o *Opaque) Facts() page.Facts { return page.Facts{Format: o.format} }

// Multifd passes one of the extra connections that carry pages when QEMU's
// capability multifd is on. Its packets are opaque here.
type Multifd struct {
	init [multifdInit]byte // the init packet, as far as it has been seen
	seen int
	out  int // bytes handed out, up to multifdInit
}

// NewMultifd returns a scanner for a multifd channel.
func NewMultifd() *Multifd { return &Multifd{} }

// multifdID is where the init packet holds the channel's number
// (migration/multifd.h MultiFDInit_t: magic, version, uuid, id).
const multifdID = 24

// ID is the channel's number, from 0. ok is false until it has been seen.
func (m *Multifd) ID() (id int, ok bool) {
	return int(m.init[multifdID]), m.seen > multifdID
}

// learn keeps of b, which follows what was handed out, the part that belongs
// to the init packet.
func (m *Multifd) learn(b []byte) {
	copy(m.init[m.out:], b)
	m.seen = max(m.seen, min(multifdInit, m.out+len(b)))
}

// Next implements page.Scanner. The init packet is an item of its own: the
// destination's QEMU reads it with its main loop blocked.
func (m *Multifd) Next(b []byte) (page.Item, int) {
	if m.out < multifdInit {
		if len(b) < multifdInit-m.out {
			return page.Item{}, 0
		}
		it := m.Cut(b[:multifdInit-m.out])
		return it, it.Len()
	}
	n := min(len(b), maxOpaque)
	return page.Item{Kind: page.Opaque, Data: b[:n]}, n
}

// Cut implements page.Scanner.
func (m *Multifd) Cut(b []byte) page.Item {
	m.learn(b)
	m.out = min(multifdInit, m.out+len(b))
	return page.Item{Kind: page.Opaque, Mark: page.Flush, Data: b}
}

// Facts implements page.Scanner.
func (m *Multifd) Facts() page.Facts { return page.Facts{Format: "qemu-multifd"} }
