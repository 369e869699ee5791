package l2ext_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestCapture looks at both directions, cuts frames short, and is too slow once.
func TestCapture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		other := l2ext.MAC{2, 0, 0, 0, 0, 2}
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		w.appear("b", "lan", other, "10.0.0.2")
		ctx, cancel := context.WithCancel(t.Context())
		var got []l2ext.Captured
		var wg sync.WaitGroup
		hold := make(chan struct{})
		var missed uint64
		wg.Go(func() {
			var err error
			missed, err = w.ms["a"].Capture(ctx, "prod", l2ext.CaptureOptions{Snap: 20}, func(c l2ext.Captured) error {
				if src := l2ext.MAC(c.Frame[6:12]); src == vmMAC || src == other {
					got = append(got, c)
				}
				if len(got) == 2 {
					<-hold
				}
				return nil
			})
			check(t, err)
		})
		synctest.Wait()
		check(t, w.hosts["a"].Send("lan", frameTo(other, vmMAC, 100)))
		w.settle()
		check(t, w.hosts["b"].Send("lan", frameTo(vmMAC, other, 2000)))
		w.settle()
		for range 1500 { // nobody takes them
			check(t, w.hosts["a"].Send("lan", frameTo(other, vmMAC, 100)))
			synctest.Wait()
		}
		close(hold)
		w.settle()
		cancel()
		wg.Wait()
		if len(got) < 1000 || got[0].Inward || got[0].Len != 100 || len(got[0].Frame) != 20 || !got[1].Inward || got[1].Len != 2000 {
			t.Errorf("%d frames, the first two %+v", len(got), got[:min(2, len(got))])
		}
		if missed < 400 || missed+uint64(len(got)) > 1600 {
			t.Errorf("%d missed, %d seen", missed, len(got))
		}
	})
}

func TestCaptureEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		capture := func(ctx context.Context, name string, f func(l2ext.Captured) error) error {
			_, err := w.ms["a"].Capture(ctx, name, l2ext.CaptureOptions{}, f)
			return err
		}
		if err := capture(t.Context(), "x", nil); err == nil {
			t.Error("a segment that is not was captured")
		}
		full := errors.New("the disk is full")
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { check(t, capture(ctx, "prod", func(l2ext.Captured) error { return nil })) })
		}
		synctest.Wait()
		if err := capture(t.Context(), "prod", nil); err == nil {
			t.Error("a ninth capture")
		}
		cancel()
		wg.Wait()
		var err error
		wg.Go(func() { err = capture(t.Context(), "prod", func(l2ext.Captured) error { return full }) })
		synctest.Wait()
		check(t, w.hosts["a"].Send("lan", frameTo(ether.Broadcast, vmMAC, 100)))
		wg.Wait()
		if !errors.Is(err, full) {
			t.Errorf("it ended with %v", err)
		}
		wg.Go(func() { check(t, capture(t.Context(), "prod", func(l2ext.Captured) error { return nil })) })
		synctest.Wait()
		w.stop["a"]()
		wg.Wait()
	})
}
