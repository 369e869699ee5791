package dedup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

// A Summary tells a peer what this site has that the two do not hold in common:
// 48 bits of each page, under the key of the two stores. The peer then sends a
// hash for such a page, and asks nobody before. A summary travels in parts:
//
//	| Magic (4) "LHsm" | Version (1) = 1 | Flags (1) |
//	| Hint (6) of each page, MaxHints at most |
//
//	Flags  bit 0 Anew: forget all that was said before
//	       bit 1 Busy: more is coming soon
//
// A wrong hint costs the page's channel a round trip; a missing one, bandwidth.
type Summary struct {
	Anew, Busy bool
	hints      []hint
}

// hint is 48 bits of a page's fingerprint under a key.
type hint uint64

const (
	hintBits  = 48
	hintBytes = hintBits / 8
)

// MaxHints bounds the pages of one part: 384 KiB.
const MaxHints = 64 << 10

const (
	summaryMagic   = 0x4c48736d // "LHsm"
	summaryVersion = 1
	summaryHeader  = 4 + 1 + 1

	flagAnew = 1
	flagBusy = 2
)

// errSummary is the reason of all refusals.
var errSummary = errors.New("malformed summary")

// Append appends the encoding of m to b.
func (m *Summary) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, summaryMagic)
	flags := byte(0)
	if m.Anew {
		flags |= flagAnew
	}
	if m.Busy {
		flags |= flagBusy
	}
	b = append(b, summaryVersion, flags)
	for _, h := range m.hints {
		b = binary.BigEndian.AppendUint16(b, uint16(h>>32))
		b = binary.BigEndian.AppendUint32(b, uint32(h))
	}
	return b
}

// ParseSummary reads a part of a summary, which is all of b.
func ParseSummary(b []byte) (m Summary, err error) {
	if len(b) < summaryHeader {
		return m, fmt.Errorf("%w: cut short after %d bytes", errSummary, len(b))
	}
	if binary.BigEndian.Uint32(b) != summaryMagic {
		return m, fmt.Errorf("%w: first bytes %x", errSummary, b[:4])
	}
	if b[4] != summaryVersion || b[5] > flagAnew|flagBusy {
		return m, fmt.Errorf("%w: version %d, flags %#x; this gateway knows version %d", errSummary, b[4], b[5], summaryVersion)
	}
	m.Anew, m.Busy = b[5]&flagAnew != 0, b[5]&flagBusy != 0
	b = b[summaryHeader:]
	if len(b)%hintBytes != 0 || len(b) > MaxHints*hintBytes {
		return m, fmt.Errorf("%w: %d bytes of hints", errSummary, len(b))
	}
	if len(b) > 0 {
		m.hints = make([]hint, 0, len(b)/hintBytes)
	}
	for ; len(b) > 0; b = b[hintBytes:] {
		m.hints = append(m.hints, hint(binary.BigEndian.Uint16(b))<<32|hint(binary.BigEndian.Uint32(b[2:])))
	}
	return m, nil
}

// Len is the number of pages that m tells of.
func (m *Summary) Len() int { return len(m.hints) }

// Hints adds pages of these fingerprints to m, for the peer of s.
func (s *Store) Hints(m *Summary, sums []uint64) {
	for _, h := range sums {
		m.hints = append(m.hints, s.key.hint(h))
	}
}

// Heard names what was heard of the peer's summary so far. It changes when that
// is not believed any more: then the peer has to tell all of it again.
func (s *Store) Heard() uint64 {
	s.hints.mu.Lock()
	defer s.hints.mu.Unlock()
	return s.hints.life
}

// Hear takes a part of the peer's summary.
func (s *Store) Hear(m Summary) {
	if m.Anew {
		s.hints.forget()
	}
	s.hints.add(m.hints)
}

// hints is the set of pages that the peer has from elsewhere. Looking into it
// takes no lock, for every new page does; adding belongs to one goroutine.
type hints struct {
	table atomic.Pointer[[]atomic.Uint64] // hints with bit 63 set; open addressed

	mu    sync.Mutex // guards what follows, and changes of table
	most  int        // hints that are kept; 0: DefaultHints
	n     int
	wrong int // claims that the peer could not find since the last forget
	life  uint64
}

const (
	// DefaultHints is the most pages that a summary is heard of: 8 GiB of
	// images, in at most 48 MiB of memory.
	DefaultHints = 2 << 20

	// maxWrong is how many claims may be wrong before the summary is not
	// believed any more. The peer may have lost a disk, or a guest may have made
	// pages for that.
	maxWrong = 64

	present = 1 << 63
)

// place is where to look for h first.
func (x *hints) place(table []atomic.Uint64, h hint) int {
	i, _ := bits.Mul64(uint64(h)*0x9e3779b97f4a7c15, uint64(len(table)))
	return int(i)
}

// has tells whether h was added.
func (x *hints) has(h hint) bool {
	t := x.table.Load()
	if t == nil {
		return false
	}
	table := *t
	for i := x.place(table, h); ; i = (i + 1) % len(table) {
		switch table[i].Load() {
		case 0:
			return false
		case uint64(h) | present:
			return true
		}
	}
}

func (x *hints) add(all []hint) {
	x.mu.Lock()
	defer x.mu.Unlock()
	most := x.most
	if most == 0 {
		most = DefaultHints
	}
	all = all[:min(len(all), max(most-x.n, 0))]
	if len(all) == 0 {
		return
	}
	var old []atomic.Uint64
	if t := x.table.Load(); t != nil {
		old = *t
	}
	if need := (x.n + len(all)) * 3 / 2; need > len(old) {
		grown := make([]atomic.Uint64, max(2*need, 1024))
		x.n = 0
		for i := range old {
			if v := old[i].Load(); v != 0 {
				x.put(grown, hint(v&^present))
			}
		}
		for _, h := range all {
			x.put(grown, h)
		}
		x.table.Store(&grown)
		return
	}
	for _, h := range all {
		x.put(old, h)
	}
}

func (x *hints) put(table []atomic.Uint64, h hint) {
	for i := x.place(table, h); ; i = (i + 1) % len(table) {
		switch table[i].Load() {
		case uint64(h) | present:
			return
		case 0:
			table[i].Store(uint64(h) | present)
			x.n++
			return
		}
	}
}

func (x *hints) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.table.Store(nil)
	x.n, x.wrong = 0, 0
}

// failed is told that the peer could not find a page that it has told of.
func (x *hints) failed() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.wrong++; x.wrong > maxWrong {
		x.table.Store(nil)
		x.n, x.wrong = 0, 0
		x.life++
	}
}

func (x *hints) len() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.n
}
