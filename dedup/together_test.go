package dedup

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestTogether runs moves in both directions at once over one pair of stores,
// with acknowledgements that come late and channels that are aborted. It is
// for the race detector, and every byte is compared.
func TestTogether(t *testing.T) {
	a, b := NewStore(Config{Budget: 16 << 20}), NewStore(Config{Budget: 16 << 20})
	var wg sync.WaitGroup
	for n := range uint64(4) {
		wg.Go(func() {
			mem := newMemory(n%2+1, uint32(n+1), 700)
			for trip := range uint64(4) {
				from, to := a, b
				if (n+trip)%2 == 1 {
					from, to = b, a
				}
				if err := moveOnce(from, to, mem, n*10+trip); err != nil {
					t.Errorf("guest %d, trip %d: %v", n, trip, err)
				}
			}
		})
	}
	wg.Wait()
	sa, sb := a.Stats(), b.Stats()
	if sa.Evicted == 0 || sa.Bytes > sa.Budget || sb.Bytes > sb.Budget {
		t.Errorf("stores %+v, %+v", sa, sb)
	}
}

// parcel is a message and the stream that it stands for.
type parcel struct{ msg, raw []byte }

// moveOnce sends a guest's memory twice, writing to it between.
func moveOnce(from, to *Store, mem *memory, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 4))
	e, d := from.NewEncoder(EncoderConfig{}), to.NewDecoder(DecoderConfig{})
	defer e.Close()
	defer d.Close()
	wire, acks := make(chan parcel, 3), make(chan uint64, 3) // some are always in flight
	abort := rng.IntN(4) == 0
	stop := make(chan struct{})

	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		defer close(acks)
		for p := range wire {
			if err := decodeOne(d, p); err != nil {
				failed = err
			}
			select {
			case acks <- d.seq:
			case <-stop:
			}
		}
	})
	wg.Go(func() {
		late := rand.New(rand.NewPCG(seed, 5))
		last := uint64(0)
		for last = range acks {
			if late.IntN(3) == 0 {
				e.Acked(last)
			}
		}
		e.Acked(last)
	})
	err := sendTwice(e, mem, rng, wire, abort)
	if abort {
		close(stop)
		e.Close()
	}
	close(wire)
	wg.Wait()
	if !abort && e.Digest() != d.Digest() {
		err = errors.Join(err, errors.New("digests differ"))
	}
	if abort && errors.Is(failed, ErrMismatch) {
		failed = nil // what was in flight when the sender forgot it
	}
	return errors.Join(err, failed)
}

func sendTwice(e *Encoder, mem *memory, rng *rand.Rand, wire chan<- parcel, abort bool) error {
	var raw []byte
	cut := func() error {
		for b := e.Cut(); b != nil; b = e.Cut() {
			msg, err := b.Compress()
			if err != nil {
				return err
			}
			wire <- parcel{msg, bytes.Clone(raw[:b.Raw])}
			raw = append(raw[:0], raw[b.Raw:]...)
		}
		return nil
	}
	for round := range 2 {
		for i := range mem.pages {
			if rng.IntN(5) == 0 {
				mem.write(i)
			}
			if abort && round == 1 && i > 200 {
				return cut()
			}
			it := mem.item(i)
			raw = append(append(raw, it.Head...), it.Data...)
			if e.Add(it) || rng.IntN(300) == 0 {
				if err := cut(); err != nil {
					return err
				}
			}
		}
	}
	return cut()
}

func decodeOne(d *Decoder, p parcel) error {
	x, err := Expand(p.msg)
	if err != nil {
		return err
	}
	raw, _, err := d.Decode(nil, x)
	if err == nil && !bytes.Equal(raw, p.raw) {
		return fmt.Errorf("batch %d: the stream has changed", d.seq)
	}
	return err
}
