package inspect

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream"
)

// chunkSize is what is read at once, in bytes: far above page.MaxItem, so that
// little is left over, and small enough that Ctrl-C acts at once.
const chunkSize = 1 << 20

// header begins the main channel of a migration: magic and version.
const header = "QEVM\x00\x00\x00\x03"

// A chunk is a span of the stream and the items of which it consists.
type chunk struct {
	raw    []byte
	items  []page.Item
	begins []int // items with which another stream begins
	last   bool  // nothing follows

	buf  []byte
	rest []byte // of buf: read, but no whole item yet
}

// A cutter cuts a capture into chunks.
type cutter struct {
	r    io.Reader
	scan page.Scanner // nil: a stream begins

	sealed bool // the stream has come to its end
	ended  bool // … and is a precopy, so nothing but another stream is recognised
	torn   bool // an item ended with the capture

	read int64
	file File // what the streams said of themselves
}

// newCutter makes the cutter of a capture. QEMU's own compression of a multifd
// channel is taken out before anything is looked at; packed counts the bytes with
// it, and is nil if there may be none.
func newCutter(r *bufio.Reader) (c *cutter, packed *reading) {
	first, _ := r.Peek(recogniseSize) // an error comes again when it is read
	scan, _ := vmstream.Recognise(first)
	u, ok := scan.(page.Unpacker)
	if !ok {
		return &cutter{r: r}, nil
	}
	packed = &reading{r: r}
	c = &cutter{r: u.Unpack(packed), scan: u}
	c.file.Streams = 1
	return c, packed
}

// recogniseSize is how many bytes vmstream.Recognise wants at most.
const recogniseSize = 64

// reading counts what is read.
type reading struct {
	r io.Reader
	n int64
}

func (c *reading) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// next reads a chunk into into. It borrows prev, the one before.
func (c *cutter) next(prev, into *chunk) error {
	if into.buf == nil {
		into.buf = make([]byte, chunkSize+page.MaxItem)
	}
	had := copy(into.buf, prev.rest)
	n, err := fill(c.r, into.buf[had:had+chunkSize])
	c.read += int64(n)
	into.last = errors.Is(err, io.EOF)
	if err != nil && !into.last {
		return fmt.Errorf("after %d bytes of stream: %w", c.read, err)
	}
	c.cut(into, into.buf[:had+n])
	return nil
}

// fill is io.ReadFull, but its io.EOF means that the stream has ended, and
// its io.ErrUnexpectedEOF that gzip says that something is missing.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

// cut finds the items of b.
func (c *cutter) cut(into *chunk, b []byte) {
	into.items, into.begins = into.items[:0], into.begins[:0]
	used := 0
	for used < len(b) {
		if c.ended && bytes.HasPrefix(b[used:], []byte(header)) {
			c.finish()
		}
		if c.scan == nil && !c.begin(into, b[used:]) {
			break
		}
		it, n := c.item(b[used:], into.last)
		if n == 0 {
			break
		}
		into.items = append(into.items, it)
		used += n
	}
	into.raw, into.rest = b[:used], b[used:]
	if into.last && c.scan != nil {
		c.finish()
	}
}

// begin recognises the stream that begins with b. It is false when that takes
// more bytes.
func (c *cutter) begin(into *chunk, b []byte) bool {
	scan, enough := vmstream.Recognise(b)
	if !enough {
		if !into.last {
			return false
		}
		scan = vmstream.NewOpaque()
	}
	if c.file.Streams++; c.file.Streams > 1 {
		into.begins = append(into.begins, len(into.items))
	}
	c.scan = scan
	return true
}

// item is the one at the start of b; n is 0 when it is not whole.
func (c *cutter) item(b []byte, last bool) (it page.Item, n int) {
	it, n = c.scan.Next(b)
	if n == 0 && last {
		it, n = c.scan.Cut(b), len(b)
		c.torn = c.scan.Facts().Format != "opaque" // which has no whole items
	}
	seals := it.Mark&page.Seal != 0
	if seals {
		c.sealed, c.ended = true, !c.scan.Facts().Postcopy
	}
	if !c.ended {
		return it, n
	}
	// A scanner that has come to the end of a precopy hands everything out
	// as it is, so bytes may be given to it again.
	n = min(n, ownBytes(b, last))
	if seals {
		n = max(n, 1) // the mark is given only once
	}
	it.Data = it.Data[:n]
	return it, n
}

// ownBytes is how much of b surely belongs to the stream that has ended.
func ownBytes(b []byte, last bool) int {
	if i := bytes.Index(b, []byte(header)); i >= 0 {
		return i
	}
	if last {
		return len(b)
	}
	return max(len(b)-len(header)+1, 0)
}

// finish notes what the stream said of itself, and makes ready for another.
func (c *cutter) finish() {
	f, s := &c.file, c.scan.Facts()
	if f.Streams == 1 {
		f.Format, f.Machine, f.PageSize = s.Format, s.Machine, s.PageSize
	}
	f.ReturnPath = f.ReturnPath || s.ReturnPath
	f.Postcopy = f.Postcopy || s.Postcopy
	f.Rounds += s.Rounds
	f.Sealed = cmp.Or(f.Sealed, s.Sealed)
	f.Lost = cmp.Or(f.Lost, s.Lost)
	if s.Lost == "" && (c.torn || s.Format == "qemu" && !c.sealed) {
		f.CutShort = true
	}
	c.scan, c.sealed, c.ended, c.torn = nil, false, false, false
}
