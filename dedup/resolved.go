package dedup

import (
	"errors"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// A Resolved batch knows which pages it is made of, and where its own belong. It
// belongs to one goroutine after the other.
type Resolved struct {
	// Raw is the number of bytes of stream that the batch stands for.
	Raw int

	// Constant after Resolve.
	d        *Decoder
	msg      record.Message // without its columns
	wire     int
	added    []span      // slots that it fills
	received []*segment  // pinned until it is rebuilt
	sent     []*segment  // as well
	needs    []*Resolved // batches that fill what it refers to; until it is rebuilt

	// Where added and received begin: most batches fill one segment or two, and refer to few.
	spans [2]span
	few   [4]*segment

	stats Counts

	state   atomic.Int32
	settled chan struct{} // closed once its pages are in their slots, or will never be

	bufs  *buffers
	out   []byte // with its bytes, from start on
	start int
}

// States of a Resolved batch.
const (
	waiting int32 = iota
	working       // it is being rebuilt, or could not be
	rebuilt
	dropped
)

var errClosed = errors.New("the channel was closed")

// Rebuild makes the bytes of the batch and checks them. Any goroutine may call it,
// for many batches at once: one that refers to pages of another waits for that, and
// a batch whose turn came before never waits for this one. After an error the
// channel is lost.
func (r *Resolved) Rebuild() error {
	err := r.rebuild(r.bufs.raw[:0])
	if err == nil {
		r.bufs.raw = r.out
	}
	return err
}

func (r *Resolved) rebuild(dst []byte) error {
	if !r.state.CompareAndSwap(waiting, working) {
		return r.d.fail(r.msg.Seq, errClosed)
	}
	w := r.begin(dst)
	defer desks.Put(w.desk)
	defer r.unpin()
	err := w.run()
	if err != nil {
		err = r.d.fail(r.msg.Seq, err) // before others ask
	}
	close(r.settled)
	if err != nil {
		return err
	}
	if err := w.verify(); err != nil {
		return r.d.fail(r.msg.Seq, err)
	}
	w.hint()
	r.out, r.start, r.needs = w.out, w.start, nil // those would keep all before them
	r.state.Store(rebuilt)
	return nil
}

// wait waits until the pages of the batch are in their slots.
func (r *Resolved) wait() error {
	<-r.settled
	return r.d.failed()
}

// fills tells whether the batch fills a slot of a segment.
func (r *Resolved) fills(g *segment, slot uint32) bool {
	for _, a := range r.added {
		if a.seg == g && a.first <= slot && slot < a.end {
			return true
		}
	}
	return false
}

// unpin lets go of the segments of the batch.
func (r *Resolved) unpin() {
	unpin(r.received, &r.d.store.memory)
	unpin(r.sent, &r.d.store.memory)
}

// drop gives up a batch that nobody will rebuild.
func (r *Resolved) drop() {
	if !r.state.CompareAndSwap(waiting, dropped) {
		return
	}
	r.d.fail(r.msg.Seq, errClosed) // before others ask
	close(r.settled)
	r.unpin()
}

// Take publishes what a batch has added that was rebuilt, and returns its bytes
// and marks. Batches are taken in order. The bytes are good until Release.
func (r *Resolved) Take() (raw []byte, mark page.Mark, err error) {
	d := r.d
	if err := d.failed(); err != nil {
		return nil, 0, err
	}
	if r.state.Load() != rebuilt {
		panic("dedup: batch taken that was not rebuilt")
	}
	for _, a := range r.added {
		a.seg.written.Store(a.end)
		if a.end == record.SegmentPages {
			d.store.received.save(a.seg)
		}
	}
	d.store.count(r.stats)
	if r.msg.Flags&record.Uses != 0 {
		d.store.sent.renew(d.lease, r.msg.PeerFloor)
	}
	d.digest = d.digest.next(r.msg.Digest, r.Raw)
	r.stats.Raw, r.stats.Wire = int64(r.Raw), int64(r.wire)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.flying) == 0 || d.flying[0] != r {
		panic("dedup: batches taken out of order")
	}
	d.flying = append(d.flying[:0], d.flying[1:]...)
	d.stats.Add(r.stats)
	return r.out[r.start:], page.Mark(r.msg.Flags) & (page.Flush | page.Seal | page.Hold), nil
}

// Release gives the buffers of the batch back. It may be called more than once,
// by who has it last.
func (r *Resolved) Release() {
	if f := r.bufs; f != nil {
		f.reset()
		bufferPool.Put(f)
		r.bufs, r.out = nil, nil
	}
}
