package dedup

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// A delta makes a page out of up to four base pages: bytes to insert and ranges
// to copy in turn, until the page is full. Several bases stand one behind the
// other, as one base of several pages.
//
//	| insert (uv) | copy<<1|new (uv) | diagonal (uv, zigzag, only if new) | insert | ...
//
// The inserted bytes are in the column Literals. The diagonal is the place in
// the base less the place in the page, 0 at first; it stays until a new one
// is told. Numbers as measured in reduction.md, 6, but for minCopy, where 8 leave half a
// per cent more of a VM that comes back (bench/results/back-with-disk-2026-11-27.txt).
const (
	minCopy = 12 // shortest copy on a diagonal in use, in bytes
	minJump = 32 // shortest copy that is worth a new diagonal, in bytes

	// patience is how many bytes without a copy are looked at one by one. Then
	// every third is: three and eight have no divisor in common, so a stretch
	// that is in the base is met at an aligned word within 24 bytes.
	patience = 32

	// A base is tried when fewer 8-byte words than this differ, of 512, for
	// a page of another meaning costs 18 us to find that out and then loses
	// against plain compression.
	maxDiffering = 256

	// maxDeltaOps bounds the instructions of one page in bytes; one that
	// needs more is nearly noise.
	maxDeltaOps = 1024

	// maxBase is the size of all bases of one page in bytes.
	maxBase = record.MaxBases * page.Size
	// maxInsert bounds the bytes inserted in one page: what copies less than
	// 128 bytes is no version of its bases.
	maxInsert = page.Size * 31 / 32
)

// words that a base is indexed by.
const (
	wordBits  = 13 // of the table: 8192 places for 2048 words
	wordBytes = 8
)

// A differ makes deltas. It belongs to one goroutine.
type differ struct {
	table  [1 << wordBits]uint16 // place of an aligned word in base plus one, by its hash
	shift  uint                  // of a hash, to its place: smaller bases use less of the table
	filled bool
	used   int // bytes of base up to the end of the last one copied
}

// differing counts the 8-byte words in which a and b, pages, differ, and
// stops at limit.
func differing(a, b []byte, limit int) int {
	a, b = a[:page.Size], b[:page.Size]
	n := 0
	for i := 0; i < page.Size; i += 64 {
		x, y := a[i:i+64:i+64], b[i:i+64:i+64]
		for j := 0; j < 64; j += 8 {
			d := binary.LittleEndian.Uint64(x[j:]) ^ binary.LittleEndian.Uint64(y[j:])
			n += int((d | -d) >> 63)
		}
		if n >= limit {
			return n
		}
	}
	return n
}

// make appends the delta from base to target to ops and lits. ok is false,
// and nothing is appended, when the page is not worth one.
func (d *differ) make(ops, lits, base, target []byte) (ops2, lits2 []byte, ok bool) {
	d.filled, d.used = false, 0
	ops0, lits0 := len(ops), len(lits)
	diagonal, insert, pos := 0, 0, 0 // insert: where the bytes not yet written begin
	for pos+minCopy <= page.Size {
		at, from, n := d.find(base, target, pos, insert, diagonal)
		if n == 0 {
			pos++
			if pos-insert > patience {
				pos += 2
			}
			continue
		}
		d.used = max(d.used, from+n)
		lits = append(lits, target[insert:at]...)
		ops = binary.AppendUvarint(ops, uint64(at-insert))
		if from-at == diagonal {
			ops = binary.AppendUvarint(ops, uint64(n)<<1)
		} else {
			diagonal = from - at
			ops = binary.AppendUvarint(ops, uint64(n)<<1|1)
			ops = binary.AppendVarint(ops, int64(diagonal))
		}
		pos, insert = at+n, at+n
		if len(ops)-ops0 > maxDeltaOps || len(lits)-lits0 > maxInsert {
			return ops[:ops0], lits[:lits0], false
		}
	}
	if insert < page.Size {
		lits = append(lits, target[insert:]...)
		ops = binary.AppendUvarint(ops, uint64(page.Size-insert))
	}
	if len(lits)-lits0 > maxInsert {
		return ops[:ops0], lits[:lits0], false
	}
	return ops, lits, true
}

// find looks for a copy that covers pos: on the diagonal in use, straight
// down, or wherever the word at pos is in base. It may begin earlier, but
// not before insert. n is 0 when there is none.
func (d *differ) find(base, target []byte, pos, insert, diagonal int) (at, from, n int) {
	word := binary.LittleEndian.Uint64(target[pos:])
	for _, g := range [2]int{diagonal, 0} {
		from := pos + g
		if from >= 0 && from+wordBytes <= len(base) && binary.LittleEndian.Uint64(base[from:]) == word {
			if n := wordBytes + matching(target[pos+wordBytes:], base[from+wordBytes:]); n >= minCopy {
				return pos, from, n
			}
		}
	}
	if !d.filled {
		d.fill(base)
	}
	from = int(d.table[wordHash(word)>>d.shift]) - 1
	if from < 0 || binary.LittleEndian.Uint64(base[from:]) != word {
		return 0, 0, 0
	}
	n = wordBytes + matching(target[pos+wordBytes:], base[from+wordBytes:])
	for pos > insert && from > 0 && target[pos-1] == base[from-1] {
		pos, from, n = pos-1, from-1, n+1
	}
	if n < minJump {
		return 0, 0, 0
	}
	return pos, from, n
}

// fill indexes the aligned words of base, zero ones excepted: they are
// everywhere.
func (d *differ) fill(base []byte) {
	size := 1 << wordBits
	for size >= len(base) { // four places a word
		size /= 2
	}
	d.shift = uint(64 - bits.Len(uint(size)-1))
	clear(d.table[:size])
	for i := 0; i < len(base); i += wordBytes {
		if w := binary.LittleEndian.Uint64(base[i:]); w != 0 {
			d.table[wordHash(w)>>d.shift] = uint16(i + 1)
		}
	}
	d.filled = true
}

func wordHash(w uint64) uint64 { return w * 0x9e3779b97f4a7c15 }

// matching is the number of bytes that a and b have in common at their start.
func matching(a, b []byte) int {
	n := min(len(a), len(b))
	a, b = a[:n], b[:n]
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

var errDelta = errors.New("malformed delta")

// patch appends the page that the delta at the start of ops makes of base, one
// page or more, to dst. It returns what is left of ops and lits.
func patch(dst, ops, lits, base []byte) (dst2, ops2, lits2 []byte, err error) {
	diagonal, left := 0, page.Size
	for {
		n, size := binary.Uvarint(ops)
		if size <= 0 || n > uint64(left) || n > uint64(len(lits)) {
			return dst, ops, lits, errDelta
		}
		dst = append(dst, lits[:n]...)
		ops, lits, left = ops[size:], lits[n:], left-int(n)
		if left == 0 {
			return dst, ops, lits, nil
		}
		c, size := binary.Uvarint(ops)
		if size <= 0 || c>>1 == 0 || c>>1 > uint64(left) {
			return dst, ops, lits, errDelta
		}
		ops = ops[size:]
		if c&1 == 1 {
			g, size := binary.Varint(ops)
			if size <= 0 || g <= -page.Size || g >= int64(len(base)) {
				return dst, ops, lits, errDelta
			}
			ops, diagonal = ops[size:], int(g)
		}
		from := page.Size - left + diagonal
		if from < 0 || from+int(c>>1) > len(base) {
			return dst, ops, lits, errDelta
		}
		dst = append(dst, base[from:from+int(c>>1)]...)
		if left -= int(c >> 1); left == 0 {
			return dst, ops, lits, nil
		}
	}
}
