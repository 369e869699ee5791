package payload

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// zlibWindow is how far back a block of zlib may refer, in bytes (RFC 1950,
// section 2.2: the largest there is, and what deflateInit takes).
const zlibWindow = 32 << 10

// An Expander expands the payloads of one channel.
type Expander interface {
	// Expand fills dst with what the next payload expands to. It fails unless
	// that is exactly dst and all of the payload. A failed Expander expands
	// nothing more.
	Expand(dst, payload []byte) error
}

// Errors of a payload that is no whole part of its stream.
var (
	errLong  = errors.New("payload expands to more than its pages")
	errInner = errors.New("payload ends inside a block")
)

// zlibEnd is put behind a payload: a last block, stored, of eight bytes. It is
// read as that only if the payload ends where a block does, at a byte: there
// the source's next block may follow on other blocks.
var zlibEnd = []byte{1, 8, 0, 0xf7, 0xff, 'l', 'o', 'n', 'g', 'h', 'a', 'u', 'l'}

const zlibEndSize = 8 // bytes that the last block holds

// Zlib expands payloads of QEMU's method zlib. Its zero value is the start.
type Zlib struct {
	r      io.ReadCloser // a flate.Resetter, too; nil before the first payload
	in     bytes.Reader
	buf    []byte // a payload with zlibEnd behind it
	window []byte // the last bytes that were expanded
	begun  bool   // the header is behind us
	failed bool
}

// Expand implements Expander.
func (z *Zlib) Expand(dst, payload []byte) error {
	if z.failed {
		return errors.New("zlib stream has failed before")
	}
	if err := z.expand(dst, payload); err != nil {
		z.failed = true
		return fmt.Errorf("expanding zlib: %w", err)
	}
	z.begun = true
	z.window = append(z.window, dst[max(len(dst)-zlibWindow, 0):]...)
	z.window = z.window[:copy(z.window, z.window[max(len(z.window)-zlibWindow, 0):])]
	return nil
}

func (z *Zlib) expand(dst, payload []byte) error {
	if !z.begun {
		if err := zlibHeader(payload); err != nil {
			return err
		}
		payload = payload[zlibHeaderSize:]
	}
	z.buf = append(append(z.buf[:0], payload...), zlibEnd...)
	z.in.Reset(z.buf)
	if z.r == nil {
		z.r = flate.NewReader(&z.in)
	}
	if err := z.r.(flate.Resetter).Reset(&z.in, z.window); err != nil {
		return err
	}
	if _, err := io.ReadFull(z.r, dst); err != nil {
		return err
	}
	var end [zlibEndSize + 1]byte
	n, err := io.ReadFull(z.r, end[:])
	switch {
	case n == zlibEndSize+1:
		return errLong
	case !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(end[:n], zlibEnd[len(zlibEnd)-zlibEndSize:]) || z.in.Len() > 0:
		return errInner
	}
	return nil
}

const zlibHeaderSize = 2

// zlibHeader checks the two bytes that begin a stream (RFC 1950, section 2.2).
func zlibHeader(b []byte) error {
	if len(b) < zlibHeaderSize {
		return io.ErrUnexpectedEOF
	}
	if h := binary.BigEndian.Uint16(b); b[0]&0x0f != 8 || b[0]>>4 > 7 || b[1]&0x20 != 0 || h%31 != 0 {
		return fmt.Errorf("stream begins with %04x", h)
	}
	return nil
}
