package image

import (
	"context"
	"io"

	"github.com/longhaul-project/longhaul/internal/image/qcow2"
)

// spanSize is the most bytes that are read at once: enough to keep any disk
// busy, and small enough for a core's cache.
const spanSize = 1 << 20

// layer is one file of an image, seen as a disk.
type layer interface {
	size() int64
	// extent gives the kind of the bytes from off on, and where it may change.
	// off is below size.
	extent(off int64) (kind qcow2.Kind, end int64, err error)
	// read fills p from off on, which lies inside one extent of kind Data.
	read(p []byte, off int64) error
	io.Closer
}

// disk makes spans of a layer.
type disk struct {
	layer
	buf []byte // spanSize bytes once used
}

func (d *disk) next(ctx context.Context, from int64) (int64, []byte, error) {
	if d.buf == nil {
		d.buf = make([]byte, spanSize)
	}
	off, err := d.seek(ctx, from)
	if err != nil {
		return 0, nil, err
	}
	off -= off % BlockSize // the start of a block may be zero
	n, err := d.fill(ctx, off, d.buf[:min(spanSize, d.size()-off)])
	if err != nil {
		return 0, nil, err
	}
	end := roundUp(int64(n))
	clear(d.buf[n:end])
	return off, d.buf[:end], nil
}

// seek finds the first data at or after from.
func (d *disk) seek(ctx context.Context, from int64) (int64, error) {
	for from < d.size() {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		kind, end, err := d.extent(from)
		if err != nil || kind == qcow2.Data {
			return from, err
		}
		from = end
	}
	return 0, io.EOF
}

// fill reads from off on until p is full or a hole of a block or more begins,
// and gives the number of bytes.
func (d *disk) fill(ctx context.Context, off int64, p []byte) (n int, err error) {
	for n < len(p) {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		kind, end, err := d.extent(off + int64(n))
		if err != nil {
			return 0, err
		}
		part := p[n:min(int64(len(p)), end-off)]
		if kind == qcow2.Data {
			err = d.read(part, off+int64(n))
		} else if hole := int(roundUp(int64(n))); hole+BlockSize <= n+len(part) {
			clear(p[n:hole])
			return hole, nil
		} else {
			clear(part)
		}
		if err != nil {
			return 0, err
		}
		n += len(part)
	}
	return n, nil
}

// roundUp gives the multiple of BlockSize at or after n.
func roundUp(n int64) int64 { return (n + BlockSize - 1) / BlockSize * BlockSize }
