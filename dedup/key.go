package dedup

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// A Key makes hashes of pages that only those who hold it can make or check. A
// fleet has one, from its identity; two stores that agree derive theirs from it
// and from their random names, which they have told each other over the link. So
// a hash means something between these two stores only: who sees one, or asks
// for one, cannot compare it with a hash of his own.
type Key [sha256.Size]byte

// For is the key of a tenant of the fleet, which tells nothing of the fleet's or of
// another tenant's.
func (k Key) For(tenant string) Key {
	buf := append(append(make([]byte, 0, 128), "longhaul tenant"...), k[:]...)
	return sha256.Sum256(append(buf, tenant...))
}

// between is the key of two stores. Both make the same.
func (k Key) between(a, b uint64) Key {
	buf := append(append(make([]byte, 0, 64), "longhaul store"...), k[:]...)
	buf = binary.BigEndian.AppendUint64(buf, min(a, b))
	buf = binary.BigEndian.AppendUint64(buf, max(a, b))
	return sha256.Sum256(buf)
}

// hash of a page: the first half of SHA-256 over the key and the page. Both have
// a fixed length and half of the state is kept back, so nothing can be appended.
func (k *Key) hash(p []byte) (h [record.HashSize]byte) {
	var buf [len(Key{}) + page.Size]byte
	copy(buf[:], k[:])
	copy(buf[len(k):], p)
	sum := sha256.Sum256(buf[:])
	copy(h[:], sum[:])
	return h
}

// claim names a page of fingerprint h.
func (k *Key) claim(h uint64, p []byte) record.Claim {
	return record.Claim{Fingerprint: h, Hash: k.hash(p)}
}

// hint is what a summary says of a page of fingerprint h: 48 bits, other ones
// under another key.
func (k *Key) hint(h uint64) hint {
	add, odd := binary.BigEndian.Uint64(k[:]), binary.BigEndian.Uint64(k[8:])|1
	return hint((h + add) * odd >> (64 - hintBits))
}
