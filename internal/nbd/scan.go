package nbd

import (
	"context"
	"fmt"
	"io"
)

const (
	// statusSpan is how much of the disk one request for its extents covers.
	// A server may answer for more, but not for 4 GiB or more.
	statusSpan = 1 << 30 // bytes
	// gapMerge is the smallest hole that is not read: reading it costs less
	// than a request more.
	gapMerge = 64 << 10 // bytes
)

// scan is the way through the disk: spans are planned, then asked for, then
// received in any order, then given out in order.
type scan struct {
	started bool
	want    int64 // from where the next call of Next is expected
	planned int64 // up to here runs tell what to read
	runs    []run // to be read, ascending
	store   []run // what runs is cut from

	cookie uint64 // of the last request
	status status
	slots  [depth]slot // those from head to tail are under way, or received
	head   uint64
	tail   uint64
	lent   bool   // the one at head is with the caller
	out    []byte // requests not yet sent
}

// run is a part of the disk that may hold data.
type run struct{ start, end int64 }

// slot is one read.
type slot struct {
	cookie uint64
	off    int64
	len    int    // bytes asked for
	got    int    // bytes received
	buf    []byte // for the largest read, in whole pages; nil until used
	done   bool
	err    error // what the server says instead
}

// status is a request for extents; there is one at a time.
type status struct {
	busy   bool
	cookie uint64
	off    int64
	len    int64
	told   bool
	err    error
}

// Next gives the first span at or after from that may hold data; it may begin
// before from, if the server's blocks do. Its offset and length are multiples
// of 4 KiB; what lies behind the end of the disk is zero. data is valid until
// the next call. The spans that follow are asked for already. io.EOF says that
// the rest of the disk is zero.
func (c *Client) Next(ctx context.Context, from int64) (off int64, data []byte, err error) {
	err = c.during(ctx, func() (err error) {
		off, data, err = c.next(from)
		return err
	})
	if err == nil && data == nil {
		err = io.EOF
	}
	return off, data, err
}

// next gives no data at the end.
func (c *Client) next(from int64) (int64, []byte, error) {
	s := &c.scan
	if s.lent {
		s.head++
		s.lent = false
	}
	if !s.started || from != s.want {
		if err := c.seek(from - from%c.align); err != nil {
			return 0, nil, err
		}
	}
	for {
		if err := c.ahead(); err != nil {
			return 0, nil, err
		}
		if s.head == s.tail && !s.status.busy {
			s.want = c.Size()
			return 0, nil, nil
		}
		if sl := &s.slots[s.head%depth]; s.head < s.tail && sl.done {
			return c.lend(sl)
		}
		if err := c.receive(); err != nil {
			return 0, nil, err
		}
	}
}

func (c *Client) lend(sl *slot) (int64, []byte, error) {
	if sl.err != nil {
		return 0, nil, fmt.Errorf("reading %d bytes at %d: %w", sl.len, sl.off, sl.err)
	}
	n := wholePages(int64(sl.len))
	clear(sl.buf[sl.len:n])
	c.scan.lent = true
	c.scan.want = sl.off + n
	return sl.off, sl.buf[:n], nil
}

func wholePages(n int64) int64 { return (n + pageSize - 1) / pageSize * pageSize }

// seek begins anew at off. What is under way has to arrive first.
func (c *Client) seek(off int64) error {
	s := &c.scan
	for s.status.busy || s.head < s.tail {
		if s.head < s.tail && s.slots[s.head%depth].done {
			s.head++
		} else if err := c.receive(); err != nil {
			return err
		}
	}
	s.started, s.want, s.planned, s.runs = true, off, min(off, c.Size()), nil
	return nil
}

// ahead asks for as much as may be under way.
func (c *Client) ahead() error {
	s := &c.scan
	for s.tail-s.head < depth && (len(s.runs) > 0 || c.plan()) {
		r := &s.runs[0]
		c.read(r.start, int(min(r.end-r.start, c.most)))
		if r.start += c.most; r.start >= r.end {
			s.runs = s.runs[1:]
		}
	}
	if len(s.out) == 0 {
		return nil
	}
	err := c.send(s.out)
	s.out = s.out[:0]
	return err
}

func (c *Client) read(off int64, n int) {
	s := &c.scan
	s.cookie++
	sl := &s.slots[s.tail%depth]
	s.tail++
	if sl.buf == nil {
		sl.buf = make([]byte, min(maxSpan, wholePages(c.Size())))
	}
	*sl = slot{cookie: s.cookie, off: off, len: n, buf: sl.buf}
	s.out = request(s.out, commandRead, s.cookie, off, n)
}

// plan finds more to read, or asks the server where that is, and tells whether
// there is some now.
func (c *Client) plan() bool {
	s := &c.scan
	if s.planned >= c.Size() || s.status.busy {
		return false
	}
	if !c.hasContext {
		s.runs = []run{{s.planned, c.Size()}}
		s.planned = c.Size()
		return true
	}
	s.cookie++
	n := min(statusSpan, c.Size()-s.planned)
	s.status = status{busy: true, cookie: s.cookie, off: s.planned, len: n}
	s.out = request(s.out, commandBlockStatus, s.cookie, s.planned, int(n))
	return false
}
