package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what zstd keeps of the past. QEMU compresses cluster by
// cluster at level 3, whose window is 2 MiB, the largest cluster.
const maxWindow = 2 << 20 // bytes

// Unpacker decompresses clusters and keeps the last one. Its memory is that of
// the largest cluster that it has seen, compressed (at most 4 MiB) and not (at
// most 2 MiB). The zero value is ready for use.
type Unpacker struct {
	owner   *Reader // whose cluster is in out; nil if none
	cluster int64   // its offset in the disk

	in, out []byte
	src     bytes.Reader
	flate   io.ReadCloser // nil until needed; also a flate.Resetter
	zstd    *zstd.Decoder // nil until needed
}

// open gives the bytes of the compressed cluster that e is in. They are valid
// until the next call.
func (u *Unpacker) open(r *Reader, e Extent) ([]byte, error) {
	size := r.h.ClusterSize()
	cluster := e.Start - e.Start%size
	if u.owner == r && u.cluster == cluster {
		return u.out, nil
	}
	u.owner = nil
	u.in, u.out = grow(u.in, e.sectors), grow(u.out, size)
	n, err := r.file.ReadAt(u.in, e.host)
	if n == 0 || err != nil && !errors.Is(err, io.EOF) { // the file may end in the last sector
		return nil, at(e.host, "reading compressed cluster: %w", err)
	}
	u.src.Reset(u.in[:n])
	if r.h.zstd {
		err = u.unzstd()
	} else {
		err = u.inflate()
	}
	if err != nil {
		return nil, at(e.host, "compressed cluster of at most %d bytes: %w", n, err)
	}
	u.owner, u.cluster = r, cluster
	return u.out, nil
}

func (u *Unpacker) inflate() error {
	if u.flate == nil {
		u.flate = flate.NewReader(&u.src)
	} else if err := u.flate.(flate.Resetter).Reset(&u.src, nil); err != nil {
		return err
	}
	return u.fill(u.flate)
}

func (u *Unpacker) unzstd() error {
	var err error
	if u.zstd == nil {
		u.zstd, err = zstd.NewReader(&u.src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
	} else {
		err = u.zstd.Reset(&u.src)
	}
	if err != nil {
		return err
	}
	return u.fill(u.zstd)
}

// fill reads one cluster. What follows belongs to the next one.
func (u *Unpacker) fill(from io.Reader) error {
	n, err := io.ReadFull(from, u.out)
	if err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", n, len(u.out), err)
	}
	return nil
}

func grow(b []byte, n int64) []byte {
	if int64(cap(b)) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// Read fills p from off on, which must be inside one extent of kind Data. What
// a cluster has behind the end of the file reads as zero, as with QEMU: the
// last one is not always written out.
func (r *Reader) Read(p []byte, off int64) error {
	e, err := r.Extent(off)
	switch {
	case err != nil:
		return err
	case e.Kind != Data || int64(len(p)) > e.End-off:
		panic("qcow2: reading what is no data") // the caller asks Extent first
	case e.compressed:
		cluster, err := r.unpack.open(r, e)
		if err != nil {
			return err
		}
		copy(p, cluster[off%r.h.ClusterSize():])
		return nil
	}
	n, err := r.file.ReadAt(p, e.host)
	if n == len(p) {
		return nil
	}
	if !errors.Is(err, io.EOF) || e.host+int64(n) < r.size {
		return at(e.host+int64(n), "reading cluster: %w", err)
	}
	clear(p[n:])
	return nil
}

// Close frees what the decompressors hold. The Unpacker must not be used again.
func (u *Unpacker) Close() {
	if u.zstd != nil {
		u.zstd.Close()
	}
}
