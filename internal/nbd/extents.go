package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// statusChunk takes an answer to the request for extents.
func (c *Client) statusChunk(st *status, h header) error {
	var err error
	switch {
	case h.kind == chunkNone && h.len == 0 && h.flags&chunkDone != 0:
	case h.kind == chunkBlockStatus && h.len >= 12 && (h.len-4)%8 == 0 && h.len <= 4+8*maxExtents && !st.told:
		st.told = true
		err = c.extents(st, int(h.len-4)/8)
	case h.kind&chunkIsError != 0:
		st.err, err = c.serverError(h)
	default:
		err = errors.New("it cannot answer a request for extents")
	}
	if err != nil || h.flags&chunkDone == 0 {
		return err
	}
	return c.planned()
}

// extents reads n of them and makes runs of those that may hold data.
func (c *Client) extents(st *status, n int) error {
	var b [8]byte
	if err := c.full(b[:4]); err != nil {
		return err
	}
	if id := binary.BigEndian.Uint32(b[:]); id != c.context {
		return fmt.Errorf("extents of context %d; want %d", id, c.context)
	}
	s := &c.scan
	s.runs = s.store[:0]
	pos := st.off
	for range n {
		if err := c.full(b[:]); err != nil {
			return err
		}
		length, state := int64(binary.BigEndian.Uint32(b[:])), binary.BigEndian.Uint32(b[4:])
		if length == 0 {
			return fmt.Errorf("extent of 0 bytes at %d", pos)
		}
		next := min(pos+length, c.Size()) // the last one may tell more than was asked for
		if state&stateZero == 0 && next > pos {
			c.addRun(pos, next)
		}
		pos = next
	}
	c.settle(st.off, pos)
	s.store = s.runs
	return nil
}

// addRun appends a span to the runs, widened to what may be read.
func (c *Client) addRun(start, end int64) {
	s := &c.scan
	start -= start % c.align
	end = min((end+c.align-1)/c.align*c.align, c.Size())
	if n := len(s.runs); n > 0 && start-s.runs[n-1].end < gapMerge {
		s.runs[n-1].end = max(s.runs[n-1].end, end)
	} else if start < end {
		s.runs = append(s.runs, run{start, end})
	}
}

// settle says that the runs tell all from off to end. They end at a multiple
// of align, or of the disk; a server that told less than that is not asked
// again for it.
func (c *Client) settle(off, end int64) {
	s := &c.scan
	s.planned = end
	if end < c.Size() {
		s.planned -= end % c.align
	}
	if n := len(s.runs); n > 0 {
		s.planned = max(s.planned, s.runs[n-1].end)
	}
	if s.planned <= off {
		c.addRun(off, off+1)
		s.planned = s.runs[len(s.runs)-1].end
	}
}

// planned ends the request for extents. Without an answer all is data, from
// here on for good: the server has told that it knows them and does not.
func (c *Client) planned() error {
	st := &c.scan.status
	st.busy = false
	switch {
	case st.err != nil:
		c.hasContext = false
	case !st.told:
		return fmt.Errorf("no extents in the answer for %d bytes at %d", st.len, st.off)
	}
	return nil
}
