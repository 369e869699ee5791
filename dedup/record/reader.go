package record

import (
	"encoding/binary"
	"fmt"
)

// reader takes values from b until the first failure.
type reader struct {
	b   []byte
	n   int // bytes taken
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) bytes(n int) []byte {
	if r.err != nil {
		return nil
	}
	if len(r.b)-r.n < n {
		r.err = ErrShort
		return nil
	}
	r.n += n
	return r.b[r.n-n : r.n : r.n]
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// uvarint takes a varint of at most limit, in its shortest form: a value has
// one encoding only, so that what was parsed can be compared by its bytes.
func (r *reader) uvarint(what string, limit uint64) uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b[r.n:])
	switch {
	case n == 0:
		r.err = ErrShort
	case n < 0 || n > 1 && r.b[r.n+n-1] == 0:
		r.err = fmt.Errorf("%w: %s is not a shortest varint", errForm, what)
	case v > limit:
		r.err = fmt.Errorf("%w: %s is %d, over %d", errForm, what, v, limit)
	default:
		r.n += n
		return v
	}
	return 0
}

func zigzag(v int64) uint64   { return uint64(v<<1) ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }
