package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// noBridges is a Host on which no device is a bridge.
type noBridges struct{ l2ext.Host }

func (h noBridges) Apply(ctx context.Context, wishes []l2ext.Wish) ([]l2ext.Attached, error) {
	all, err := h.Host.Apply(ctx, wishes)
	for i := range all {
		all[i].Err = fmt.Errorf("device %s is a veth: %w", wishes[i].Bridge, l2ext.ErrNoBridge)
	}
	return all, err
}

// TestStretchNoBridge asks for a segment on a device that is no bridge: the answer says so, and there is
// none. One of the config waits.
func TestStretchNoBridge(t *testing.T) {
	l, err := NewLayer2(Layer2Config{Site: "a", Host: noBridges{l2exttest.NewHost()}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	s := Segment{Name: "prod", VNI: 100, Bridge: "lan0"}
	if _, err := l.StretchSegment(ctx, s); !errors.Is(err, ErrInvalid) || !errors.Is(err, l2ext.ErrNoBridge) {
		t.Errorf("stretched: %v", err)
	} else {
		t.Log(err)
	}
	if all, err := l.Segments(ctx); len(all) != 0 || err != nil {
		t.Errorf("there are %+v, %v", all, err)
	}
	if v, err := l.AddSegment(ctx, s); err != nil || v.Problem == "" {
		t.Errorf("of the config: %+v, %v", v, err)
	}
}
