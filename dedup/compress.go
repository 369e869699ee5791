package dedup

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/longhaul-project/longhaul/dedup/fold"
	"github.com/longhaul-project/longhaul/dedup/press"
	"github.com/longhaul-project/longhaul/dedup/record"
)

// Codec says how batches are compressed.
type Codec uint8

// The codecs.
const (
	Auto Codec = iota // zstd 1: 5 per cent more bytes than zstd 3, 2/3 of its CPU time (bench/results)
	Raw
	LZ4
	Zstd
	Press // dedup/press: 9 to 16 per cent less than zstd 11, for five times its CPU time, and as much to expand
	Fold  // dedup/fold: 4 to 8 per cent less than zstd 11, for a quarter of its CPU time, and as much to expand
)

// Setting is how much is done to save bytes. The zero value is Auto.
type Setting struct {
	Codec Codec
	// Level of zstd as its command line counts; zero means 1. The library has
	// four: from 1, 3, 6 and 10 on.
	Level int
	// Bases is how many pages a page may be put together from, 1 to 4; zero
	// means 4. With NoSearch a page is compared with the one before at its
	// address and with the one that came next, and no other is looked for.
	Bases int
	// Anchors is how dense the places are by which bases are found: one of 128
	// bytes, 256 or 512; zero means 128. Under any of them a page finds those
	// that were kept under the others, by the places that both have.
	Anchors int
}

// NoSearch is a number of Bases. Pages that are sent under it are found as bases
// of others later on, once they are compressed.
const NoSearch = -1

// String is the setting in words: "zstd-3, 4 bases".
func (s Setting) String() string {
	var codec string
	switch s.Codec {
	case Raw:
		codec = "raw"
	case LZ4:
		codec = "lz4"
	case Press:
		codec = "press"
	case Fold:
		codec = "fold"
	default:
		codec = fmt.Sprintf("zstd-%d", max(s.Level, 1))
	}
	n := s.bases()
	if n == 0 {
		return codec + ", no search"
	}
	words := fmt.Sprintf("%s, %d bases", codec, n)
	if n == 1 {
		words = codec + ", 1 base"
	}
	switch s.leastAnchor() {
	case rareMark:
		words += " by few anchors"
	case sparseMark:
		words += " by fewest anchors"
	}
	return words
}

// bases is how many bases a page may have; 0 when none is to be looked for.
func (s Setting) bases() int {
	switch {
	case s.Bases < 0:
		return 0
	case s.Bases == 0:
		return record.MaxBases
	}
	return min(s.Bases, record.MaxBases)
}

// leastAnchor is the least hash of an anchor.
func (s Setting) leastAnchor() uint64 {
	switch {
	case s.Anchors >= 512:
		return sparseMark
	case s.Anchors >= 256:
		return rareMark
	}
	return anchorMark
}

// level is that of zstd, for what zstd compresses.
func (s Setting) level() int {
	if s.Codec == Fold {
		return strongLevel
	}
	return s.Level
}

// BestCores is how many cores compress with a level of 10 or more at once:
// each takes 34 MiB for its tables, of other levels 4 MiB at most.
const BestCores = 2

const (
	// minColumn is the size in bytes below which a column is sent as it is.
	minColumn = 48
	// worth is the share of a column that compression must save, 1/32 or
	// about 3 per cent: below it the receiver's time is worth more.
	worth = 32
	// foldLeast is the size in bytes below which a column does not pay for the tables of
	// dedup/fold, 240 KB that are made anew for it: from here on zstd 7 takes about as long, and
	// leaves more (fold-2026-11-27b.txt).
	foldLeast = 512
)

// zstdWindow covers a whole column: batches are closed at 1 MiB of
// literals at most, and reach more only with opaque bytes.
const zstdWindow = 1 << 20

// compressors are what a store's encoders share: a few compressors for each
// level, reused by all batches.
type compressors struct {
	lz4   sync.Pool // of *lz4.Compressor
	mu    sync.Mutex
	zstds map[zstd.EncoderLevel]*zstd.Encoder // safe for concurrent EncodeAll
}

// zstd is the compressor of a level.
func (c *compressors) zstd(level int) (*zstd.Encoder, error) {
	l := zstd.EncoderLevelFromZstd(max(level, 1))
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.zstds[l]; e != nil {
		return e, nil
	}
	cores := runtime.GOMAXPROCS(0)
	if l == zstd.SpeedBestCompression {
		cores = min(cores, BestCores)
	}
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(l),
		zstd.WithEncoderConcurrency(cores),
		zstd.WithEncoderCRC(false), // the batch has a digest
		zstd.WithWindowSize(zstdWindow),
		zstd.WithSingleSegment(true))
	if err != nil {
		return nil, fmt.Errorf("making a zstd compressor of level %d: %w", level, err)
	}
	if c.zstds == nil {
		c.zstds = make(map[zstd.EncoderLevel]*zstd.Encoder)
	}
	c.zstds[l] = e
	return e, nil
}

// column compresses one column, of no more than room bytes with Press. The part
// borrows from col, or is appended to scratch, which is returned.
func (c *compressors) column(col, scratch []byte, set Setting, room int) (record.Part, []byte, error) {
	if len(col) == 0 {
		return record.Part{}, scratch, nil
	}
	raw := record.Part{Codec: record.Raw, Size: len(col), Data: col}
	if len(col) < minColumn || set.Codec == Raw {
		return raw, scratch, nil
	}
	start, codec := len(scratch), record.Zstd
	switch {
	case set.Codec == LZ4:
		codec = record.LZ4
		scratch = c.appendLZ4(scratch, col)
	case set.Codec == Fold && len(col) >= foldLeast:
		codec = record.Fold
		scratch = appendFold(scratch, col)
	default:
		e, err := c.zstd(set.level())
		if err != nil {
			return record.Part{}, scratch, err
		}
		scratch = e.EncodeAll(col, scratch)
	}
	if set.Codec == Press && len(col) <= room && pays(scratch[start:], col) { // noise is not worth trying
		codec = record.Press
		scratch = appendPress(scratch[:start], col)
	}
	if !pays(scratch[start:], col) {
		return raw, scratch[:start], nil
	}
	return record.Part{Codec: codec, Size: len(col), Data: scratch[start:]}, scratch, nil
}

// pays tells whether compressing a column was worth it.
func pays(coded, col []byte) bool { return len(coded) > 0 && len(coded) < len(col)-len(col)/worth }

// presses recycles presses, of 4 MB each, for both ends.
var presses = sync.Pool{New: func() any { return press.New() }}

// appendPress appends a block of dedup/press.
func appendPress(b, col []byte) []byte {
	p := presses.Get().(*press.Press)
	defer presses.Put(p)
	return p.Append(b, col)
}

// expandPress fills room.
func expandPress(room, block []byte) error {
	p := presses.Get().(*press.Press)
	defer presses.Put(p)
	return p.Expand(room, block)
}

// folds recycles folds, of 240 KB each, for both ends.
var folds = sync.Pool{New: func() any { return fold.New() }}

// appendFold appends a block of dedup/fold.
func appendFold(b, col []byte) []byte {
	f := folds.Get().(*fold.Fold)
	defer folds.Put(f)
	return f.Append(b, col)
}

// expandFold fills room.
func expandFold(room, block []byte) error {
	f := folds.Get().(*fold.Fold)
	defer folds.Put(f)
	return f.Expand(room, block)
}

// appendLZ4 appends one LZ4 block, or nothing if it would not be shorter.
func (c *compressors) appendLZ4(b, col []byte) []byte {
	z, _ := c.lz4.Get().(*lz4.Compressor)
	if z == nil {
		z = new(lz4.Compressor)
	}
	defer c.lz4.Put(z)
	start := len(b)
	b = grow(b, len(col))
	// An error means that the block did not fit into less than col.
	n, err := z.CompressBlock(col, b[start:start+len(col)-1])
	if err != nil {
		n = 0
	}
	return b[:start+n]
}

// grow makes room for n more bytes and returns b at its old length plus n.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		b = append(make([]byte, 0, max(2*cap(b), len(b)+n)), b...)
	}
	return b[:len(b)+n]
}

// unzstd expands frames; it holds no state between calls. A frame may not
// fill more than the column's stated size, and no window is larger than a
// message may be (klauspost/compress issue 727).
var unzstd = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderMaxMemory(record.MaxRaw),
		zstd.WithDecoderMaxWindow(record.MaxRaw),
		zstd.WithDecodeAllCapLimit(true))
})

// expand appends the bytes of a column to dst, which has room for them.
func expand(dst []byte, p record.Part) ([]byte, error) {
	start := len(dst)
	room := dst[start : start : start+p.Size]
	var err error
	switch p.Codec {
	case record.Raw:
		return append(dst, p.Data...), nil
	case record.LZ4:
		var n int
		n, err = lz4.UncompressBlock(p.Data, room[:p.Size])
		room = room[:max(n, 0)]
	case record.Zstd:
		var d *zstd.Decoder
		if d, err = unzstd(); err == nil {
			room, err = d.DecodeAll(p.Data, room)
		}
	case record.Press:
		room = room[:p.Size]
		err = expandPress(room, p.Data)
	case record.Fold:
		room = room[:p.Size]
		err = expandFold(room, p.Data)
	}
	if err != nil {
		return dst, fmt.Errorf("expanding %d bytes of %s: %w", len(p.Data), p.Codec, err)
	}
	if len(room) != p.Size {
		return dst, fmt.Errorf("expanding %d bytes of %s: made %d, not %d", len(p.Data), p.Codec, len(room), p.Size)
	}
	return dst[:start+p.Size], nil
}
