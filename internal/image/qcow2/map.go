package qcow2

import (
	"encoding/binary"
	"io"
	"math/bits"
)

// Kind says where a span of the disk is.
type Kind uint8

// The kinds of span.
const (
	// Absent is not in this image: it is in the backing file, or zero.
	Absent Kind = iota
	// Zero reads as zero, whatever the backing file has.
	Zero
	// Data is in this image.
	Data
)

// Extent is a span of the disk of one kind.
type Extent struct {
	Kind       Kind
	Start, End int64

	host       int64 // of Data: where it begins in the file
	sectors    int64 // of Data that is compressed: bytes in the file
	compressed bool
}

const (
	offsetMask = 1<<56 - 1<<9 // bits 9 to 55 of an entry
	tableSpan  = 64 << 10     // bytes of a table that are held at a time
	// maxShare bounds how much the tables may map: this many times the size
	// of the file. Without a bound a file of 1 MiB could point at itself for
	// exabytes. Sound images stay below 2; only tiny compressed clusters,
	// which count as a sector each, come to 25.
	maxShare = 64
)

// Reader reads the disk of one image. It belongs to one goroutine, and wants
// to be read forwards: it remembers the last extent and a window of each table.
type Reader struct {
	file   io.ReaderAt
	size   int64 // of file
	h      Header
	l1, l2 window
	table  int64 // index in the L1 table of what l2 holds
	cur    Extent
	spent  int64 // bytes of the file that were mapped on this way forwards
	unpack *Unpacker
}

// NewReader reads an image from a file of size bytes, of which h is the
// header. Readers of one goroutine may share an Unpacker.
func NewReader(file io.ReaderAt, size int64, h *Header, u *Unpacker) *Reader {
	r := &Reader{file: file, size: size, h: *h, table: -1, unpack: u}
	r.l1 = window{what: "L1 table", at: h.l1Offset, end: h.l1Offset + h.l1Entries*8}
	r.l2 = window{what: "L2 table"}
	return r
}

// Extent gives the span that begins at off, which is below the Size of the
// disk. The next one may be of the same kind.
func (r *Reader) Extent(off int64) (Extent, error) {
	if off < r.cur.Start-clampBack {
		r.spent = 0 // a new way through the image
	}
	if off < r.cur.Start || off >= r.cur.End {
		e, err := r.look(off)
		if err != nil {
			return Extent{}, err
		}
		r.cur = e
	}
	e := r.cur
	if !e.compressed {
		e.host += off - e.Start
	}
	e.Start = off
	return e, nil
}

// clampBack is how far a reader steps back without being suspected to begin
// anew: blocks begin up to 4 KiB before their first data.
const clampBack = 4096 // bytes

// look finds an extent in the tables.
func (r *Reader) look(off int64) (Extent, error) {
	span := r.h.l1Span()
	table, err := r.l2Table(off / span)
	if err != nil {
		return Extent{}, err
	}
	end := off - off%span + min(span, r.h.Size-(off-off%span))
	if table == 0 {
		return Extent{Kind: Absent, Start: off, End: end}, nil
	}
	e, err := r.entry(table, off)
	if err != nil {
		return Extent{}, err
	}
	for e.End < end && !e.compressed {
		next, err := r.entry(table, e.End)
		if err != nil || !e.joins(next) {
			break // an error comes again when its place is asked for
		}
		e.End = next.End
	}
	e.End = min(e.End, end)
	return e, r.charge(e)
}

func (e Extent) joins(next Extent) bool {
	if e.Kind != next.Kind || next.compressed {
		return false
	}
	return e.Kind != Data || e.host+(e.End-e.Start) == next.host
}

// l2Table gives the offset of an L2 table, 0 for none.
func (r *Reader) l2Table(i int64) (int64, error) {
	b, err := r.l1.at8(r, r.h.l1Offset+i*8)
	if err != nil {
		return 0, err
	}
	table := int64(binary.BigEndian.Uint64(b) & offsetMask)
	if table%r.h.ClusterSize() != 0 || table > r.size-min(r.size, r.h.ClusterSize()) {
		return 0, at(r.h.l1Offset+i*8, "L2 table at byte %d of %d, in clusters of %d", table, r.size, r.h.ClusterSize())
	}
	if table != 0 && r.table != i {
		r.table = i
		r.spent += r.h.ClusterSize() // even if it is the table of before: walking it takes time
		r.l2.at, r.l2.end, r.l2.buf = table, table+r.h.ClusterSize(), r.l2.buf[:0]
	}
	return table, nil
}

// entry gives the span that one entry of an L2 table maps, from off on.
func (r *Reader) entry(table, off int64) (Extent, error) {
	cluster := r.h.ClusterSize()
	where := table + off/cluster%r.h.l2Entries()*r.h.l2Entry()
	b, err := r.l2.at8(r, where)
	if err != nil {
		return Extent{}, err
	}
	v := binary.BigEndian.Uint64(b)
	e := Extent{Start: off, End: off - off%cluster + cluster}
	if v&(1<<62) != 0 {
		return r.compressed(e, v, where)
	}
	e.host = int64(v & offsetMask)
	switch {
	case e.host%cluster != 0:
		return e, at(where, "cluster at byte %d, which is no multiple of %d", e.host, cluster)
	case r.h.extended:
		if b, err = r.l2.at8(r, where+8); err != nil {
			return e, err
		}
		if e, err = r.subcluster(e, binary.BigEndian.Uint64(b), where); err != nil {
			return e, err
		}
	case v&1 != 0 && r.h.version == 2:
		return e, at(where, "zero cluster in an image of version 2")
	case v&1 != 0:
		e.Kind = Zero
	case e.host != 0:
		e.Kind = Data
	}
	if e.Kind != Data {
		return e, nil
	}
	if e.host == 0 || e.host >= r.size {
		return e, at(where, "cluster at byte %d of %d", e.host, r.size)
	}
	e.host += off % cluster
	return e, nil
}

// subcluster narrows e to the subclusters of one kind from e.Start on.
func (r *Reader) subcluster(e Extent, bitmap uint64, where int64) (Extent, error) {
	allocated, zero := uint32(bitmap), uint32(bitmap>>32)
	if both := allocated & zero; both != 0 {
		return e, at(where+8, "subcluster %d is both data and zero", bits.TrailingZeros32(both))
	}
	size := r.h.ClusterSize() / 32
	i := int(e.Start % r.h.ClusterSize() / size)
	var like uint32 // the subclusters of the same kind, and after shifting those from i on
	switch {
	case allocated>>i&1 != 0:
		e.Kind, like = Data, allocated
	case zero>>i&1 != 0:
		e.Kind, like = Zero, zero
	default:
		e.Kind, like = Absent, ^(allocated | zero)
	}
	n := bits.TrailingZeros32(^(like >> i)) // 32 at most, and i+n is too: the shift brings zeros in
	e.End = e.Start - e.Start%size + int64(n)*size
	return e, nil
}

func (r *Reader) compressed(e Extent, v uint64, where int64) (Extent, error) {
	x := 62 - (r.h.clusterBits - 8)
	host := v & (1<<x - 1)
	if host >= uint64(r.size) || host == 0 {
		return e, at(where, "compressed cluster at byte %d of %d", host, r.size)
	}
	e.Kind, e.compressed, e.host = Data, true, int64(host)
	e.sectors = int64(v&(1<<62-1)>>x+1)*512 - e.host%512
	return e, nil
}

// charge refuses tables that map the file over and over.
func (r *Reader) charge(e Extent) error {
	if e.Kind == Data {
		if n := e.End - e.Start; e.compressed {
			r.spent += e.sectors
		} else {
			r.spent += n
		}
	}
	if r.spent/maxShare > r.size {
		return at(e.host, "the tables map more than %d times the %d bytes of the file", maxShare, r.size)
	}
	return nil
}

// window holds a part of a table, so that memory does not depend on the image.
type window struct {
	what string
	buf  []byte
	at   int64 // in the file, of the first byte of buf
	end  int64 // of the table in the file
}

// at8 gives the 8 bytes at an offset of the file that lies in the table.
func (w *window) at8(r *Reader, off int64) ([]byte, error) {
	if i := off - w.at; i >= 0 && i+8 <= int64(len(w.buf)) {
		return w.buf[i : i+8], nil
	}
	return w.load(r, off)
}

func (w *window) load(r *Reader, off int64) ([]byte, error) {
	n := min(tableSpan, w.end-off)
	if int64(cap(w.buf)) < n {
		w.buf = make([]byte, n)
	}
	w.at, w.buf = off, w.buf[:n]
	if n, err := r.file.ReadAt(w.buf, off); n < len(w.buf) {
		w.buf = w.buf[:0]
		return nil, at(off, "reading %s: %w", w.what, err)
	}
	return w.buf[:8], nil
}
