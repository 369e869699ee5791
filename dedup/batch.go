package dedup

import (
	"fmt"
	"sync"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// Size of a batch. 128 pages of literals compress within 2 per cent of one
// long stream (reduction.md, 7-9); 2 MiB of known content take a receiver
// about 2 ms. Settings that take their time anyway have larger batches, which
// save 1 per cent. With an item more all stay below what record allows.
const (
	fullLiterals = 512 << 10 // bytes that are compressed
	fullRaw      = 2 << 20   // bytes of stream
	fullItems    = 8192

	strongLevel    = 6 // of zstd; with it or more:
	strongLiterals = 1 << 20
	strongRaw      = 3 << 20
)

// BatchSize is how many bytes to compress, or how many bytes of stream, make a
// batch full under s.
func (s Setting) BatchSize() (plain, raw int) {
	if s.Codec == Press || s.Codec == Fold || s.Codec == Zstd && s.Level >= strongLevel {
		return strongLiterals, strongRaw
	}
	return fullLiterals, fullRaw
}

// Batch is a span of stream, encoded. The fields are constant once it is cut,
// but for Stats.Wire, which Compress sets.
type Batch struct {
	Seq     uint64    // 1, 2, 3... on its channel
	Raw     int       // bytes of stream
	Mark    page.Mark // Seal: its first item has it. Hold: all its items have it
	Setting Setting   // how it is encoded and compressed
	Stats   Counts

	enc  *Encoder
	msg  record.Message
	bufs *buffers // nil once compressed

	once   sync.Once // guards digest
	digest [record.DigestSize]byte
	link   *link
}

// buffers are the columns of a batch and the stream that it stands for.
type buffers struct {
	raw, ops, deltas, literals, opaque []byte
	scratch                            []byte // compressed columns

	strays []stray

	steps   []step // of a batch that is decoded, and
	sources []source
}

// A stray is a page in full for which nobody has searched, so that its anchors
// are not known yet.
type stray struct {
	page  handle
	place int // of its bytes in literals
}

// bufferPool recycles buffers, about 4 MiB each, between batches.
var bufferPool = sync.Pool{New: func() any { return new(buffers) }}

func (f *buffers) reset() {
	f.raw, f.ops, f.deltas = f.raw[:0], f.ops[:0], f.deltas[:0]
	f.literals, f.opaque, f.scratch = f.literals[:0], f.opaque[:0], f.scratch[:0]
	f.strays = f.strays[:0]
	clear(f.sources) // segments
	f.steps, f.sources = f.steps[:0], f.sources[:0]
}

// plain is how many bytes there are to compress.
func (f *buffers) plain() int64 {
	return int64(len(f.ops) + len(f.deltas) + len(f.literals) + len(f.opaque))
}

// full reports whether the batch should be cut.
func (b *Batch) full() bool {
	f := b.bufs
	plain, raw := b.Setting.BatchSize()
	return len(f.literals)+len(f.opaque) >= plain || len(f.raw) >= raw ||
		b.msg.Items >= fullItems || b.Mark&page.Flush != 0
}

// sum is the digest of the batch's bytes. It is made outside of the serial
// path, by Compress, unless somebody asks before.
func (b *Batch) sum() [record.DigestSize]byte {
	b.once.Do(func() { b.digest = digestOf(b.bufs.raw, &b.msg) })
	return b.digest
}

// chain gives the batch its place behind those before it.
func (b *Batch) chain(before *link) *link {
	b.link = &link{before: before, batch: b}
	return b.link
}

// Digest is the digest over all bytes of the channel up to the end of the batch.
// Any goroutine may call it. It costs little once this batch and those before it
// are compressed, and else what is missing of their digests.
func (b *Batch) Digest() Digest { return b.link.sum() }

// Compress makes the message to send. It may be called once, by any
// goroutine, while the encoder goes on. The message belongs to the caller.
func (b *Batch) Compress() ([]byte, error) {
	if b.bufs == nil {
		panic("dedup: batch compressed twice")
	}
	if b.Raw > record.MaxRaw {
		return nil, fmt.Errorf("batch %d: %d bytes, over %d: an item was larger than page.MaxItem", b.Seq, b.Raw, record.MaxRaw)
	}
	b.msg.Digest = b.sum()
	b.anchor()
	f := b.bufs
	var err error
	cols := [record.Columns][]byte{f.ops, f.deltas, f.literals, f.opaque}
	room := record.MaxPress // for press, which the largest column needs most
	for _, i := range []record.Column{record.Literals, record.Opaque, record.Deltas, record.Ops} {
		p := &b.msg.Parts[i]
		if *p, f.scratch, err = b.enc.store.compressors.column(cols[i], f.scratch, b.Setting, room); err != nil {
			return nil, fmt.Errorf("batch %d: %w", b.Seq, err)
		}
		if p.Codec == record.Press {
			room -= p.Size
		}
	}
	out := b.msg.Append(make([]byte, 0, b.msg.Len()))
	b.Stats.Wire = int64(len(out))
	b.enc.wire.Add(int64(len(out)))
	b.msg.Parts = [record.Columns]record.Part{}
	b.link.sum() // by now others have compressed what is before, and the chain need not keep it
	b.bufs = nil
	f.reset()
	bufferPool.Put(f)
	return out, nil
}

// anchor notes the anchors of pages that were not searched for. They are looked
// for here, where any core can do it: such a setting is chosen because the
// serial step is short of time, and what comes later is to find these pages.
func (b *Batch) anchor() {
	var a anchors
	for _, s := range b.bufs.strays {
		a.find(b.bufs.literals[s.place:], b.Setting.leastAnchor())
		b.enc.store.anchors.put(&a, s.page)
	}
}
