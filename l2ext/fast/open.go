package fast

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
)

// Errors of what comes. They are made once: a flood of bad datagrams must not
// make garbage.
var (
	ErrShort    = errors.New("fast: too short")
	ErrFormat   = errors.New("fast: not of this format")
	ErrForged   = errors.New("fast: not sealed with this key")
	ErrReplayed = errors.New("fast: came before, or too late")
)

// Index reads which key a datagram needs. It fails when b is none.
func Index(b []byte) (uint32, error) {
	if len(b) < Overhead {
		return 0, ErrShort
	}
	if b[0] != magic || b[1] != version || b[2] != 0 || b[3] != 0 {
		return 0, ErrFormat
	}
	return binary.BigEndian.Uint32(b[4:]), nil
}

// Is tells whether a UDP payload that is not of QUIC claims to be of this format.
func Is(b []byte) bool { return len(b) > 1 && b[0] == magic }

// An Opener has the key of what is received. One goroutine uses it at a time.
type Opener struct {
	aead   cipher.AEAD
	iv     [ivLen]byte
	tmp    [ivLen]byte
	window window
}

// NewOpener makes the receiver's end of a way.
func NewOpener(s Secret, w Way) (*Opener, error) {
	aead, iv, err := derive(s, w)
	if err != nil {
		return nil, err
	}
	return &Opener{aead: aead, iv: iv}, nil
}

// Open opens a datagram in place, for which Index has not failed. It returns the
// records, which are in b. Of a datagram that was forged, b is spoilt.
func (o *Opener) Open(b []byte) (records []byte, err error) {
	return o.openTo(b[HeaderLen:HeaderLen], b)
}

// openTo appends the records to a slice, which has room for them and shares no
// memory with b, or the place of the records in it. That room is spoilt of a datagram
// that was forged.
func (o *Opener) openTo(to, b []byte) (records []byte, err error) {
	counter := binary.BigEndian.Uint64(b[8:])
	if counter >= MaxSealed || !o.window.fresh(counter) {
		return nil, ErrReplayed
	}
	nonce(&o.tmp, &o.iv, counter)
	records, err = o.aead.Open(to, o.tmp[:], b[HeaderLen:], b[:HeaderLen])
	if err != nil {
		return nil, ErrForged
	}
	o.window.note(counter)
	return records, nil
}

// Heard is the highest counter that was opened, plus 1.
func (o *Opener) Heard() uint64 { return o.window.next }
