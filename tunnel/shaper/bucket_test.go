package shaper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWaitKeepsRate(t *testing.T) {
	for _, rate := range []int64{12_500, 1_250_000, 25_000_000, 3_125_000_000} {
		t.Run(fmt.Sprint("rate=", rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := New(rate)
				n := b.Quantum()
				start := time.Now()
				total := int64(0)
				for time.Since(start) < 2*time.Second {
					if err := b.Wait(t.Context(), Bulk, n); err != nil {
						t.Fatal(err)
					}
					total += int64(n)
				}
				took := time.Since(start)
				want := rate * int64(took) / int64(time.Second)
				if off := total - want; off < 0 || off > int64(n)+1 {
					t.Errorf("%d bytes in %v, want %d and at most one request more", total, took, want)
				}
			})
		})
	}
}

func TestPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(1_000_000)
		b.Wait(t.Context(), Urgent, 100_000) // debt of 100 ms, for Urgent as well
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		for i, class := range []Class{Bulk, L2, Urgent, Bulk, L2, Urgent} {
			wg.Go(func() {
				b.Wait(t.Context(), class, 10_000)
				mu.Lock()
				defer mu.Unlock()
				order = append(order, fmt.Sprint(class, i))
			})
			synctest.Wait()
		}
		wg.Wait()
		want := "[urgent 2 urgent 5 l2 1 l2 4 bulk 0 bulk 3]"
		if got := fmt.Sprint(order); got != want {
			t.Errorf("got order %v, want %v", got, want)
		}
	})
}

// TestUrgentPasses: a batch of bulk at a low rate does not hold up control.
func TestUrgentPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(12_500)
		start := time.Now()
		b.Wait(t.Context(), Bulk, 20<<10)
		b.Wait(t.Context(), Urgent, 100)
		if took := time.Since(start); took != 0 {
			t.Errorf("urgent waited %v for bulk", took)
		}
		b.Wait(t.Context(), Bulk, 1)
		if took, want := time.Since(start), 20580*time.Second/12500; took != want {
			t.Errorf("bulk waited %v, want %v", took, want)
		}
	})
}

func TestSetRateWhileWaiting(t *testing.T) {
	for _, tt := range []struct {
		rate int64
		want time.Duration // after which the waiter passes
	}{
		{0, 1 * time.Second},                           // no cap: at once
		{10_000, 1*time.Second + 900*time.Millisecond}, // 9000 bytes of debt left
		{100, 10 * time.Second},                        // debt keeps its time
	} {
		t.Run(fmt.Sprint("rate=", tt.rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := New(1000)
				start := time.Now()
				b.Wait(t.Context(), Bulk, 10_000)
				var wg sync.WaitGroup
				wg.Go(func() {
					b.Wait(t.Context(), Bulk, 1)
					if got := time.Since(start); got != tt.want {
						t.Errorf("passed after %v, want %v", got, tt.want)
					}
				})
				time.Sleep(time.Second)
				b.SetRate(tt.rate)
				wg.Wait()
				if got := b.Rate(); got != tt.rate {
					t.Errorf("got rate %d, want %d", got, tt.rate)
				}
			})
		})
	}
}

func TestWaitCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(1000)
		b.Wait(t.Context(), Bulk, 1000)
		start := time.Now()
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := b.Wait(ctx, L2, 1_000_000); err != stop {
				t.Errorf("got %v, want %v", err, stop)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			b.Wait(t.Context(), Bulk, 1)
			if got, want := time.Since(start), time.Second; got != want {
				t.Errorf("passed after %v, want %v: the cancelled one was charged", got, want)
			}
		})
		synctest.Wait()
		cancel(stop)
		wg.Wait()
		if err := b.Wait(ctx, L2, 1); err != stop {
			t.Errorf("cancelled before: got %v, want %v", err, stop)
		}
	})
}

// TestMany has all classes, a changing rate and cancellations at once, for
// the race detector; it checks that everybody gets out.
func TestMany(t *testing.T) {
	b := New(50_000_000)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			for b.Wait(ctx, Class(i%classes), 3000) == nil {
			}
		})
	}
	for i := int64(1); ctx.Err() == nil; i++ {
		b.SetRate(i % 7 * 20_000_000)
		timer := time.NewTimer(5 * time.Millisecond)
		<-timer.C
	}
	wg.Wait()
}

// BenchmarkWait is how fast batches pass a cap that is never reached, and one
// that is: then MB/s is the cap if the shell keeps up.
func BenchmarkWait(b *testing.B) {
	for _, rate := range []int64{0, MaxRate, 3_125_000_000, 125_000_000} {
		b.Run(fmt.Sprint("rate=", rate), func(b *testing.B) {
			bucket := New(rate)
			ctx := b.Context()
			n := bucket.Quantum()
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if err := bucket.Wait(ctx, Bulk, n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
