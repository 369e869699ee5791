package dedup

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// ErrMismatch means that the two stores do not hold the same: a page has
// rotten or is missing, or the rebuilt bytes are not those that were sent.
// The channel is lost; its sender should Forget before it tries again.
var ErrMismatch = errors.New("stores differ")

// ErrStore means that a message was made with another store than those before
// it, or for another store than this one: one of the two gateways has started
// anew, and the other has not noticed. Both ends have to begin with new
// stores.
var ErrStore = errors.New("message of another store")

// DecoderConfig of one channel. The zero value works.
type DecoderConfig struct {
	// Fetch asks the peer for pages that have rotten here or are gone. Nil:
	// that ends the channel.
	Fetch Fetch
}

// A Decoder rebuilds the stream of one channel from its batches. It belongs
// to one goroutine, but for Close and Stats.
type Decoder struct {
	cfg            DecoderConfig
	fetched        fetched
	bad            uint64 // segment that was last fetched from, as in fetched
	store          *Store
	received, sent pins // the peer's pages, and our own
	versions       versions
	course         course
	last           table
	seg            *segment                // being filled, nil if there is none
	added          []span                  // by the batch at hand
	anchors        anchors                 // of a page that was added
	scratch        [page.Size]byte         // of a page that is on disk
	patched        [page.Size]byte         // a page that the stream has in part
	diff           []byte                  // that is made here
	open           atomic.Pointer[segment] // seg, for Close
	dict           [maxBase]byte           // of a page with several bases
	seq            uint64                  // of the last batch
	digest         Digest
	err            error // why nothing more is decoded

	lease *lease // on our own pages, which the peer may refer to

	mu    sync.Mutex // guards what follows
	stats Counts
}

// span is the part of a segment that a batch adds: slots from first on.
type span struct {
	seg   *segment
	first uint32
}

// NewDecoder makes the decoder of one channel. From now on the peer may refer
// to pages that we have sent to it; they are kept until Close.
func (s *Store) NewDecoder(c DecoderConfig) *Decoder {
	l := new(lease)
	d := &Decoder{
		cfg:      c,
		store:    s,
		received: pins{shelf: s.received},
		sent:     pins{shelf: s.sent},
		lease:    l,
	}
	s.sent.lease(l)
	// A forgotten Close must not keep pages for ever. Nothing here may hold the
	// store, from which there is a way back to the decoder.
	runtime.AddCleanup(d, (*lease).abandon, l)
	return d
}

// Close tells that no more batches come. Any goroutine may call it, more than
// once.
func (d *Decoder) Close() {
	d.store.sent.release(d.lease)
	if g := d.open.Load(); g != nil && g.pin(false) { // nothing more comes into it
		d.store.received.save(g)
		g.unpin(&d.store.memory)
	}
}

// Digest is the digest over all batches decoded.
func (d *Decoder) Digest() Digest { return d.digest }

// Stats sums up the batches decoded so far. Any goroutine may call it.
func (d *Decoder) Stats() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// Decode appends the bytes that the next batch stands for to dst, and returns
// the longer slice and the batch's marks. It returns no byte before the
// digest over all of them agrees. It takes x. After an error the channel is
// lost: dst comes back as it was, now and on all further calls.
func (d *Decoder) Decode(dst []byte, x *Expanded) (raw []byte, mark page.Mark, err error) {
	defer x.release()
	if d.err != nil {
		return dst, 0, d.err
	}
	if x.bufs == nil {
		panic("dedup: batch decoded twice")
	}
	r := rebuild{d: d, msg: &x.msg, out: slices.Grow(dst, x.Raw), start: len(dst),
		ops: x.bufs.ops, deltas: x.bufs.deltas, literals: x.bufs.literals, opaque: x.bufs.opaque}
	err = d.accept(&x.msg)
	if err == nil {
		err = r.run()
	}
	if err == nil {
		err = r.verify()
	}
	if err != nil {
		d.err = fmt.Errorf("batch %d: %w", x.msg.Seq, err)
	} else {
		d.took(x, &r)
	}
	d.received.release()
	d.sent.release()
	d.added = d.added[:0]
	if d.err != nil {
		return dst, 0, d.err
	}
	return r.out, page.Mark(x.msg.Flags) & (page.Flush | page.Seal | page.Hold), nil
}

// accept checks that the message is the next one of the store that we know,
// and follows the floors that it announces.
func (d *Decoder) accept(m *record.Message) error {
	if m.Seq != d.seq+1 {
		return fmt.Errorf("out of order after batch %d", d.seq)
	}
	s := d.store
	if m.Store == 0 || !s.peer.CompareAndSwap(0, m.Store) && s.peer.Load() != m.Store {
		return fmt.Errorf("%w: made with store %016x, not %016x", ErrStore, m.Store, s.peer.Load())
	}
	s.received.raise(m.Floor)
	if m.Flags&record.Uses == 0 {
		s.sent.suspend(d.lease) // the channel has no use for it yet
		return nil
	}
	if m.Peer != s.id {
		return fmt.Errorf("%w: made for store %016x, this is %016x", ErrStore, m.Peer, s.id)
	}
	s.sent.renew(d.lease, m.PeerFloor)
	return nil
}

// took publishes what a verified batch has added.
func (d *Decoder) took(x *Expanded, r *rebuild) {
	for _, a := range d.added {
		g := a.seg
		for i := a.first; i < g.filled; i++ {
			h := otherShelf | handle((firstNumber(g.id)+uint64(i))&numberMask)
			d.store.index.put(g.sums[i], h)
			d.anchors.find(g.slot(int(i))) // for the trip home
			d.store.anchors.put(&d.anchors, h)
		}
		g.written.Store(g.filled)
		if g.filled == record.SegmentPages {
			d.store.received.save(g)
		}
	}
	d.store.count(r.stats)
	d.seq = x.msg.Seq
	d.digest = d.digest.next(x.msg.Digest, x.Raw)
	r.stats.Raw, r.stats.Wire = int64(x.Raw), int64(x.wire)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Add(r.stats)
}
