package l2ext_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// dropping is a Host whose kernel drops frames of each kind between two wishes: one, two, and so on.
type dropping struct {
	l2ext.Host
	wishes atomic.Uint64
}

func (d *dropping) Apply(ctx context.Context, wishes []l2ext.Wish) ([]l2ext.Attached, error) {
	all, err := d.Host.Apply(ctx, wishes)
	n := d.wishes.Add(1) - 1
	for i := range all {
		all[i].Limited, all[i].Forbidden, all[i].Kept, all[i].Shut, all[i].NoListener, all[i].OtherVLANs = n, 2*n, 3*n, 4*n, 5*n, 6*n
	}
	return all, err
}

// TestKernelDrops counts what the kernel has dropped by its reason.
func TestKernelDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dropping{}
		w := newWorldWith(t, func(c *l2ext.Config) {
			if c.Site == "a" {
				d.Host = c.Host
				c.Host = d
			}
		}, l2exttest.Line{}, "a", "b")
		w.pass(5 * time.Minute)
		n := d.wishes.Load() - 1
		counts := w.ms["a"].Segments()[0].Counts
		for i, c := range []l2ext.Count{l2ext.DropKernel, l2ext.DropForbidden, l2ext.DropPolicy, l2ext.DropShut, l2ext.DropNoListener, l2ext.DropVLAN} {
			if got, want := counts[c], uint64(i+1)*n; got != want || n < 5 {
				t.Errorf("%v: %d, want %d", c, got, want)
			}
		}
	})
}
