package tunnel

import (
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	// receiveBuffer is what we ask the kernel for: 64 MiB are half a second at
	// 1 Gbit/s, for receivers that have no processor for a while.
	receiveBuffer = 64 << 20
	// groBatch is how many reads are made at once, and groLen how much one may
	// bring: the kernel joins at most 64 KiB.
	groBatch = 16
	groLen   = 64 << 10
	groOOB   = 128
	// gather is what the reader leaves packets to gather in a stream of them: on a
	// thin line they come one by one, and each would wake the reader, its
	// connection and the sender of an acknowledgement. A stream is gatherAfter reads
	// in a row of several packets or of one of streamLen, none of which waited for
	// long: questions and answers do not wait, however near the other end is.
	gather      = time.Millisecond
	gatherAfter = 32
	streamLen   = 1200
)

// A splitter reads what the kernel has joined (UDP_GRO, udp(7)) and gives it
// out as the packets that they were. One goroutine uses it: quic-go's reader.
type splitter struct {
	read func([]ipv4.Message) (int, error)
	msgs []ipv4.Message
	full int // how many of msgs have been read
	next int // the one that is being given out
	off  int // and how much of it has been
	said notes

	busy int // reads in a row that were of a stream

	dropped *atomic.Uint64 // packets that found the kernel's buffer full
	counted uint32         // of those, by the kernel's count, which begins at 0
}

func newSplitter(read func([]ipv4.Message) (int, error), dropped *atomic.Uint64) *splitter {
	s := &splitter{read: read, msgs: make([]ipv4.Message, groBatch), dropped: dropped}
	for i := range s.msgs {
		s.msgs[i].Buffers = [][]byte{make([]byte, groLen)}
		s.msgs[i].OOB = make([]byte, groOOB)
	}
	return s
}

// packets fills ms with packets, at least one. It reads only when it has none.
func (s *splitter) packets(ms []ipv4.Message) (n int, err error) {
	for s.next == s.full {
		if err := s.refill(); err != nil {
			return 0, err
		}
	}
	for ; n < len(ms) && s.next < s.full; n++ {
		s.give(&ms[n])
	}
	return n, nil
}

// refill reads from the kernel, once there is something.
func (s *splitter) refill() (err error) {
	if s.busy >= gatherAfter && s.full < groBatch {
		time.Sleep(gather)
	}
	began := time.Now()
	s.full, err = s.read(s.msgs)
	s.next, s.off = 0, 0
	if err != nil {
		s.full = 0
		return err
	}
	if (s.full > 1 || s.msgs[0].N >= streamLen) && time.Since(began) <= gather {
		s.busy++
	} else {
		s.busy = 0
	}
	return nil
}

// give puts the next packet into m.
func (s *splitter) give(m *ipv4.Message) {
	from := &s.msgs[s.next]
	if s.off == 0 {
		s.said = readNotes(from.OOB[:from.NN])
		if s.said.dropped != s.counted && s.said.overflows {
			s.dropped.Add(uint64(s.said.dropped - s.counted)) // wraps as the kernel's does
			s.counted = s.said.dropped
		}
	}
	b := from.Buffers[0][s.off:from.N]
	if s.said.segment > 0 && len(b) > s.said.segment {
		b = b[:s.said.segment]
	}
	m.N = copy(m.Buffers[0], b)
	m.NN = copy(m.OOB, from.OOB[:from.NN])
	m.Addr = from.Addr
	m.Flags = from.Flags
	s.off += len(b)
	if s.off >= from.N {
		s.next++
		s.off = 0
	}
}

// notes is what the kernel says of a read.
type notes struct {
	segment   int    // length of the packets that were joined; 0: one packet
	dropped   uint32 // packets that found the buffer full, ever
	overflows bool   // dropped is said
}
