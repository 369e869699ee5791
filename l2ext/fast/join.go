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
	next  *joint // of which all is there up to a point, and the last piece was; nil: of none
	clock uint64
	lost  uint64
}

// A joint is one message that is not complete yet.
type joint struct {
	id    uint32
	used  uint64 // clock of its first piece; 0: it is free
	buf   []byte // of the message's length; behind it there is room for a datagram
	spans []span // what is there, apart from each other
}

type span struct{ from, to int }

// Open opens a datagram, as Opener.Open does. Most begin with the piece that comes
// next: that is opened to where it goes, so that opening is also what copies. If its
// message is complete now, it is returned with its last piece; it belongs to the Joiner and is
// valid until the next Open or Add. The rest of the records are in d.
func (j *Joiner) Open(o *Opener, d []byte) (last Record, msg, rest []byte, err error) {
	s := j.next
	if s == nil || s.end()-pieceLen+len(d)-Overhead > cap(s.buf) {
		rest, err = o.Open(d)
		return last, nil, rest, err
	}
	var kept [pieceLen]byte // the end of the piece before, where the header goes for as long as it takes
	head := s.buf[s.end()-pieceLen : s.end()]
	copy(kept[:], head)
	records, err := o.openTo(head[:0:cap(head)], d)
	r, n := s.expected(records)
	rest = append(d[HeaderLen:HeaderLen], records[n:]...)
	copy(head, kept[:])
	if err != nil {
		return last, nil, nil, err
	}
	if n > 0 {
		s.spans[0].to += len(r.Body)
		msg = j.complete(s)
	}
	return r, msg, rest, nil
}

// expected reads the first of the records if it is the piece that comes next; if it
// is not, its length is 0.
func (s *joint) expected(records []byte) (r Record, n int) {
	r, n, err := Parse(records)
	if err != nil || r.Kind != Piece || r.ID != s.id || r.Total != len(s.buf) || r.Offset != s.end() {
		return Record{}, 0
	}
	return r, n
}

// end is how much is there, of a joint of which that is all from its start.
func (s *joint) end() int { return s.spans[0].to }

// Add takes a piece that Parse has passed. If its message is complete now, it is
// returned; it belongs to the Joiner and is valid until the next Open or Add.
func (j *Joiner) Add(r Record) (msg []byte, err error) {
	j.next = nil
	s := j.find(r)
	if len(s.buf) != r.Total {
		return nil, ErrFormat
	}
	if err := s.put(span{r.Offset, r.Offset + len(r.Body)}); err != nil {
		return nil, err
	}
	copy(s.buf[r.Offset:], r.Body)
	return j.complete(s), nil
}

// complete is the message of a joint, if all of it is there.
func (j *Joiner) complete(s *joint) (msg []byte) {
	j.next = nil
	switch first := s.spans[0]; {
	case len(s.spans) > 1 || first.from > 0:
	case first.to == len(s.buf):
		s.used = 0
		return s.buf
	case first.to >= pieceLen:
		j.next = s
	}
	return nil
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
		oldest.buf, oldest.spans = make([]byte, 0, MaxMessage+MaxDatagram), make([]span, 0, maxSpans)
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
