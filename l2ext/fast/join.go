package fast

const (
	// joining is how many messages may be incomplete at once: several segments
	// send at the same time, and what a path reorders is near by.
	joining = 4
	// maxSpans is how many parts of a message may be there with holes between
	// them: more than a message has datagrams at MinDatagram.
	maxSpans = 64
)

// A Joiner makes messages of pieces that were sealed with one key: with another, the same
// ids are those of others. It holds at most 4 of MaxMessage bytes; when
// a fifth begins, the oldest is given up. One goroutine uses it at a time.
type Joiner struct {
	slots [joining]joint
	clock uint64
	lost  uint64
}

// A joint is one message that is not complete yet.
type joint struct {
	id    uint32
	used  uint64 // clock of its first piece; 0: it is free
	buf   []byte // of the message's length
	spans []span // what is there, apart from each other
}

type span struct{ from, to int }

// Add takes a piece that Parse has passed. If its message is complete now, it is
// returned; it belongs to the Joiner and is valid until the next Add.
func (j *Joiner) Add(r Record) (msg []byte, err error) {
	s := j.find(r)
	if len(s.buf) != r.Total {
		return nil, ErrFormat
	}
	if err := s.put(span{r.Offset, r.Offset + len(r.Body)}); err != nil {
		return nil, err
	}
	copy(s.buf[r.Offset:], r.Body)
	if len(s.spans) > 1 || s.spans[0] != (span{0, r.Total}) {
		return nil, nil
	}
	s.used = 0
	return s.buf, nil
}

// Lost is how many messages were given up, because pieces were missing.
func (j *Joiner) Lost() uint64 { return j.lost }

// find is the place of a piece's message; a new message takes a free one, or
// that of the oldest.
func (j *Joiner) find(r Record) *joint {
	oldest := &j.slots[0]
	for i := range j.slots {
		s := &j.slots[i]
		if s.used != 0 && s.id == r.ID {
			return s
		}
		if s.used < oldest.used {
			oldest = s
		}
	}
	if oldest.used != 0 {
		j.lost++
	}
	if oldest.buf == nil {
		oldest.buf, oldest.spans = make([]byte, 0, MaxMessage), make([]span, 0, maxSpans)
	}
	j.clock++
	oldest.id, oldest.used, oldest.buf, oldest.spans = r.ID, j.clock, oldest.buf[:r.Total], oldest.spans[:0]
	return oldest
}

// put notes that a span is there. Nothing may come twice, lest a message be
// taken for complete that has a hole.
func (s *joint) put(n span) error {
	kept := s.spans[:0]
	for _, o := range s.spans {
		if n.from < o.to && o.from < n.to {
			return ErrFormat
		}
	}
	for _, o := range s.spans {
		switch {
		case o.to == n.from:
			n.from = o.from
		case n.to == o.from:
			n.to = o.to
		default:
			kept = append(kept, o)
		}
	}
	if len(kept) == maxSpans {
		return ErrFormat
	}
	s.spans = append(kept, n)
	return nil
}
