package reduction

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/internal/page"
)

// setting is a way to run our path.
type setting struct {
	name  string
	codec dedup.Setting
}

// settings that are measured.
func settings() []setting {
	return []setting{
		{"longhaul fast (zstd-1)", dedup.Setting{Codec: dedup.Zstd, Level: 1, Anchors: 256}},
		{"longhaul default (zstd-3)", dedup.Setting{Codec: dedup.Zstd, Level: 3}},
		{"longhaul strong (zstd-7)", dedup.Setting{Codec: dedup.Zstd, Level: 7}},
		{"longhaul strong (fold)", dedup.Setting{Codec: dedup.Fold}},
		{"longhaul stronger (zstd-11)", dedup.Setting{Codec: dedup.Zstd, Level: 11}},
		{"longhaul thin line (press)", dedup.Setting{Codec: dedup.Press}},
	}
}

// unmeasured is how streams cross that only have to be known: what both ends hold
// then does not depend on the codec.
var unmeasured = dedup.Setting{Codec: dedup.Raw}

// pair is two gateways that know nothing of each other but messages.
type pair struct{ near, far *dedup.Store }

// newPair makes a pair that can keep streams of size bytes: half of a budget is
// for the other direction, and half of the rest is spare, so that nothing is
// evicted.
func newPair(size int) *pair {
	c := dedup.Config{Budget: 4 * int64(size)}
	return &pair{dedup.NewStore(c), dedup.NewStore(c)}
}

// batch is what the serial stage hands to the parallel one.
type batch = *dedup.Batch

// sending is one channel of a pair.
type sending struct {
	row  Row
	enc  *dedup.Encoder
	dec  *dedup.Decoder
	msgs [][]byte
}

// know carries a stream that is not measured, and keeps none of its messages.
func (p *pair) know(stream []byte) error {
	s := p.open(setting{codec: unmeasured})
	defer s.close()
	rest := stream
	err := s.encode(stream, func(b batch) error {
		if err := s.compress(b); err != nil {
			return err
		}
		msg := s.msgs[0]
		s.msgs = s.msgs[:0]
		got, err := s.expand(nil, msg)
		if err == nil && !bytes.HasPrefix(rest, got) {
			err = errDiffers
		}
		if err == nil {
			rest = rest[len(got):]
		}
		return err
	})
	if err == nil && (len(rest) > 0 || s.enc.Digest() != s.dec.Digest()) {
		err = errDiffers
	}
	return err
}

// send carries a stream over a new channel of the pair, compares what arrives
// and tells what it cost.
func (p *pair) send(stream []byte, set setting) (Row, error) {
	s := p.open(set)
	defer s.close()
	s.row.Raw = int64(len(stream))
	var compress time.Duration
	var err error
	s.row.Encode, err = spent(func() error {
		return s.encode(stream, func(b batch) error {
			start := processor()
			err := s.compress(b)
			compress += processor() - start
			return err
		})
	})
	if err != nil {
		return s.row, fmt.Errorf("encoding: %w", err)
	}
	s.row.Serial = s.row.Encode - compress
	var comparing time.Duration
	s.row.Decode, err = spent(func() (err error) {
		comparing, err = s.decode(stream)
		return err
	})
	s.row.Decode -= comparing
	if err != nil {
		return s.row, fmt.Errorf("decoding: %w", err)
	}
	c := s.enc.Stats()
	s.row.Pages = &Pages{Zero: c.Zero, Refs: c.Refs, Deltas: c.Deltas, Literals: c.Literals}
	return s.row, nil
}

func (p *pair) open(set setting) *sending {
	return &sending{
		dec: p.far.NewDecoder(dedup.DecoderConfig{}),
		enc: p.near.NewEncoder(dedup.EncoderConfig{Setting: set.codec, PeerReady: true}),
		row: Row{Method: set.name},
	}
}

func (s *sending) close() {
	s.enc.Close()
	s.dec.Close()
}

// encode is steps 2 and 3: it hands every batch of the stream to f.
func (s *sending) encode(stream []byte, f func(batch) error) (err error) {
	cut := func() {
		for b := s.enc.Cut(); b != nil; b = s.enc.Cut() {
			if err == nil {
				err = f(b)
			}
		}
	}
	items(stream, func(it page.Item) {
		if err == nil && s.enc.Add(it) {
			cut()
		}
	})
	cut()
	return err
}

// compress is step 4, with the acknowledgement that it will earn.
func (s *sending) compress(b batch) error {
	msg, err := b.Compress()
	if err != nil {
		return err
	}
	s.keep(b, msg)
	return nil
}

func (s *sending) keep(b batch, msg []byte) {
	s.row.Left += int64(len(msg))
	s.msgs = append(s.msgs, msg)
	s.enc.Acked(b.Seq)
}

var errDiffers = errors.New("the rebuilt stream is not the stream that was sent")

// decode is step 7, for all messages. It tells what comparing has cost.
func (s *sending) decode(stream []byte) (comparing time.Duration, err error) {
	var buf []byte
	for _, msg := range s.msgs {
		if buf, err = s.expand(buf[:0], msg); err != nil {
			return 0, err
		}
		start := processor()
		if len(buf) > len(stream) || !bytes.Equal(buf, stream[:len(buf)]) {
			return 0, errDiffers
		}
		stream = stream[len(buf):]
		comparing += processor() - start
	}
	if len(stream) > 0 || s.enc.Digest() != s.dec.Digest() {
		return 0, errDiffers
	}
	return comparing, nil
}

// expand appends to b what a message stands for.
func (s *sending) expand(b, msg []byte) ([]byte, error) {
	x, err := dedup.Expand(msg)
	if err != nil {
		return nil, err
	}
	b, _, err = s.dec.Decode(b, x)
	return b, err
}

// ours measures our path on a case.
func ours(c Case, set setting) (Row, error) {
	p := newPair(c.before() + len(c.Stream))
	for i, b := range c.Before {
		if err := p.know(b); err != nil {
			return Row{}, fmt.Errorf("stream %d before: %w", i+1, err)
		}
	}
	if c.Home {
		p.near, p.far = p.far, p.near
	}
	row, err := p.send(c.Stream, set)
	row.Case = c.Name
	return row, err
}
