package l2ext_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
	loopprobe "github.com/longhaul-project/longhaul/l2ext/probe"
)

// TestEcho asks another site over a line that takes 20 ms, and then none.
func TestEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond}, "a", "b")
		for _, size := range []int{46, 1500, 9000} {
			if d, err := w.ms["a"].Echo(t.Context(), "prod", "b", size); err != nil || d != 40*time.Millisecond {
				t.Errorf("%d bytes: %v, %v", size, d, err)
			}
		}
		if _, err := w.ms["a"].Echo(t.Context(), "prod", "c", 100); err == nil {
			t.Error("a site that is not has answered")
		}
		if d := w.ms["a"].Clocks()["b"]; d != -20*time.Millisecond {
			t.Errorf("the clock of b is %v ahead", d)
		}
		if got := w.receive("b", "lan", [6]byte{0x0a, 0x4c, 0x48}); len(got) != 0 {
			t.Error("an echo has reached a LAN")
		}
		w.wire.Cut()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.ms["a"].Echo(ctx, "prod", "b", 100); err == nil {
			t.Error("a site that is cut off has answered")
		}
	})
}

// TestEchoOfGuest: a host of another site asks and answers as if it were that
// site's gateway. What a host can send is no echo.
func TestEchoOfGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		w.policy(l2ext.Policy{Unknown: l2ext.UnknownLimited}) // else it does not even cross
		echo := loopprobe.Echo{Src: loopprobe.GatewayOf(100, "b"), Dst: loopprobe.GatewayOf(100, "a"), Number: 1}
		check(t, w.hosts["b"].Send("lan", echo.Append(nil)))
		w.settle()
		if w.count("b", l2ext.Sent) != 1 || w.count("a", l2ext.Sent) != 0 {
			t.Errorf("a host's question: %d frames went, %d came back", w.count("b", l2ext.Sent), w.count("a", l2ext.Sent))
		}
		w.wire.SetLoss(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		answered := make(chan error, 1)
		go func() {
			_, err := w.ms["a"].Echo(ctx, "prod", "b", 100)
			answered <- err
		}()
		synctest.Wait()
		w.wire.SetLoss(0)
		echo.Reply = true
		check(t, w.hosts["b"].Send("lan", echo.Append(nil)))
		if err := <-answered; err == nil {
			t.Error("a host has answered for its gateway")
		}
	})
}
