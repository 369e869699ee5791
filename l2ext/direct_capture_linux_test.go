package l2ext_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestDirectCapture looks at what the kernel carries: full frames both ways, cut at
// the snap, with their lengths, and what was missed is counted.
func TestDirectCapture(t *testing.T) {
	l, _ := newDirectLab(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b")
	a, b := l.sites["a"], l.sites["b"]
	echoUDP(t, b.host, ":7")
	c := dialUDP(t, a.host, "10.77.0.2:7")
	check(t, echoed(c, 100))
	macs := map[bool]l2ext.MAC{false: {2, 0, 0, 0, 0, 1}, true: {2, 0, 0, 0, 0, 2}} // of who sends it
	full := make(chan l2ext.Captured, 64)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := a.m.Capture(ctx, "prod", l2ext.CaptureOptions{Snap: 42}, func(c l2ext.Captured) error {
			if c.Len == 1514 && l2ext.MAC(c.Frame[6:12]) == macs[c.Inward] {
				select {
				case full <- c:
				default:
				}
			}
			return nil
		})
		ended <- err
	}()
	seen := make(map[bool]int)
	until(t, "full frames are captured both ways", func() bool {
		check(t, echoed(c, 1472))
		for len(full) > 0 {
			f := <-full
			seen[f.Inward]++
			if len(f.Frame) != 42 || f.Frame[12] != 8 || time.Since(f.At) > l2exttest.Patience {
				t.Errorf("captured: %+v", f)
			}
		}
		return seen[true] > 2 && seen[false] > 2
	})
	cancel()
	check(t, <-ended)

	// Who takes nothing misses what does not fit.
	ctx, cancel = context.WithCancel(t.Context())
	hold := make(chan struct{})
	began := make(chan struct{})
	once := sync.OnceFunc(func() { close(began) })
	missed := make(chan uint64, 1)
	go func() {
		n, err := a.m.Capture(ctx, "prod", l2ext.CaptureOptions{}, func(l2ext.Captured) error { once(); <-hold; return nil })
		missed <- n
		ended <- err
	}()
	<-began // the echoes of the gateways are captured, too
	burst := make([]byte, 1472)
	for range 20000 { // 45 MB
		c.Write(burst)
	}
	close(hold)
	cancel()
	if n := <-missed; n == 0 || a.count(l2ext.CaptureMissed) != n {
		t.Errorf("%d frames were missed, %d are counted", n, a.count(l2ext.CaptureMissed))
	}
	check(t, <-ended)

	// A segment that ends, ends its captures.
	again := make(chan struct{})
	first := sync.OnceFunc(func() { close(again) })
	go func() {
		_, err := a.m.Capture(t.Context(), "prod", l2ext.CaptureOptions{}, func(l2ext.Captured) error { first(); return nil })
		ended <- err
	}()
	<-again
	check(t, a.m.Apply(t.Context(), nil))
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("the segment has ended, and its capture with %v", err)
	}
}
