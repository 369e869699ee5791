package l2ext_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// gate is a link's cap that lets nothing through while it is shut.
type gate struct {
	mu   sync.Mutex // guards what follows
	shut chan struct{}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.shut)
	g.shut = nil
}

// capped is a site's express behind a gate.
type capped struct {
	l2ext.Express
	gate *gate
}

func (c capped) Send(site string, b []byte, size int) error {
	c.gate.mu.Lock()
	shut := c.gate.shut
	c.gate.mu.Unlock()
	if shut != nil {
		<-shut
	}
	return c.Express.Send(site, b, size)
}

// TestSlowLineHoldsNobody revokes a move while the link's cap lets nothing through: what
// was parked waits for it, and the manager does not; nor do frames of others for hosts here.
// When the line is free they come in order, before what came after.
func TestSlowLineHoldsNobody(t *testing.T) {
	inMode(t, l2ext.SecureFast)
	synctest.Test(t, func(t *testing.T) {
		var g gate
		w := newWorldWith(t, func(cfg *l2ext.Config) {
			if cfg.Site == "b" {
				cfg.Express = capped{cfg.Express, &g}
			}
		}, l2exttest.Line{Delay: time.Millisecond}, "a", "b")
		w.toSwitch("a", "b")
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		var want []int
		for n := range 100 {
			w.say("b", n)
			want = append(want, n)
		}
		g.close()
		check(t, w.ms["a"].Revoke(t.Context(), "j"))
		w.settle()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.ms["b"].Prepare(ctx, "other", nil, "a"); err != nil {
			t.Errorf("the manager waits for the line: %v", err)
		}
		check(t, w.hosts["a"].Send("lan", frameTo(hostOf("b"), hostOf("a"), 100)))
		w.settle()
		if got := w.receive("b", "lan", hostOf("a")); len(got) != 1 {
			t.Errorf("a host of b got %d frames meanwhile", len(got))
		}
		for n := 100; n < 110; n++ {
			w.say("b", n)
			want = append(want, n)
		}
		g.open()
		w.settle()
		if got := w.told("a", "vm"); !slices.Equal(got, want) {
			t.Errorf("the VM got %v", got)
		}
	})
}
