package frag

import (
	"fmt"
	"slices"
	"time"
)

// Timeout is how long the parts of a frame may be apart. It is well over the
// reordering of any WAN, and shorter than the 2 s in which the 16 bits of the
// ID wrap at 33 000 frames a second, the most that datagrams carry.
const Timeout = 500 * time.Millisecond

// MaxHeld bounds the bytes of unfinished frames of one peer. At 500 Mbit/s and
// with parts 1 ms apart there are about 64 KiB on their way.
const MaxHeld = 64 << 10

// maxOpen bounds the number of unfinished frames of one peer, so that parts of
// one byte cannot make us keep much. 64 KiB are 54 halves of full frames.
const maxOpen = 128

// Reassembler puts the frames of one peer together. It belongs to one
// goroutine and is told the time. The zero value is ready.
type Reassembler struct {
	held  int // bytes in all open frames
	open  map[uint16]*partial
	order []*partial // open frames and finished ones among them, oldest first
	free  [][]byte
	spare []*partial
	out   []byte // the frame returned last
	lost  uint64
}

type partial struct {
	head  Header
	since time.Time
	parts [MaxParts][]byte
	got   int // parts here
	bytes int
	done  bool
}

// Lost counts the frames that were given up because a part was missing.
func (r *Reassembler) Lost() uint64 { return r.lost }

// Held tells how many bytes wait for the rest of their frame.
func (r *Reassembler) Held() int { return r.held }

// Add takes one part, which it borrows, and returns the frame when it is
// whole, else nil. The frame is valid until the next Add.
func (r *Reassembler) Add(now time.Time, h Header, part []byte) ([]byte, error) {
	if len(part) == 0 || len(part) > MaxFrame {
		return nil, fmt.Errorf("part of %d bytes: %w", len(part), ErrFormat)
	}
	if h.Parts == 1 {
		return part, nil
	}
	r.expire(now)
	p := r.open[h.ID]
	if p != nil && !p.same(h) {
		r.drop(p) // the ID has wrapped, or the peer lies
		p = nil
	}
	if p == nil {
		p = r.begin(now, h)
	}
	if p.parts[h.Part] != nil {
		return nil, nil // the network has doubled it
	}
	if p.bytes+len(part) > MaxFrame {
		r.drop(p)
		return nil, fmt.Errorf("frame over %d bytes: %w", MaxFrame, ErrFormat)
	}
	p.parts[h.Part] = append(r.buffer(), part...)
	p.got++
	p.bytes += len(part)
	r.held += len(part)
	if p.got < int(p.head.Parts) {
		r.shrink(p)
		return nil, nil
	}
	return r.finish(p)
}

func (p *partial) same(h Header) bool {
	h.Part = p.head.Part
	return p.head == h
}

func (r *Reassembler) begin(now time.Time, h Header) *partial {
	if r.open == nil {
		r.open = make(map[uint16]*partial)
	}
	if len(r.order) > 2*len(r.open)+2*MaxParts {
		r.compact() // one late frame must not make us keep all that came after it
	}
	var p *partial
	if n := len(r.spare); n > 0 {
		p, r.spare = r.spare[n-1], r.spare[:n-1]
	} else {
		p = new(partial)
	}
	*p = partial{head: h, since: now}
	r.open[h.ID] = p
	r.order = append(r.order, p)
	return p
}

// compact takes finished frames out of the order.
func (r *Reassembler) compact() {
	kept := r.order[:0]
	for _, p := range r.order {
		if !p.done {
			kept = append(kept, p)
		} else {
			r.keepSpare(p)
		}
	}
	clear(r.order[len(kept):])
	r.order = kept
}

// finish joins the parts in r.out, if they are cut as they ought to be.
func (r *Reassembler) finish(p *partial) ([]byte, error) {
	size := len(p.parts[0])
	r.out = r.out[:0]
	for i, part := range p.parts[:p.head.Parts] {
		last := i == int(p.head.Parts)-1
		if len(part) > size || (!last && len(part) != size) {
			r.drop(p)
			return nil, fmt.Errorf("part %d of %d bytes after parts of %d: %w", i, len(part), size, ErrFormat)
		}
		r.out = append(r.out, part...)
	}
	r.release(p)
	return r.out, nil
}

// expire gives up the frames whose rest is late.
func (r *Reassembler) expire(now time.Time) {
	r.trim(func(p *partial) bool { return now.Sub(p.since) > Timeout })
}

// shrink gives up the oldest frames, but not keep, until the bounds are met.
func (r *Reassembler) shrink(keep *partial) {
	if r.held > MaxHeld || len(r.open) > maxOpen {
		r.trim(func(p *partial) bool { return p != keep && (r.held > MaxHeld || len(r.open) > maxOpen) })
	}
}

// trim takes the oldest frames out of the order for as long as they are done,
// or late tells to give them up.
func (r *Reassembler) trim(late func(*partial) bool) {
	n := 0
	for ; n < len(r.order) && (r.order[n].done || late(r.order[n])); n++ {
		if !r.order[n].done {
			r.drop(r.order[n])
		}
		r.keepSpare(r.order[n])
	}
	r.order = slices.Delete(r.order, 0, n)
}

func (r *Reassembler) keepSpare(p *partial) {
	if len(r.spare) < 2*MaxParts {
		r.spare = append(r.spare, p)
	}
}

func (r *Reassembler) drop(p *partial) {
	r.lost++
	r.release(p)
}

func (r *Reassembler) release(p *partial) {
	p.done = true
	r.held -= p.bytes
	for i, part := range p.parts {
		if part != nil && len(r.free) < 2*MaxParts { // a few frames' worth
			r.free = append(r.free, part)
		}
		p.parts[i] = nil
	}
	if r.open[p.head.ID] == p {
		delete(r.open, p.head.ID)
	}
}

func (r *Reassembler) buffer() []byte {
	if n := len(r.free); n > 0 {
		b := r.free[n-1]
		r.free = r.free[:n-1]
		return b[:0]
	}
	return make([]byte, 0, 1500) // a datagram is not longer
}
