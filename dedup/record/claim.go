package record

import "encoding/binary"

// Sizes of a claim in bytes. 128 bits of a keyed hash: nobody makes a second page
// of the same, and nobody without the key can tell what page it is of.
const (
	HashSize  = 16
	ClaimSize = 8 + HashSize
)

// A Claim names a page by its content.
type Claim struct {
	Fingerprint uint64 // xxhash64: where to look for it
	Hash        [HashSize]byte
}

// Append appends the encoding of c to b.
func (c Claim) Append(b []byte) []byte {
	return append(binary.BigEndian.AppendUint64(b, c.Fingerprint), c.Hash[:]...)
}

// ParseClaim reads the claim at the start of b, which takes ClaimSize bytes.
func ParseClaim(b []byte) (c Claim, err error) {
	if len(b) < ClaimSize {
		return c, ErrShort
	}
	c.Fingerprint = binary.BigEndian.Uint64(b)
	copy(c.Hash[:], b[8:])
	return c, nil
}
