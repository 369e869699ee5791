package cluster

import (
	"encoding/binary"
	"errors"
)

// The part of MessagePack that memberlist's messages are made of: maps from
// text to scalars. memberlist has the decoder that counts; this one looks
// beforehand whether a message is of a size that may be decoded, and reads
// memberlist's own state.

var errPack = errors.New("malformed message")

// packed is what is left of a message. After an error it is empty.
type packed struct {
	b   []byte
	err error
}

func (p *packed) fail() {
	p.b = nil
	if p.err == nil {
		p.err = errPack
	}
}

func (p *packed) take(n int) []byte {
	if n < 0 || n > len(p.b) {
		p.fail()
		return nil
	}
	v := p.b[:n]
	p.b = p.b[n:]
	return v
}

// uint reads n bytes, big endian.
func (p *packed) uint(n int) uint64 {
	var v [8]byte
	copy(v[8-n:], p.take(n))
	return binary.BigEndian.Uint64(v[:])
}

// scalar is a value: a number, bytes (text too), or nil. Truth is 1.
type scalar struct {
	n uint64
	b []byte
}

// mapLen reads the head of a map.
func (p *packed) mapLen() int {
	switch c := byte(p.uint(1)); {
	case c&0xf0 == 0x80:
		return int(c & 0x0f)
	case c == 0xde:
		return int(p.uint(2))
	}
	p.fail() // a map32 has more keys than any of our messages
	return 0
}

// scalar reads a value that is no map and no list.
func (p *packed) scalar() (v scalar) {
	c := byte(p.uint(1))
	switch {
	case p.err != nil:
	case c <= 0x7f:
		v.n = uint64(c)
	case c&0xe0 == 0xa0: // fixstr
		v.b = p.take(int(c & 0x1f))
	case c == 0xc0 || c == 0xc2: // nil, false
	case c == 0xc3:
		v.n = 1
	case c == 0xc4 || c == 0xd9: // bin8, str8
		v.b = p.take(int(p.uint(1)))
	case c == 0xc5 || c == 0xda: // bin16, str16
		v.b = p.take(int(p.uint(2)))
	case c >= 0xcc && c <= 0xcf: // uint8 to uint64
		v.n = p.uint(1 << (c - 0xcc))
	case c >= 0xd0 && c <= 0xd3: // int8 to int64; negative ones are over every limit
		v.n = p.signed(1 << (c - 0xd0))
	default:
		p.fail()
	}
	return v
}

// signed reads a signed number; a negative one is an error.
func (p *packed) signed(n int) uint64 {
	v := p.uint(n)
	if v>>(8*n-1) != 0 {
		p.fail()
	}
	return v
}

// fields reads a map and gives each value to f by its key.
func (p *packed) fields(f func(key string, v scalar)) {
	for range p.mapLen() {
		key := p.scalar()
		v := p.scalar()
		if p.err != nil {
			return
		}
		f(string(key.b), v)
	}
}
