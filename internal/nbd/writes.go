package nbd

import (
	"encoding/binary"

	"github.com/longhaul-project/longhaul/internal/page"
)

// Lengths in bytes of what begins something that a client says.
const (
	greetingLen = 4  // flags
	optionLen   = 16 // magic, option, length
	requestLen  = 28
	extendedLen = 32 // a request with a length of 64 bits
)

// maxBytes is the most bytes of an option or of a part of a block in one item: as
// in vmstream, enough to cost nothing per byte, and no batch is filled by it.
const maxBytes = 64 << 10

// tlsHandshake is the type of the TLS record that a client begins with: RFC 8446,
// section 5.1.
const tlsHandshake = 0x16

// A Writes cuts what a client says into items, so that the blocks of a disk that
// is being copied are seen as pages: those of a guest's memory that were read from
// it have the same content. All else passes as bytes. It believes the client
// alone, and a guess that is wrong costs bandwidth only.
//
// Options leave at once, and requests that change nothing, such as the flush for
// which a paused VM waits: the client has nothing else under way then.
type Writes struct {
	rest page.Scanner // of what is not understood

	greeted bool
	head    []byte // the beginning of an option or a request that was cut
	left    uint64 // bytes of data that belong to the last one
	writes  bool   // they are for the disk, from off on
	off     uint64
	tls     bool // it has asked for TLS
	pages   uint64
	lost    string
}

// NewWrites makes the scanner of a connection on which the client has begun to
// speak. Once it speaks of what no NBD client does, rest scans what follows.
func NewWrites(rest page.Scanner) *Writes {
	return &Writes{rest: rest, head: make([]byte, 0, extendedLen)}
}

// MayBeClient tells whether a connection that begins with b, at least 4 bytes, may
// be one of an NBD client, and with sure whether it can be nothing else: flags,
// and an option.
func MayBeClient(b []byte) (may, sure bool) {
	if len(b) < greetingLen || binary.BigEndian.Uint32(b)&^(flagFixedNewstyle|flagNoZeroes) != 0 || b[3]&flagFixedNewstyle == 0 {
		return false, false
	}
	magic := binary.BigEndian.AppendUint64(nil, magicOption)
	n := min(len(b)-greetingLen, len(magic))
	may = string(b[greetingLen:greetingLen+n]) == string(magic[:n])
	return may, may && n == len(magic)
}

// Next implements page.Scanner.
func (w *Writes) Next(b []byte) (page.Item, int) {
	switch {
	case w.lost != "":
		return w.rest.Next(b)
	case len(b) == 0:
		return page.Item{}, 0
	case w.left > 0 && w.writes:
		return w.block(b)
	case w.left > 0:
		return w.data(b[:min(uint64(len(b)), w.left, maxBytes)])
	}
	return w.begin(b)
}

// begin takes what begins an option or a request, of which head has a part.
func (w *Writes) begin(b []byte) (page.Item, int) {
	had := len(w.head)
	h := append(w.head, b[:min(len(b), extendedLen-had)]...)
	n, ok := w.beginning(h)
	if !ok {
		w.lost = "what a client says is no request"
		if w.tls && h[0] == tlsHandshake {
			w.lost = "the client goes on in TLS: what is encrypted cannot be looked into"
		}
		return w.rest.Next(b)
	}
	if n == 0 || n > len(h) {
		return page.Item{}, 0
	}
	w.head = w.head[:0]
	it := page.Item{Kind: page.Opaque, Data: b[:n-had]}
	if w.understand(h[:n]) {
		it.Mark = page.Flush
	}
	return it, n - had
}

// beginning is how many bytes what begins with h has before its data; 0 if h does
// not tell yet. It is not ok if no client says that.
func (w *Writes) beginning(h []byte) (n int, ok bool) {
	if !w.greeted {
		if len(h) < greetingLen {
			return 0, true
		}
		ok, _ = MayBeClient(h[:greetingLen])
		return greetingLen, ok
	}
	if len(h) < 4 {
		return 0, true
	}
	switch binary.BigEndian.Uint32(h) {
	case magicOption >> 32:
		return optionLen, len(h) < 8 || binary.BigEndian.Uint64(h) == magicOption
	case magicRequest:
		return requestLen, true
	case magicExtended:
		return extendedLen, true
	}
	return 0, false
}

// understand learns what data follows h. alone tells that there is none, and that
// the client waits.
func (w *Writes) understand(h []byte) (alone bool) {
	switch len(h) {
	case greetingLen:
		w.greeted = true
		return true
	case optionLen:
		w.left, w.writes = uint64(binary.BigEndian.Uint32(h[12:])), false
		w.tls = w.tls || binary.BigEndian.Uint32(h[8:]) == optionStartTLS
		return w.left == 0
	}
	length, payload := uint64(binary.BigEndian.Uint32(h[24:])), false
	if len(h) == extendedLen {
		length = binary.BigEndian.Uint64(h[24:])
		payload = binary.BigEndian.Uint16(h[4:])&flagPayload != 0
	}
	switch command := binary.BigEndian.Uint16(h[6:]); {
	case command == commandWrite:
		w.writes, w.off, w.left = true, binary.BigEndian.Uint64(h[16:]), length
		return false
	case payload: // which contexts a BLOCK_STATUS is about
		w.writes, w.left = false, length
		return length == 0
	case command == commandTrim, command == commandWriteZeroes:
		return false
	}
	return true
}

// data takes data of an option, or of a request that writes nothing.
func (w *Writes) data(b []byte) (page.Item, int) {
	it := page.Item{Kind: page.Opaque, Data: b}
	w.left -= uint64(len(b))
	if w.left == 0 {
		it.Mark = page.Flush
	}
	return it, len(b)
}

// block takes a whole block of the disk, or as much as there is of one that is not
// written whole.
func (w *Writes) block(b []byte) (page.Item, int) {
	it := page.Item{Kind: page.Opaque}
	n := page.Size - w.off%page.Size
	if n < page.Size || w.left < page.Size {
		n = min(n, w.left, uint64(len(b)))
	} else if len(b) < page.Size {
		return page.Item{}, 0
	} else {
		it.Kind, it.Addr = page.Full, page.Addr{Space: 1, Offset: w.off}
		w.pages++
	}
	it.Data = b[:n]
	w.off += n
	w.left -= n
	return it, int(n)
}

// Cut implements page.Scanner. What follows is still understood, also when Next has
// not seen b before and would have taken of it: bytes that end a silence are cut at once
// when they do not tell what speaks.
func (w *Writes) Cut(b []byte) page.Item {
	pages, left := w.pages, b
	for w.lost == "" {
		_, n := w.Next(left)
		if n == 0 {
			break
		}
		left = left[n:]
	}
	w.pages = pages // none left as one
	if w.lost != "" {
		it := w.rest.Cut(left)
		it.Data = b
		return it
	}
	w.skip(left)
	return page.Item{Kind: page.Opaque, Mark: page.Flush, Data: b}
}

// skip passes over what Next leaves of what it has: part of a block, or of the
// beginning of an option or a request.
func (w *Writes) skip(b []byte) {
	if w.left == 0 {
		w.head = append(w.head, b...)
		return
	}
	w.off += uint64(len(b))
	w.left -= uint64(len(b))
}

// Facts implements page.Scanner.
func (w *Writes) Facts() page.Facts {
	return page.Facts{Format: "nbd", PageSize: page.Size, Pages: w.pages, Lost: w.lost}
}
