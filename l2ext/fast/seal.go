package fast

import (
	"crypto/cipher"
	"encoding/binary"
	"sync/atomic"
)

// Lengths of the format, in bytes.
const (
	HeaderLen = 16
	TagLen    = 16
	Overhead  = HeaderLen + TagLen

	magic   = 0x1c
	version = 1
)

// MaxSealed is how many datagrams may be sealed with one key. With more of at
// most 2^11 bytes each, AES-GCM would be told from random better than QUIC
// permits (RFC 9001, sections 6.6 and B.1.1).
const MaxSealed = 1 << 28

// Tired is when the receiver ought to begin another epoch: at 10 Gbit/s there
// are minutes from there to MaxSealed.
const Tired = MaxSealed / 4

// A Sealer has the key of what is sent. It is safe for concurrent use.
type Sealer struct {
	aead  cipher.AEAD
	iv    [ivLen]byte
	index uint32
	used  atomic.Uint64
}

// NewSealer makes the sender's end of a way. index is what the receiver has said.
func NewSealer(s Secret, w Way, index uint32) (*Sealer, error) {
	aead, iv, err := derive(s, w)
	if err != nil {
		return nil, err
	}
	return &Sealer{aead: aead, iv: iv, index: index}, nil
}

// take reserves a counter. It fails when the key is worn out.
func (s *Sealer) take() (counter uint64, ok bool) {
	counter = s.used.Add(1) - 1
	if counter >= MaxSealed {
		s.used.Store(MaxSealed) // so that it can never wrap
		return 0, false
	}
	return counter, true
}

// seal makes b a datagram of records, which are in it at HeaderLen or not in it at
// all. The last TagLen bytes of b are room for the tag. tmp is scratch, so that
// nothing is allocated.
func (s *Sealer) seal(b, records []byte, counter uint64, tmp *[ivLen]byte) {
	b[0], b[1], b[2], b[3] = magic, version, 0, 0
	binary.BigEndian.PutUint32(b[4:], s.index)
	binary.BigEndian.PutUint64(b[8:], counter)
	nonce(tmp, &s.iv, counter)
	s.aead.Seal(b[HeaderLen:HeaderLen], tmp[:], records, b[:HeaderLen])
}
