package fast

import "sync/atomic"

const (
	// MinDatagram is the shortest length that datagrams are made for, in bytes: an
	// IPv6 packet of 1280 bytes has room for it.
	MinDatagram = 1200
	// MaxDatagram is the longest, in bytes: what an IPv4 packet of 1500 has room for.
	MaxDatagram = 1472

	// maxBatch is the most that one write may have: a UDP payload of IPv4.
	maxBatch = 65507
	// maxDatagrams of one write: the kernel's UDP_MAX_SEGMENTS (include/linux/udp.h),
	// before Linux 6.9.
	maxDatagrams = 64

	// small messages are not cut: what is left of the datagram is padded.
	// Others are, so that it is used.
	small = 256
	// minPiece is the least that a piece is worth its header for.
	minPiece = 64
)

// A Packer makes datagrams of messages, in one buffer, and has them sent when it
// is full. One goroutine uses it at a time; several may share a Sealer.
type Packer struct {
	send func(batch []byte, size int) // takes the datagrams of a batch; borrows it
	ids  *atomic.Uint32               // of cut messages; shared by all who share a Sealer

	sealer *Sealer
	size   int // of a datagram
	most   int // of a batch
	buf    []byte
	start  int // of the open datagram; -1: none is open. Those before it are sealed
	tmp    [ivLen]byte
}

// NewPacker makes a Packer whose batches go to send: datagrams of size bytes,
// of which the last may be shorter.
func NewPacker(ids *atomic.Uint32, send func(batch []byte, size int)) *Packer {
	return &Packer{send: send, ids: ids, buf: make([]byte, 0, maxBatch), start: -1}
}

// Start says with which key the next messages are sealed, and how long a
// datagram may be, between MinDatagram and MaxDatagram. What waits is sent
// before either changes.
func (p *Packer) Start(s *Sealer, size int) (flushed bool) {
	size = min(max(size, MinDatagram), MaxDatagram)
	if p.sealer == s && p.size == size {
		return true
	}
	flushed = p.Flush()
	p.sealer, p.size = s, size
	p.most = min(maxBatch/size, maxDatagrams) * size
	return flushed
}

// Add adds a message of at most MaxMessage bytes. It borrows it; while it works, it
// writes into it. It tells whether all that it has sealed for it could be: false
// means that the key is worn out.
func (p *Packer) Add(h Record, msg []byte) (ok bool) {
	ok = true
	if p.start < 0 || wholeLen+len(msg) > p.room() && len(msg) <= small {
		ok = p.next()
	}
	if wholeLen+len(msg) <= p.room() {
		h.Kind, h.Body = Whole, msg
		p.buf = h.Append(p.buf)
		return ok
	}
	h.Kind, h.ID, h.Total = Piece, p.ids.Add(1), len(msg)
	for h.Offset < len(msg) {
		if p.room() < pieceLen+minPiece {
			ok = p.next() && ok
		}
		n := min(len(msg)-h.Offset, p.room()-pieceLen)
		h.Body = msg[h.Offset : h.Offset+n]
		if h.Offset >= pieceLen && n == p.size-Overhead-pieceLen {
			ok = p.sealPiece(h, msg[h.Offset-pieceLen:h.Offset+n]) && ok
		} else {
			p.buf = h.Append(p.buf)
		}
		h.Offset += n
	}
	return ok
}

// sealPiece makes the open datagram, which is empty, one of a piece that fills it.
// In from, the piece is in its message, behind the end of the one before: that is
// where its header goes for as long as it takes, so that sealing is also what copies.
func (p *Packer) sealPiece(h Record, from []byte) (ok bool) {
	var kept [pieceLen]byte
	copy(kept[:], from)
	h.appendHead(from[:0])
	p.buf = p.buf[:p.start+p.size-TagLen]
	ok = p.sealOpen(from)
	copy(from, kept[:])
	return ok
}

// Hello sends what waits, and a datagram of full length that has only a Hello.
// So it tells as well whether the path carries such datagrams.
func (p *Packer) Hello(heard uint64) (ok bool) {
	ok = p.Flush()
	p.next()
	p.buf = Record{Kind: Hello, Heard: heard}.Append(p.buf)
	p.fill()
	return p.Flush() && ok
}

// room is what the open datagram can still take.
func (p *Packer) room() int {
	if p.start < 0 {
		return 0
	}
	return p.start + p.size - TagLen - len(p.buf)
}

// next ends the open datagram, and begins another, in the next batch if it must.
func (p *Packer) next() (ok bool) {
	ok = true
	if p.start >= 0 {
		p.fill()
		ok = p.sealOpen(p.buf[p.start+HeaderLen:])
	}
	if len(p.buf)+p.size > p.most {
		p.sendAll()
	}
	p.start = len(p.buf)
	p.buf = p.buf[:p.start+HeaderLen]
	return ok
}

// fill pads the open datagram to its full length.
func (p *Packer) fill() {
	from := len(p.buf)
	p.buf = p.buf[:from+p.room()]
	clear(p.buf[from:])
}

// Flush sends what waits.
func (p *Packer) Flush() (ok bool) {
	ok = true
	if p.start >= 0 {
		ok = p.sealOpen(p.buf[p.start+HeaderLen:])
	}
	p.sendAll()
	return ok
}

// sealOpen seals the open datagram, whose records are in it or elsewhere. One that
// cannot be sealed is taken back.
func (p *Packer) sealOpen(records []byte) (ok bool) {
	counter, ok := p.sealer.take()
	if ok {
		p.buf = p.buf[:len(p.buf)+TagLen]
		p.sealer.seal(p.buf[p.start:], records, counter, &p.tmp)
	} else {
		p.buf = p.buf[:p.start]
	}
	p.start = -1
	return ok
}

// sendAll sends the datagrams of the batch, and empties it.
func (p *Packer) sendAll() {
	if len(p.buf) > 0 {
		p.send(p.buf, p.size)
	}
	p.buf = p.buf[:0]
}
