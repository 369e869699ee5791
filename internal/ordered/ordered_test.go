package ordered_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/internal/ordered"
	"go.uber.org/goleak"
)

func feed(n int) <-chan int {
	in := make(chan int, n) // holds all, so that the test needs no feeder
	for i := range n {
		in <- i
	}
	close(in)
	return in
}

func TestMapKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []int
		err := ordered.Map(t.Context(), 4, feed(100), func(i int) (int, error) {
			time.Sleep(time.Duration(100-i) * time.Millisecond) // later ones are ready first
			return i * i, nil
		}, func(r int) error {
			got = append(got, r)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range got {
			if r != i*i {
				t.Fatalf("result %d is %d, want %d", i, r, i*i)
			}
		}
		if len(got) != 100 {
			t.Errorf("%d results, want 100", len(got))
		}
	})
}

func TestMapIsBounded(t *testing.T) {
	const n = 3
	synctest.Test(t, func(t *testing.T) {
		var under, most atomic.Int32
		release := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- ordered.Map(t.Context(), n, feed(50), func(i int) (int, error) {
				most.Store(max(most.Load(), under.Add(1)))
				return i, nil
			}, func(int) error {
				<-release
				under.Add(-1)
				return nil
			})
		}()
		synctest.Wait()
		// n slots wait, one more is at the deliverer, one with a worker that
		// has not got its slot's turn.
		if got := most.Load(); got > n+2 {
			t.Errorf("%d items were under way with a slow consumer, want at most %d", got, n+2)
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestMapEnds(t *testing.T) {
	defer goleak.VerifyNone(t)
	errBad := errors.New("bad item")
	never := make(chan int) // an idle source must not hold us
	ctx, cancel := context.WithCancelCause(t.Context())
	for name, run := range map[string]func() error{
		"f fails": func() error {
			return ordered.Map(t.Context(), 2, feed(9), func(i int) (int, error) {
				if i == 5 {
					return 0, errBad
				}
				return i, nil
			}, func(int) error { return nil })
		},
		"deliver fails": func() error {
			return ordered.Map(t.Context(), 2, feed(9), func(i int) (int, error) { return i, nil },
				func(i int) error { return errBad })
		},
		"cancelled while idle": func() error {
			cancel(errBad)
			return ordered.Map(ctx, 2, never, func(i int) (int, error) { return i, nil },
				func(int) error { return nil })
		},
	} {
		if err := run(); !errors.Is(err, errBad) {
			t.Errorf("%s: error %v, want %v", name, err, errBad)
		}
	}
}

func BenchmarkMap(b *testing.B) {
	b.ReportAllocs()
	in := make(chan int, 64) // as the path uses it
	go func() {
		defer close(in)
		for b.Loop() {
			in <- 1
		}
	}()
	if err := ordered.Map(b.Context(), 2, in, func(i int) (int, error) { return i, nil },
		func(int) error { return nil }); err != nil {
		b.Fatal(err)
	}
}
