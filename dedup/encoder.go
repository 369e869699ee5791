package dedup

import (
	"sync"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// EncoderConfig of one channel. The zero value works.
type EncoderConfig struct {
	// Setting is how batches are compressed, until SetCodec changes it.
	Setting

	// PeerReady tells that the peer keeps what it once sent to us: it has
	// made its decoder for this channel, or called Keep, before this encoder
	// is made. Then pages that came from the peer (the trip home) are
	// referred to from the first batch on, if the peer's name is known; else
	// from the acknowledgement of the first batch with pages on, a round trip later.
	PeerReady bool
}

// An Encoder turns the items of one channel into batches. It belongs to one
// goroutine, but for Acked, SetCodec and Stats.
type Encoder struct {
	store *Store

	// Owned by the goroutine that adds.
	sent, received pins
	versions       versions
	course         course
	differ         differ
	bases          bases
	lastTable      table
	scratch        [page.Size]byte // of content
	patched        [page.Size]byte // a page that the stream has in part
	diff           []byte          // of makes
	gap            int             // bytes that stood before the last page that ahead has found
	run            record.Op       // gathered, not yet written; Count 0: none
	seg            *segment        // being filled, nil if there is none
	segSure        bool            // seg is pinned by this batch
	shelfFull      bool            // there was no room; not asked again in this batch
	wants          bool            // batches tell that they may refer to the peer's own pages
	using          bool            // this batch may
	hurry          bool            // this batch is the first to tell of wants
	seq            uint64
	batch          *Batch   // being gathered, nil if nothing is
	ready          []*Batch // cut by a change of marks, waiting for Cut; two at most
	last           *link    // of the last batch
	cut            Counts

	mayUse atomic.Bool  // the peer keeps what it sent for us
	wire   atomic.Int64 // bytes of messages

	mu      sync.Mutex // guards what follows
	set     Setting
	unacked []unacked
	asked   uint64 // first batch that told of wants, 0 if none
	stats   Counts // as of the last Cut
}

// unacked is a batch that the peer may still have to decode.
type unacked struct {
	seq   uint64
	floor uint64 // announced by it
	holds []hold
}

// hold is a segment that a batch refers to or adds to.
type hold struct {
	seg    *segment
	filled uint32 // slots of an own segment that are filled after the batch, else 0
}

// NewEncoder makes the encoder of one channel.
func (s *Store) NewEncoder(c EncoderConfig) *Encoder {
	e := &Encoder{
		store:    s,
		sent:     pins{shelf: s.sent, encoder: true},
		received: pins{shelf: s.received},
		set:      c.Setting,
	}
	e.mayUse.Store(c.PeerReady)
	return e
}

// SetCodec changes how the batches from the next one on are compressed.
func (e *Encoder) SetCodec(s Setting) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.set = s
}

// Add takes the next item of the stream; it borrows the item during the call
// only. full tells that Cut should be called now, until it returns nil:
// enough has gathered, the item must leave at once, or the item may not share
// a batch with those before it.
//
// A batch never holds items with Hold and without, and an item with Seal
// begins one.
func (e *Encoder) Add(it page.Item) (full bool) {
	if b := e.batch; b != nil && (it.Mark&page.Seal != 0 || (it.Mark^b.Mark)&page.Hold != 0) {
		e.close()
		full = true
	}
	if e.batch == nil {
		e.begin(it.Mark)
	}
	b := e.batch
	b.Mark |= it.Mark & page.Flush
	b.bufs.raw = append(append(b.bufs.raw, it.Head...), it.Data...)
	e.item(it)
	return b.full() || e.hurry || full
}

// item encodes one item.
func (e *Encoder) item(it page.Item) {
	if it.Addr.Space == 0 || it.Addr.Offset%page.Size != 0 {
		it.Addr = page.Addr{}
	}
	if len(it.Head) > record.MaxHead {
		e.bytes(it.Head)
		it.Head = nil
	}
	switch {
	case it.Kind == page.Full && len(it.Data) == page.Size:
		e.page(it)
	case it.Kind == page.Zero && len(it.Data) == 1 && it.Data[0] == 0:
		e.batch.Stats.Pages++
		e.batch.Stats.Zero++
		e.versions.cleared(it.Addr)
		e.emit(record.Op{Kind: record.Zero}, it)
	case it.Kind == page.XBZRLE:
		e.difference(it)
	case it.Kind == page.Chunk:
		e.bytes(it.Head)
		e.chunk(it.Data)
	case it.Kind == page.Table:
		e.bytes(it.Head)
		e.table(it.Data)
	default:
		e.bytes(it.Head)
		e.bytes(it.Data)
	}
}

// begin starts a batch.
func (e *Encoder) begin(m page.Mark) {
	e.mu.Lock()
	set := e.set
	e.mu.Unlock()
	e.seq++
	e.batch = &Batch{Seq: e.seq, Mark: m & (page.Seal | page.Hold), Setting: set, enc: e, bufs: bufferPool.Get().(*buffers)}
	m2 := &e.batch.msg
	m2.Seq, m2.Store = e.seq, e.store.id
	m2.Peer = e.store.peer.Load()
	m2.PeerFloor = e.store.received.floor.Load()
	e.using = e.mayUse.Load() && m2.Peer != 0
	e.wants = e.wants || e.using
	e.segSure, e.shelfFull = false, false
}

// close ends the batch that is being gathered.
func (e *Encoder) close() {
	e.flush()
	b := e.batch
	e.batch, e.hurry = nil, false
	b.Raw = len(b.bufs.raw)
	b.Stats.Raw, b.Stats.Plain = int64(b.Raw), b.bufs.plain()
	b.msg.Raw = b.Raw
	b.msg.Flags = record.Flags(b.Mark)
	if e.wants && b.msg.Peer != 0 {
		b.msg.Flags |= record.Uses
	} else {
		e.mayUse.Store(false) // the peer keeps nothing for this channel until it is asked to again
	}
	e.received.release()
	e.cut.Add(b.Stats)
	e.store.count(b.Stats)
	e.hold(b)
	e.ready = append(e.ready, b)
	e.last = b.chain(e.last)
}

// hold keeps what the batch refers to until the peer has decoded it, and
// publishes what it added.
func (e *Encoder) hold(b *Batch) {
	b.msg.Floor = e.store.sent.floor.Load()
	u := unacked{seq: b.Seq, floor: b.msg.Floor, holds: make([]hold, 0, len(e.sent.list))}
	for _, g := range e.sent.list {
		h := hold{seg: g}
		if g.owner == e {
			h.filled = g.filled
			g.written.Store(g.filled)
			if g.filled == record.SegmentPages {
				e.store.sent.save(g)
			}
		}
		u.holds = append(u.holds, h)
	}
	e.sent.end() // the holds go to unacked
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unacked = append(e.unacked, u)
	if b.msg.Flags&record.Uses != 0 && e.asked == 0 {
		e.asked = b.Seq
	}
	e.stats = e.cut
}

// Asks tells that there are pages that came from the peer, to which the encoder does
// not refer before the peer has decoded the batch that asks it to keep them, see
// EncoderConfig.PeerReady. That batch has been cut.
func (e *Encoder) Asks() bool {
	e.mu.Lock()
	asked := e.asked > 0
	e.mu.Unlock()
	return asked && !e.mayUse.Load() && e.store.received.any()
}

// Pending is the number of bytes of stream gathered and not yet cut.
func (e *Encoder) Pending() int {
	n := 0
	for _, b := range e.ready {
		n += b.Raw
	}
	if e.batch != nil {
		n += len(e.batch.bufs.raw)
	}
	return n
}

// Cut is the next batch to send, or nil when nothing is pending.
func (e *Encoder) Cut() *Batch {
	if len(e.ready) == 0 {
		if e.batch == nil {
			return nil
		}
		e.close()
	}
	b := e.ready[0]
	e.ready = append(e.ready[:0], e.ready[1:]...)
	return b
}

// Acked tells that the peer has decoded all batches up to seq. Their pages may
// be referred to by other channels from now on. Any goroutine may call it.
func (e *Encoder) Acked(seq uint64) {
	floor := e.acked(seq)
	if floor > 0 {
		e.store.sent.learn(floor)
	}
}

// acked lets go of the batches up to seq and returns the highest floor that
// they announced.
func (e *Encoder) acked(seq uint64) (floor uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for ; n < len(e.unacked) && e.unacked[n].seq <= seq; n++ {
		u := &e.unacked[n]
		for _, h := range u.holds {
			if h.filled > 0 {
				h.seg.acked.Store(h.filled)
			}
			h.seg.unpin(&e.store.memory)
		}
		floor = u.floor
	}
	if n > 0 && e.asked > 0 && e.asked <= seq {
		e.mayUse.Store(true)
	}
	e.unacked = append(e.unacked[:0], e.unacked[n:]...)
	return floor
}

// Digest is the digest over all batches cut.
func (e *Encoder) Digest() Digest { return e.last.sum() }

// Stats sums up the batches cut so far; Wire counts those compressed. Any
// goroutine may call it.
func (e *Encoder) Stats() Counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.stats
	c.Wire = e.wire.Load()
	return c
}

// Close forgets what was not acknowledged: it will not be referred to. After
// it only Acked, Digest and Stats may be called, and Compress of batches cut.
func (e *Encoder) Close() {
	if e.seg != nil && e.seg.pin(false) { // nothing more comes into it
		e.store.sent.save(e.seg)
		e.seg.unpin(&e.store.memory)
	}
	e.received.release()
	e.sent.release()
	if e.batch != nil {
		e.batch = nil
		e.seg = nil
	}
	e.ready = nil
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, u := range e.unacked {
		for _, h := range u.holds {
			h.seg.unpin(&e.store.memory)
		}
	}
	e.unacked = nil
}
