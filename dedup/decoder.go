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

// A Decoder rebuilds the stream of one channel from its batches. Resolve is its
// ordered half: it belongs to one goroutine, and so does Resolved.Take, which may
// be another one. What costs time, the bytes and their hashes, is between the
// two, and on any core. Decode does all of it where one goroutine is enough.
type Decoder struct {
	// Constant after NewDecoder.
	cfg    DecoderConfig
	store  *Store
	lease  *lease        // on our own pages, which the peer may refer to
	asking chan struct{} // capacity 1: one question at a time, for its answer is often the next one's too

	// Owned by the goroutine that calls Resolve.
	received, sent pins // the peer's pages, and our own
	versions       versions
	course         course
	last           table
	seg            *segment // being filled, nil if there is none
	seq            uint64   // of the last batch

	// Owned by whoever has put a token into asking.
	fetched fetched
	bad     map[uint64]bool // segments that pages were fetched of, by number as in fetched

	open   atomic.Pointer[segment] // seg, for Close
	digest Digest                  // owned by the goroutine that calls Take

	mu     sync.Mutex  // guards what follows
	flying []*Resolved // resolved and not yet taken, in order
	err    error       // why nothing more is decoded
	stats  Counts
}

// span is the part of a segment that a batch adds: slots from first to end.
type span struct {
	seg        *segment
	first, end uint32
}

// NewDecoder makes the decoder of one channel. From now on the peer may refer
// to pages that we have sent to it; they are kept until Close.
func (s *Store) NewDecoder(c DecoderConfig) *Decoder {
	l := new(lease)
	d := &Decoder{
		cfg:      c,
		store:    s,
		received: pins{shelf: s.received, lazy: true},
		sent:     pins{shelf: s.sent, lazy: true},
		lease:    l,
		asking:   make(chan struct{}, 1),
	}
	s.sent.lease(l)
	// A forgotten Close must not keep pages for ever. Nothing here may hold the
	// store, from which there is a way back to the decoder.
	runtime.AddCleanup(d, (*lease).abandon, l)
	return d
}

// Close tells that no more batches come: those that are resolved and not being
// rebuilt are dropped. Any goroutine may call it, more than once.
func (d *Decoder) Close() {
	d.mu.Lock()
	flying := slices.Clone(d.flying)
	d.mu.Unlock()
	for _, r := range flying {
		r.drop()
	}
	d.store.sent.release(d.lease)
	if g := d.open.Load(); g != nil && g.pin(false) { // nothing more comes into it
		d.store.received.save(g)
		g.unpin(&d.store.memory)
	}
}

// Digest is the digest over all batches taken.
func (d *Decoder) Digest() Digest { return d.digest }

// Stats sums up the batches taken so far. Any goroutine may call it.
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
	r, err := d.Resolve(x)
	if err != nil {
		return dst, 0, err
	}
	defer r.Release()
	if err := r.rebuild(dst); err != nil {
		return dst, 0, err
	}
	_, mark, err = r.Take()
	if err != nil {
		return dst, 0, err
	}
	return r.out, mark, nil
}

// fail notes why nothing more is decoded: the first reason counts.
func (d *Decoder) fail(seq uint64, err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = fmt.Errorf("batch %d: %w", seq, err)
	}
	return d.err
}

// failed is why nothing more is decoded; nil if there is no reason.
func (d *Decoder) failed() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
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
	s.sent.renew(d.lease, 0) // Take lets go of what is below PeerFloor: batches before may need it
	return nil
}
