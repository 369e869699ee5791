package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// Blocks walks the blocks of a disk that are not zero, in ascending order:
//
//	b := im.Blocks(0)
//	for b.Next(ctx) {
//		use(b.Offset(), b.Data())
//	}
//	err := b.Err()
type Blocks struct {
	im    *Image
	rest  []byte // of the span that is being cut, from done on
	block []byte
	off   int64 // of block
	done  int64 // all before is known to the caller, or zero
	next  int64 // where the next span is looked for
	read  int64 // bytes of spans
	err   error
}

// zeros is what a block is compared with.
var zeros [BlockSize]byte

// Next goes to the next block, and tells whether there is one. It waits for
// the disk at most until ctx ends; then Err gives the cause.
func (b *Blocks) Next(ctx context.Context) bool {
	for b.Step(ctx) {
		if b.block != nil {
			return true
		}
	}
	return false
}

// Step is Next, but comes back from each span of the disk, also one of zeros alone: then
// Data is nil. So whoever reads slowly reads zeros slowly, too.
func (b *Blocks) Step(ctx context.Context) bool {
	if b.cut() {
		return true
	}
	if b.err == nil {
		b.err = b.load(ctx)
	}
	if b.err != nil {
		return false
	}
	b.cut()
	return true
}

// cut takes the next block of the span that is not zero, and tells whether there is one.
func (b *Blocks) cut() bool {
	for len(b.rest) > 0 {
		b.block, b.rest = b.rest[:BlockSize:BlockSize], b.rest[BlockSize:]
		b.off = b.done
		b.done += BlockSize
		if !bytes.Equal(b.block, zeros[:]) {
			return true
		}
	}
	b.block = nil
	return false
}

// load takes the next span.
func (b *Blocks) load(ctx context.Context) error {
	if b.next >= b.im.Size() {
		return io.EOF
	}
	if err := context.Cause(ctx); err != nil {
		return b.at(err)
	}
	off, data, err := b.im.source.next(ctx, b.next)
	if errors.Is(err, io.EOF) {
		b.done = b.im.Size()
		return io.EOF
	} else if err != nil {
		return b.at(err)
	}
	b.read += int64(len(data))
	if skip := b.next - off; skip > 0 {
		off, data = b.next, data[skip:]
	}
	b.rest, b.done, b.next = data, off, off+int64(len(data))
	return nil
}

func (b *Blocks) at(err error) error {
	return fmt.Errorf("image %s: reading from byte %d of %d: %w", b.im.name, b.next, b.im.Size(), err)
}

// Data is the block: BlockSize bytes, of which those behind the disk's end are
// zero. They are valid until Next is called again.
func (b *Blocks) Data() []byte { return b.block }

// Offset of the block in the disk, in bytes.
func (b *Blocks) Offset() int64 { return b.off }

// Done is how far the walk has come, in bytes: what lies before has been
// given out, the block of now included, or is zero. Image.Blocks(Done()) goes on from
// there, also in another process.
func (b *Blocks) Done() int64 { return min(b.done, b.im.Size()) }

// Read is how many bytes the disk has been asked for: holes cost none, and what is
// compressed counts as what comes of it.
func (b *Blocks) Read() int64 { return b.read }

// Err is why Next returned false: nil at the end of the disk.
func (b *Blocks) Err() error {
	if b.err == io.EOF {
		return nil
	}
	return b.err
}
