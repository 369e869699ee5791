package inspect

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/internal/page"
)

// ErrChanged means that Longhaul did not give back what it was given, which
// must never happen.
var ErrChanged = errors.New("the decoded stream is not the capture")

// A pair is the stores of two sites that send to each other.
type pair struct{ near, far *dedup.Store }

func newPair(memory int64) *pair {
	c := dedup.Config{Budget: memory}
	return &pair{near: dedup.NewStore(c), far: dedup.NewStore(c)}
}

// A reducer carries a stream from one store to the other, as two gateways do,
// and counts what crosses.
type reducer struct {
	stores *pair
	enc    *dedup.Encoder
	dec    *dedup.Decoder

	pending []byte // given to enc, and not yet compared with what dec says
	decoded []byte
	wire    int64 // bytes of messages
	raw     int64 // bytes that came out as they went in
}

func (p *pair) newReducer(level int) *reducer {
	return &reducer{
		stores: p,
		enc:    p.near.NewEncoder(dedup.EncoderConfig{Setting: dedup.Setting{Codec: dedup.Zstd, Level: level}}),
		dec:    p.far.NewDecoder(dedup.DecoderConfig{}),
	}
}

// close ends the channel; the stores keep what it sent.
func (r *reducer) close() {
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
			if err := r.ship(); err != nil {
				return err
			}
		}
	}
	if c.last {
		return r.ship()
	}
	return nil
}

// ship carries all batches across that the encoder has.
func (r *reducer) ship() error {
	for b := r.enc.Cut(); b != nil; b = r.enc.Cut() {
		msg, err := b.Compress()
		if err != nil {
			return err
		}
		r.wire += int64(len(msg))
		x, err := dedup.Expand(msg)
		if err != nil {
			return fmt.Errorf("decoding: %w", err)
		}
		if r.decoded, _, err = r.dec.Decode(r.decoded[:0], x); err != nil {
			return fmt.Errorf("decoding: %w", err)
		}
		if err := r.compare(); err != nil {
			return err
		}
		r.enc.Acked(b.Seq)
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
