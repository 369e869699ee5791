package payload

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// zstdWindow bounds what a stream may refer back to, in bytes: 8 MiB is what
// levels up to 19 use; QEMU's default level, 1, uses 512 KiB. Twice of it is held
// for each channel.
const zstdWindow = 8 << 20

// Zstd expands payloads of QEMU's method zstd. Its zero value is the start. It
// needs no Close.
type Zstd struct {
	d      *zstd.Decoder // nil before the first payload
	in     feed
	failed error
}

// Expand implements Expander.
func (z *Zstd) Expand(dst, payload []byte) error {
	if z.failed == nil {
		z.failed = z.expand(dst, payload)
	}
	return z.failed
}

func (z *Zstd) expand(dst, payload []byte) error {
	z.in = payload
	if z.d == nil {
		// One goroutine, ours: it reads no further than it has to.
		d, err := zstd.NewReader(&z.in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return fmt.Errorf("making a zstd decompressor: %w", err)
		}
		z.d = d
	}
	if _, err := io.ReadFull(z.d, dst); err != nil {
		return fmt.Errorf("expanding zstd: %w", err)
	}
	if len(z.in) > 0 {
		return fmt.Errorf("expanding zstd: %w", errLong)
	}
	z.in = nil // it is the caller's
	return nil
}

// A feed is what is left of a payload. Its end is an error, for the stream goes
// on.
type feed []byte

var errEnd = errors.New("payload has too few bytes")

func (f *feed) Read(b []byte) (int, error) {
	if len(*f) == 0 {
		return 0, errEnd
	}
	n := copy(b, *f)
	*f = (*f)[n:]
	return n, nil
}
