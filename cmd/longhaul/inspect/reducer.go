package inspect

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/internal/page"
)

// ErrChanged means that Longhaul did not give back what it was given, which
// must never happen.
var ErrChanged = errors.New("the decoded stream is not the capture")

// A pair is the stores of two sites that send to each other.
type pair struct {
	near, far *dedup.Store
	held      bool // they began with what a store on disk holds
}

func newPair(memory int64) *pair {
	c := dedup.Config{Budget: memory}
	return &pair{near: dedup.NewStore(c), far: dedup.NewStore(c)}
}

func (p *pair) close() {
	p.near.Close()
	p.far.Close()
}

// A reducer carries a stream from one store to the other, as two gateways do,
// and counts what crosses.
type reducer struct {
	stores *pair
	method string
	enc    *dedup.Encoder
	dec    *dedup.Decoder

	most    int       // batches that may be in flight
	flight  []*flying // in order
	pending []byte    // given to enc, and not yet compared with what dec says
	decoded []byte
	wire    int64 // bytes of messages
	raw     int64 // bytes that came out as they went in
}

// mostFlying bounds the batches of one reducer that are compressed at once. Each
// takes some 8 MiB until it is decoded.
const mostFlying = 16

func (p *pair) newReducer(set setting) *reducer {
	r := &reducer{stores: p, method: set.method}
	var c dedup.DecoderConfig
	if p.held { // else nothing can be lost
		c.Fetch = r.fetch
	}
	r.dec = p.far.NewDecoder(c)
	r.enc = p.near.NewEncoder(dedup.EncoderConfig{Setting: set.codec, PeerReady: p.held})
	if set.codec.Codec == dedup.Press { // all else waits for it, and leaves it the cores
		r.most = min(runtime.GOMAXPROCS(0), mostFlying)
	}
	return r
}

// fetch gives the decoder pages that it has lost, since whoever uses the store has removed
// them from disk meanwhile. They cross in full.
func (r *reducer) fetch(w dedup.Wanted) ([]byte, error) {
	b, err := r.stores.near.Pages(w)
	if err != nil {
		return nil, fmt.Errorf("the content store has changed while it was looked at: %w", err)
	}
	r.wire += int64(len(b))
	return b, nil
}

// close ends the channel; the stores keep what it sent.
func (r *reducer) close() {
	for _, f := range r.flight { // after an error
		<-f.landed
	}
	r.enc.Close()
	r.dec.Close()
}

func (r *reducer) write(c *chunk) error {
	for _, it := range c.items {
		r.pending = append(append(r.pending, it.Head...), it.Data...)
		// A file has all its bytes at hand, so nothing is in a hurry, as
		// in a gateway that is busy.
		it.Mark &^= page.Flush
		if r.enc.Add(it) {
			if err := r.ship(r.most); err != nil {
				return err
			}
		}
	}
	if c.last {
		return r.ship(0)
	}
	return nil
}

// A flying batch is compressed and expanded beside others. batch is constant, the rest
// belongs to the reducer once landed is closed.
type flying struct {
	batch  *dedup.Batch
	landed chan struct{}
	size   int // bytes of its message
	x      *dedup.Expanded
	err    error
}

func (f *flying) fly() {
	defer close(f.landed)
	var msg []byte
	if msg, f.err = f.batch.Compress(); f.err != nil {
		return
	}
	f.size = len(msg)
	if f.x, f.err = dedup.Expand(msg); f.err != nil {
		f.err = fmt.Errorf("decoding: %w", f.err)
	}
}

// ship sends all batches on their way that the encoder has, and waits until no more
// than most of them are in flight.
func (r *reducer) ship(most int) error {
	for b := r.enc.Cut(); b != nil; b = r.enc.Cut() {
		f := &flying{batch: b, landed: make(chan struct{})}
		if r.flight = append(r.flight, f); r.most > 1 {
			go f.fly()
		} else {
			f.fly()
		}
		if err := r.land(r.most); err != nil {
			return err
		}
	}
	return r.land(most)
}

// land takes in the batches that were sent first, until no more than most are left.
func (r *reducer) land(most int) error {
	for len(r.flight) > most {
		f := r.flight[0]
		<-f.landed
		r.flight = append(r.flight[:0], r.flight[1:]...)
		if f.err != nil {
			return f.err
		}
		r.wire += int64(f.size)
		var err error
		if r.decoded, _, err = r.dec.Decode(r.decoded[:0], f.x); err != nil {
			return fmt.Errorf("decoding: %w", err)
		}
		if err := r.compare(); err != nil {
			return err
		}
		r.enc.Acked(f.batch.Seq)
	}
	return nil
}

// compare checks the bytes of a batch.
func (r *reducer) compare() error {
	n := len(r.decoded)
	if n > len(r.pending) || !bytes.Equal(r.decoded, r.pending[:n]) {
		return fmt.Errorf("%w: in the batch from byte %d on", ErrChanged, r.raw)
	}
	r.raw += int64(n)
	r.pending = append(r.pending[:0], r.pending[n:]...)
	return nil
}
