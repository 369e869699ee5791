package dedup

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// batches cuts n batches of a new channel, none of them compressed.
func batches(t *testing.T, e *Encoder, n int) (all []*Batch) {
	t.Helper()
	rng := rand.New(rand.NewPCG(9, uint64(n)))
	for i := range n {
		e.Add(fullPage(1, uint64(i), randomPage(rng)))
		all = append(all, e.Cut())
	}
	return all
}

// Whoever asks first, in whatever order, and whatever is compressed by then: the
// digest of a batch is that of the whole channel up to it.
func TestDigestInAnyOrder(t *testing.T) {
	const n = 20
	e := NewStore(Config{Budget: 32 << 20}).NewEncoder(EncoderConfig{})
	want := make([]Digest, n)
	var d Digest
	all := batches(t, e, n)
	for i, b := range all {
		d = d.next(digestOf(b.bufs.raw, &b.msg), b.Raw)
		want[i] = d
	}
	if got := all[12].Digest(); got != want[12] { // before anything is compressed
		t.Errorf("batch 13: %v, want %v", got, want[12])
	}
	var wg sync.WaitGroup
	for _, i := range rand.New(rand.NewPCG(1, 9)).Perm(n) {
		wg.Go(func() {
			if i%3 > 0 { // the others are never compressed
				if _, err := all[i].Compress(); err != nil {
					t.Error(err)
				}
			}
			if got := all[i].Digest(); got != want[i] {
				t.Errorf("batch %d: %v, want %v", i+1, got, want[i])
			}
		})
	}
	wg.Wait()
	if got := e.Digest(); got != want[n-1] {
		t.Errorf("all: %v, want %v", got, want[n-1])
	}
}

// The chain keeps nothing of what is compressed: a channel may last for days.
func TestDigestForgets(t *testing.T) {
	e := NewStore(Config{Budget: 32 << 20}).NewEncoder(EncoderConfig{})
	for _, b := range batches(t, e, 10) {
		if _, err := b.Compress(); err != nil {
			t.Fatal(err)
		}
		if b.link.before != nil || b.link.batch != nil {
			t.Errorf("batch %d: what is before it is still held", b.Seq)
		}
	}
}
