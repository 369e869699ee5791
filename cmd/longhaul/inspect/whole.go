package inspect

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// whole compresses the stream as one piece and keeps nothing but the size.
type whole struct {
	w    io.WriteCloser
	size counter
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

func newLZ4() *whole {
	w := new(whole)
	w.w = lz4.NewWriter(&w.size)
	return w
}

func newZstd(level int) (*whole, error) {
	w := new(whole)
	z, err := zstd.NewWriter(&w.size,
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithEncoderConcurrency(1)) // else it starts goroutines, and they may outlive an error
	if err != nil {
		return nil, fmt.Errorf("making a zstd compressor of level %d: %w", level, err)
	}
	w.w = z
	return w, nil
}

func (w *whole) write(c *chunk) error {
	if _, err := w.w.Write(c.raw); err != nil {
		return fmt.Errorf("compressing the stream: %w", err)
	}
	if !c.last {
		return nil
	}
	if err := w.w.Close(); err != nil {
		return fmt.Errorf("compressing the stream: %w", err)
	}
	return nil
}
