package nbd

import (
	"encoding/binary"
	"fmt"
)

const (
	// maxExtents is the most extents in one reply; it is QEMU's limit.
	maxExtents = 128 << 10
	// maxErrorChunk is the most bytes of an error: a code, a string, an offset.
	maxErrorChunk = 6 + maxName + 8
)

// receive takes one reply, or one chunk of it.
func (c *Client) receive() error {
	var b [4]byte
	if err := c.full(b[:]); err != nil {
		return fmt.Errorf("reading reply: %w", err)
	}
	switch magic := binary.BigEndian.Uint32(b[:]); {
	case magic == magicSimple:
		return c.simple()
	case magic == magicStructured && c.structured:
		return c.chunk()
	default:
		return fmt.Errorf("reply begins with %#08x", magic)
	}
}

func (c *Client) simple() error {
	var b [12]byte
	if err := c.full(b[:]); err != nil {
		return fmt.Errorf("reading simple reply: %w", err)
	}
	code, cookie := binary.BigEndian.Uint32(b[:]), binary.BigEndian.Uint64(b[4:])
	if st := &c.scan.status; st.busy && st.cookie == cookie && code != 0 {
		st.err = &ServerError{Code: code}
		return c.planned()
	}
	sl := c.slot(cookie)
	switch {
	case sl == nil:
		return fmt.Errorf("simple reply to a request %d that waits for none", cookie)
	case code != 0:
		sl.err = &ServerError{Code: code}
	case c.structured:
		return fmt.Errorf("simple reply to read %d; want structured ones", cookie)
	default:
		if err := c.full(sl.buf[:sl.len]); err != nil {
			return fmt.Errorf("reading %d bytes at %d: %w", sl.len, sl.off, err)
		}
	}
	sl.done = true
	return nil
}

// slot finds the read that waits for an answer.
func (c *Client) slot(cookie uint64) *slot {
	s := &c.scan
	for i := s.head; i < s.tail; i++ {
		if sl := &s.slots[i%depth]; sl.cookie == cookie && !sl.done {
			return sl
		}
	}
	return nil
}

// header is that of a structured reply's chunk.
type header struct {
	flags, kind uint16
	cookie      uint64
	len         uint32
}

func (c *Client) chunk() error {
	var b [16]byte
	if err := c.full(b[:]); err != nil {
		return fmt.Errorf("reading structured reply: %w", err)
	}
	h := header{binary.BigEndian.Uint16(b[:]), binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint64(b[4:]),
		binary.BigEndian.Uint32(b[12:])}
	var err error
	if st := &c.scan.status; st.busy && st.cookie == h.cookie {
		err = c.statusChunk(st, h)
	} else if sl := c.slot(h.cookie); sl != nil {
		err = c.readChunk(sl, h)
	} else {
		err = fmt.Errorf("it answers a request %d that waits for nothing", h.cookie)
	}
	if err != nil {
		return fmt.Errorf("structured reply of type %d, %d bytes: %w", h.kind, h.len, err)
	}
	return nil
}

// readChunk takes a part of a read.
func (c *Client) readChunk(sl *slot, h header) error {
	var err error
	switch {
	case h.kind == chunkNone && h.len == 0 && h.flags&chunkDone != 0:
	case h.kind == chunkData && h.len > 8:
		err = c.data(sl, int64(h.len)-8)
	case h.kind == chunkHole && h.len == 12:
		err = c.hole(sl)
	case h.kind&chunkIsError != 0:
		sl.err, err = c.serverError(h)
	default:
		return fmt.Errorf("it cannot answer a read")
	}
	if err != nil || h.flags&chunkDone == 0 {
		return err
	}
	if sl.err == nil && sl.got != sl.len {
		return fmt.Errorf("read of %d bytes at %d ends after %d", sl.len, sl.off, sl.got)
	}
	sl.done = true
	return nil
}

// data takes n bytes of a read.
func (c *Client) data(sl *slot, n int64) error {
	var b [8]byte
	if err := c.full(b[:]); err != nil {
		return err
	}
	p, err := sl.part(binary.BigEndian.Uint64(b[:]), n)
	if err != nil {
		return err
	}
	return c.full(p)
}

// hole takes zero bytes of a read.
func (c *Client) hole(sl *slot) error {
	var b [12]byte
	if err := c.full(b[:]); err != nil {
		return err
	}
	p, err := sl.part(binary.BigEndian.Uint64(b[:]), int64(binary.BigEndian.Uint32(b[8:])))
	clear(p)
	return err
}

// part is where n bytes at off of the disk belong. It counts them, so that all
// of the read has come when the count is its length: parts must not overlap.
func (sl *slot) part(off uint64, n int64) ([]byte, error) {
	at := int64(off) - sl.off
	if off > uint64(sl.off)+uint64(sl.len) || at < 0 || n <= 0 || n > int64(sl.len)-at {
		return nil, fmt.Errorf("%d bytes at %d for a read of %d at %d", n, off, sl.len, sl.off)
	}
	if sl.got += int(n); sl.got > sl.len {
		return nil, fmt.Errorf("%d bytes or more for a read of %d at %d", sl.got, sl.len, sl.off)
	}
	return sl.buf[at : at+n], nil
}

// serverError takes a chunk that says what went wrong: told. err is a fault of
// the chunk.
func (c *Client) serverError(h header) (told, err error) {
	if h.len < 6 || h.len > maxErrorChunk {
		return nil, fmt.Errorf("want 6 to %d bytes of error", maxErrorChunk)
	}
	b := make([]byte, h.len)
	if err := c.full(b); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n > len(b)-6 {
		return nil, fmt.Errorf("message of %d bytes", n)
	}
	return &ServerError{binary.BigEndian.Uint32(b), printable(b[6 : 6+n])}, nil
}
