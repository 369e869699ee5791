// Package pages makes the content of a guest's pages as a pure function of
// seed, index and version, so that a lost, stale, torn or swapped page is
// found after a move, and not only a flipped bit.
//
// Its six kinds are mixed such that a stream of them reduces about as much as
// that of a real guest: an easier mix would flatter every figure that is
// measured with it, a harder one would slander. Of the pages that are not zero,
// zstd -1 leaves 33 % and zstd -3 28 % (of a small Debian server 30 and 27 %, of
// a tiny guest 34 and 34 %). The kinds come in runs of 16 pages, as files and
// heaps do.
//
// A version is a number of full rewrites and, since the last of these, a
// number of sparse ones, each of which changes a few words.
package pages

import "encoding/binary"

// Size of a page in bytes.
const Size = 4096

// Kind is what a page looks like.
type Kind uint8

// The kinds, from what costs nothing to carry to what cannot be reduced.
const (
	Zero   Kind = iota // nothing
	Copy               // one of Shared pages of code, as shared libraries are
	Text               // log lines
	Heap               // pointers, small numbers, short strings
	Code               // instructions with skewed frequencies
	Random             // keys, compressed files
	Kinds  int  = iota // how many there are
)

func (k Kind) String() string {
	return [...]string{"zero", "copy", "text", "heap", "code", "random"}[k]
}

// Shared is the number of different pages of kind Copy.
const Shared = 128

// shares of the kinds in a hundred runs.
func shares() [Kinds]int {
	return [Kinds]int{Zero: 18, Copy: 8, Text: 18, Heap: 28, Code: 22, Random: 6}
}

// run is the number of neighbouring pages of one kind.
const run = 16

// Version counts the rewrites of a page: full ones above, sparse ones in the
// low sparseBits.
type Version uint32

const sparseBits = 6

// Full is the version after a full rewrite of v.
func (v Version) Full() Version { return (v>>sparseBits + 1) << sparseBits }

// Sparse is the version after a sparse rewrite of v; when there have been 63
// of them it is a full one.
func (v Version) Sparse() Version { return v + 1 }

func (v Version) split() (full uint64, sparse int) {
	return uint64(v >> sparseBits), int(v & (1<<sparseBits - 1))
}

// Source makes pages of one seed. It is read-only after New and safe for
// concurrent use.
type Source struct {
	seed    uint64
	phrases [64][24]byte  // for Text
	opcodes [256]opcode   // for Code
	idioms  [256][32]byte // for Code: sequences that recur
	words   [64]uint64    // for Heap
	deal    [100]Kind     // kinds by share
	skew    [256]uint8    // maps a uniform byte to a skewed one
}

// New makes the source of a seed.
func New(seed uint64) *Source {
	s := &Source{seed: seed}
	s.tables(rng(mix(seed, 0x7461626c)))
	return s
}

// Hard makes a source of which every page is Random: what carries it waits for the line,
// and not for a processor that looks for something to reduce.
func Hard(seed uint64) *Source {
	s := New(seed)
	for i := range s.deal {
		s.deal[i] = Random
	}
	return s
}

// Kind of the page at index, as it is in even full versions; a page of kind
// Zero is Text in the odd ones.
func (s *Source) Kind(index uint64) Kind {
	return s.deal[mix(s.seed^0x6b696e64, index/run)%100]
}

// Fill writes the page at index in version v to dst, which has Size bytes.
func (s *Source) Fill(dst []byte, index uint64, v Version) {
	dst = dst[:Size]
	full, sparse := v.split()
	s.base(dst, index, full)
	for n := 1; n <= sparse; n++ {
		s.edit(dst, index, full, n)
	}
	s.stamp(dst, index, v)
}

// Rewrite turns page, which is index in version v-1, into version v. It is
// Fill in fewer steps where v is a sparse rewrite.
func (s *Source) Rewrite(page []byte, index uint64, v Version) {
	full, sparse := v.split()
	if sparse == 0 {
		s.Fill(page, index, v)
		return
	}
	s.edit(page, index, full, sparse)
	s.stamp(page, index, v)
}

// Stamp reads the index and version that a page claims to be. A page that was
// never rewritten sparsely and is of kind Zero or Copy claims nothing: ok is
// false.
func Stamp(page []byte) (index uint64, v Version, ok bool) {
	if binary.LittleEndian.Uint32(page[Size-4:]) != stampMagic {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(page[Size-16:]), Version(binary.LittleEndian.Uint32(page[Size-8:])), true
}

// stampMagic marks the last 16 bytes of a page as its index and version.
const stampMagic = 0x6c68_7067

// stamp signs a page, unless it has to be equal to others.
func (s *Source) stamp(page []byte, index uint64, v Version) {
	full, sparse := v.split()
	if k := s.kindAt(index, full); sparse == 0 && (k == Zero || k == Copy) {
		return
	}
	binary.LittleEndian.PutUint64(page[Size-16:], index)
	binary.LittleEndian.PutUint32(page[Size-8:], uint32(v))
	binary.LittleEndian.PutUint32(page[Size-4:], stampMagic)
}

func (s *Source) kindAt(index, full uint64) Kind {
	k := s.Kind(index)
	if k == Zero && full%2 == 1 {
		return Text
	}
	return k
}

// base writes a full version.
func (s *Source) base(dst []byte, index, full uint64) {
	r := rng(mix(mix(s.seed, index), full))
	switch s.kindAt(index, full) {
	case Zero:
		clear(dst)
	case Copy:
		shared := rng(mix(s.seed^0x73686172, mix(index, full)%Shared))
		s.code(dst, &shared)
	case Text:
		s.text(dst, &r)
	case Heap:
		s.heap(dst, &r)
	case Code:
		s.code(dst, &r)
	case Random:
		random(dst, &r)
	}
}

// edit is the n-th sparse rewrite of a full version: eight words, two of them
// neighbours, as a lock and a counter would be.
func (s *Source) edit(page []byte, index, full uint64, n int) {
	r := rng(mix(mix(s.seed^0x65646974, index), full<<sparseBits|uint64(n)))
	for range 4 {
		at := r.next() % (Size/8 - 3) * 8
		binary.LittleEndian.PutUint64(page[at:], r.next()>>40)
		binary.LittleEndian.PutUint64(page[at+8:], uint64(n))
	}
}
