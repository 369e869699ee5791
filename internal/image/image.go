package image

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// BlockSize is the size of a block in bytes: that of a guest's page.
const BlockSize = 4096

// source is a disk of any kind.
type source interface {
	// next gives the first span at or after from that may hold data. It may
	// begin before from; offset and length are multiples of BlockSize, what
	// lies behind the disk's end is zero. Data is valid until the next call.
	// io.EOF says that the rest is zero.
	next(ctx context.Context, from int64) (off int64, data []byte, err error)
	size() int64
	io.Closer
}

// Image is an open disk. It belongs to one goroutine.
type Image struct {
	name, format string
	source       source
}

// Open opens the raw, ISO or qcow2 file name, or an export of an NBD server,
// nbd://host[:port]/export or nbd+unix:///export?socket=PATH. A file is qcow2
// if it begins with its magic, else raw.
//
// ctx bounds the handshake with a server. Opening a file does not wait.
func Open(ctx context.Context, name string) (*Image, error) {
	var im *Image
	var err error
	if scheme, _, ok := strings.Cut(name, "://"); ok && strings.HasPrefix(scheme, "nbd") {
		im, err = openRemote(ctx, name)
	} else {
		im, err = openFile(name)
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	im.name = name
	return im, nil
}

// Name is what Open was called with.
func (im *Image) Name() string { return im.name }

// Format is "raw", "qcow2" or "nbd".
func (im *Image) Format() string { return im.format }

// Size of the disk in bytes. It need not be a multiple of BlockSize.
func (im *Image) Size() int64 { return im.source.size() }

// Close closes the image. A Next that runs must have returned.
func (im *Image) Close() error { return im.source.Close() }

// Blocks reads the disk from an offset on, which is rounded down to a multiple
// of BlockSize. There is one at a time: its buffers are the image's.
func (im *Image) Blocks(from int64) *Blocks {
	from = max(from, 0)
	from -= from % BlockSize
	return &Blocks{im: im, done: from, next: from}
}
