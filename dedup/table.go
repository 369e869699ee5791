package dedup

import (
	"encoding/binary"
	"fmt"

	"github.com/longhaul-project/longhaul/dedup/record"
)

// maxTable bounds a table in bytes: QEMU's multifd header has 1344, with pages
// of 1 KiB 4416. A longer one travels as bytes.
const maxTable = 8 << 10

// A table is the words of the last page.Table of a channel. What follows it is
// coded as residues: how each word has stepped from the word before it, less the
// step that the last table had there. The offsets of pages in a row step by the
// size of a page in every table, and what a header repeats does not step at all,
// so residues are zeros, which cost nothing once they are compressed.
type table struct {
	words []uint64
}

// code appends the residues of t, whole words, to dst, and remembers t.
func (x *table) code(dst, t []byte) []byte {
	x.resize(len(t) / 8)
	var before, last uint64 // the words before, of this table and of the last one
	for i := range x.words {
		w, old := binary.BigEndian.Uint64(t[8*i:]), x.words[i]
		dst = binary.BigEndian.AppendUint64(dst, w-before-(old-last))
		before, last = w, old
		x.words[i] = w
	}
	return dst
}

// decode turns the residues in t into the table that they stand for, and
// remembers it.
func (x *table) decode(t []byte) {
	x.resize(len(t) / 8)
	var before, last uint64
	for i := range x.words {
		old := x.words[i]
		w := binary.BigEndian.Uint64(t[8*i:]) + before + (old - last)
		binary.BigEndian.PutUint64(t[8*i:], w)
		before, last = w, old
		x.words[i] = w
	}
}

// resize makes the last table n words long; words that it did not have are zero.
func (x *table) resize(n int) {
	for len(x.words) < n {
		x.words = append(x.words, 0)
	}
	clear(x.words[n:])
	x.words = x.words[:n]
}

// table encodes a table.
func (e *Encoder) table(b []byte) {
	if len(b) == 0 || len(b)%8 != 0 || len(b) > maxTable {
		e.bytes(b)
		return
	}
	e.flush()
	e.batch.Stats.Opaque += int64(len(b))
	e.batch.bufs.opaque = e.lastTable.code(e.batch.bufs.opaque, b)
	e.batch.msg.Items++
	e.write(record.Op{Kind: record.Table, Count: len(b)})
}

// table turns the residues of a table into what they stand for, in their column:
// from there on they are bytes.
func (p *resolver) table(n int) error {
	if n%8 != 0 || n > maxTable {
		return fmt.Errorf("table of %d bytes", n)
	}
	b, err := p.take(n)
	if err != nil {
		return err
	}
	p.d.last.decode(b)
	return nil
}
