package streams

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// How QEMU copies a raw image with blockdev-mirror, in bytes (block/mirror.c): it
// looks for data in granules, and writes those side by side at once up to a span.
const (
	granule = 64 << 10
	span    = 1 << 20
)

// mirrored makes the stream of the disk of deb1, as it was when that was recorded:
// what an NBD client says to copy it, as testdata/mirror-7.2 of internal/nbd has it.
// Granules of zeros are left out, for holes cost a request, and zeros in the image
// cost nothing.
func (r *recorder) mirrored(ctx context.Context) error {
	if err := r.forget(Disk); err != nil {
		return err
	}
	s, err := r.load(Deb1)
	if err != nil {
		return err
	}
	in, err := os.Open(r.pausedDisk())
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(r.path(Disk))
	if err != nil {
		return err
	}
	n, err := copying(ctx, out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("writing the stream of a disk: %w", err)
	}
	s.Name, s.Bytes, s.Rounds = Disk, n, 0
	r.log.Info("made", "stream", Disk, "bytes", n)
	return r.describe(s)
}

// copying writes what a client says that copies an image to an export, and tells how
// many bytes that is.
func copying(ctx context.Context, to io.Writer, image io.Reader) (n int64, err error) {
	w := bufio.NewWriterSize(to, span)
	say := func(b []byte) {
		m, _ := w.Write(b) // Flush has the error
		n += int64(m)
	}
	say(handshake())
	buf := make([]byte, span)
	for off := int64(0); err == nil && ctx.Err() == nil; off += span {
		var m int
		m, err = io.ReadFull(image, buf)
		runs(buf[:m], func(from, end int) {
			say(request(commandWrite, off+int64(from), end-from))
			say(buf[from:end])
		})
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	say(request(commandFlush, 0, 0))
	say(request(commandDisconnect, 0, 0))
	return n, errors.Join(err, context.Cause(ctx), w.Flush())
}

// runs tells of the granules of b that are not zero, those side by side together.
func runs(b []byte, f func(from, end int)) {
	from := -1
	for at := 0; at < len(b); at += granule {
		zero := len(bytes.Trim(b[at:min(at+granule, len(b))], "\x00")) == 0
		switch {
		case !zero && from < 0:
			from = at
		case zero && from >= 0:
			f(from, at)
			from = -1
		}
	}
	if from >= 0 {
		f(from, len(b))
	}
}

// Requests of NBD (doc/proto.md).
const (
	commandWrite      = 1
	commandDisconnect = 2
	commandFlush      = 3
)

// handshake is what QEMU 7.2 says before its first request.
func handshake() []byte {
	return []byte("\x00\x00\x00\x03" +
		"IHAVEOPT\x00\x00\x00\x08\x00\x00\x00\x00" + // STRUCTURED_REPLY
		"IHAVEOPT\x00\x00\x00\x0a\x00\x00\x00\x20\x00\x00\x00\x05disk0\x00\x00\x00\x01\x00\x00\x00\x0fbase:allocation" + // SET_META_CONTEXT
		"IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x0d\x00\x00\x00\x05disk0\x00\x01\x00\x03") // GO
}

// request has a cookie of QEMU 7.2: an address, and which of 16 requests it is.
func request(command uint16, off int64, n int) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint32(b, uint32(command))
	b = binary.BigEndian.AppendUint64(b, 0x559d3cb10240^uint64(off/span%16))
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	return binary.BigEndian.AppendUint32(b, uint32(n))
}
