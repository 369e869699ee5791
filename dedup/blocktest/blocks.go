// Package blocktest is what dedup/fold and dedup/press both have to pass, and what they are
// tested with: blocks such as guests have.
package blocktest

import (
	"bytes"
	"math/rand/v2"
)

// Memory is a block of n bytes such as guests have: text, tables of pointers, noise, zeros,
// and what came before with some changes. What it is of a given rng is part of tests, which
// know what it is coded to.
func Memory(rng *rand.Rand, n int) []byte {
	words := [][]byte{[]byte("connection "), []byte("refused "), []byte("session "), []byte("{\"time\":"), []byte("\x48\x8b\x45\xf8"), []byte("\x00\x00\x00\x00\x00")}
	var b []byte
	for len(b) < n {
		switch rng.IntN(5) {
		case 0:
			for range 40 {
				b = append(b, words[rng.IntN(len(words))]...)
			}
		case 1:
			for range 64 {
				b = append(b, byte(rng.IntN(4)*8), byte(rng.Uint32()), 0x81, 0x03, 0x81, 0x88, 0xff, 0xff)
			}
		case 2:
			b = append(b, Noise(rng, 100)...)
		case 3:
			b = append(b, make([]byte, rng.IntN(3000))...)
		default:
			if len(b) > 0 {
				b = append(b, changed(rng, b)...)
			}
		}
	}
	return b[:n]
}

// changed is a part of b with up to five bytes changed.
func changed(rng *rand.Rand, b []byte) []byte {
	at := rng.IntN(len(b))
	part := bytes.Clone(b[at:min(len(b), at+rng.IntN(2000))])
	for range rng.IntN(6) {
		if len(part) > 0 {
			part[rng.IntN(len(part))]++
		}
	}
	return part
}

// Noise is n bytes of noise.
func Noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}
