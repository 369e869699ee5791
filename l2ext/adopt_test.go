package l2ext_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// adopter is a Host that notes whether it was last wished to let be what an earlier gateway
// has left, and which hosts were taken out by name.
type adopter struct {
	l2ext.Host
	mu     sync.Mutex
	adopts bool
	out    map[l2ext.MAC]bool
}

func (a *adopter) Apply(ctx context.Context, wishes []l2ext.Wish) ([]l2ext.Attached, error) {
	a.mu.Lock()
	for _, w := range wishes {
		a.adopts = w.Direct != nil && w.Direct.Adopt
	}
	a.mu.Unlock()
	return a.Host.Apply(ctx, wishes)
}

func (a *adopter) Point(vni uint32, entries []l2ext.Entry) error {
	a.mu.Lock()
	for _, e := range entries {
		a.out[e.MAC] = e.Site == 0
	}
	a.mu.Unlock()
	return a.Host.Point(vni, entries)
}

func (a *adopter) isAdopting() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.adopts
}

// TestDirectAdoption starts gateways in mode direct. What earlier ones have left stays until the other
// site has said where it is, and some seconds, or for ten when it says nothing; and never a host
// that is here.
func TestDirectAdoption(t *testing.T) {
	for _, tt := range []struct {
		name    string
		silence time.Duration // of the other site
		from    time.Duration // when it has to be over, after the start
		to      time.Duration
	}{
		{"soon", 500 * time.Millisecond, 3 * time.Second, 5 * time.Second},
		{"late", 5 * time.Second, 8 * time.Second, 10 * time.Second},
		{"never", time.Hour, 9 * time.Second, 12 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := emptyWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond})
				a := &adopter{out: make(map[l2ext.MAC]bool)}
				w.change = func(c *l2ext.Config) {
					if c.Site == "a" {
						a.Host = c.Host
						c.Host = a
					}
				}
				sites := []string{"a", "b"}
				w.begin(sites)
				w.wire.Cut()
				w.settle()
				for _, site := range sites {
					s := segment(site, sites)
					s.Mode = l2ext.Direct
					check(t, w.ms[site].Apply(t.Context(), nil), w.ms[site].Apply(t.Context(), []l2ext.Segment{s}))
				}
				began := time.Now()
				w.appear("a", "lan", vmMAC, "10.0.0.9")
				a.mu.Lock()
				if out, ok := a.out[vmMAC]; !ok || !out {
					t.Error("a host that is here has its entries of before")
				}
				a.mu.Unlock()
				ended := time.Duration(0)
				for time.Since(began) < 15*time.Second {
					if ended == 0 && !a.isAdopting() {
						ended = time.Since(began)
					}
					if tt.silence != time.Hour && time.Since(began) >= tt.silence {
						w.wire.Heal()
						tt.silence = time.Hour
					}
					w.pass(10 * time.Millisecond)
				}
				if ended < tt.from || ended > tt.to {
					t.Errorf("it was over after %v, want %v to %v", ended, tt.from, tt.to)
				}
				if a.isAdopting() {
					t.Error("it began anew")
				}
			})
		})
	}
}
