package stream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// readBuffer holds the longest frame with its header, and of usual ones as many as
// a packet or two of the line bring. Each stream has one.
const readBuffer = 16 << 10

// A Reader takes frames off a stream. It holds readBuffer bytes, whatever comes.
type Reader struct {
	r     *bufio.Reader
	begun bool
	held  int // bytes of the frame that was given out last
}

// NewReader makes a Reader of a stream from its beginning on.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, readBuffer)} }

// Next waits for the next frame, which belongs to the Reader and is valid until
// the next call. io.EOF: the stream has ended behind a whole frame.
func (r *Reader) Next() (Header, []byte, error) {
	_, _ = r.r.Discard(r.held) // of what has been peeked at: cannot fail
	r.held = 0
	if !r.begun {
		b, err := r.r.Peek(BeginLen)
		if err != nil {
			return Header{}, nil, cutOff(b, err)
		}
		n, err := ParseBegin(b)
		if err != nil {
			return Header{}, nil, err
		}
		_, _ = r.r.Discard(n) // likewise
		r.begun = true
	}
	b, err := r.r.Peek(HeaderLen)
	if err != nil {
		return Header{}, nil, cutOff(b, err)
	}
	h, n, err := Parse(b)
	if err != nil {
		return Header{}, nil, err
	}
	if b, err = r.r.Peek(n + h.Len); err != nil {
		return Header{}, nil, cutOff(b, err)
	}
	r.held = n + h.Len
	return h, b[n:], nil
}

// cutOff is why only b is there of what should be.
func cutOff(b []byte, err error) error {
	switch {
	case errors.Is(err, io.EOF) && len(b) == 0:
		return io.EOF
	case errors.Is(err, io.EOF):
		return ErrShort
	}
	return fmt.Errorf("reading frames: %w", err)
}
