package fast

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Label is for the exporter of TLS (RFC 8446, section 7.5).
const Label = "EXPORTER-longhaul-segment-express"

// SecretLen is the length of the exported secret, in bytes.
const SecretLen = sha256.Size

// Secret is what both ends of a link have exported from one connection.
type Secret [SecretLen]byte

// Name tells both ends which secret they mean, and nobody what it is. Numbers of
// connections would not do: they begin anew with the process that gives them.
func (s Secret) Name() (uint64, error) {
	b, err := hkdf.Expand(sha256.New, s[:], "longhaul express name", 8)
	if err != nil {
		return 0, fmt.Errorf("fast: naming a secret: %w", err)
	}
	return binary.BigEndian.Uint64(b), nil
}

// Way is a direction of a link in one epoch.
type Way struct {
	From, To string // sites
	Epoch    uint64 // grows
}

const (
	keyLen = 16 // AES-128, as TLS_AES_128_GCM_SHA256, which protects the link itself
	ivLen  = 12
)

// derive makes the key of a way.
func derive(s Secret, w Way) (aead cipher.AEAD, iv [ivLen]byte, err error) {
	info := fmt.Sprintf("longhaul express 1\x00%s\x00%s\x00", w.From, w.To)
	info = string(binary.BigEndian.AppendUint64([]byte(info), w.Epoch))
	b, err := hkdf.Expand(sha256.New, s[:], info, keyLen+ivLen)
	if err != nil {
		return nil, iv, fmt.Errorf("fast: deriving a key: %w", err)
	}
	block, err := aes.NewCipher(b[:keyLen])
	if err != nil {
		return nil, iv, fmt.Errorf("fast: making a cipher: %w", err)
	}
	if aead, err = cipher.NewGCM(block); err != nil {
		return nil, iv, fmt.Errorf("fast: making a cipher: %w", err)
	}
	copy(iv[:], b[keyLen:])
	return aead, iv, nil
}

// nonce is the IV with the counter in it (as RFC 8446, section 5.3).
func nonce(to *[ivLen]byte, iv *[ivLen]byte, counter uint64) {
	*to = *iv
	low := binary.BigEndian.Uint64(to[ivLen-8:])
	binary.BigEndian.PutUint64(to[ivLen-8:], low^counter)
}
